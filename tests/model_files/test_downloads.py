"""Transfers from a real server on this machine: whole, broken off, stalled, changed, refused; and full disks."""

from __future__ import annotations

import email.utils
import io
import shutil
import sys
import time
import urllib.request
from email.message import Message

import pytest

from promptgen import progress
from promptgen.errors import ChecksumError, ModelFileError, StorageError
from promptgen.model_files import addresses, downloads
from promptgen.model_files.downloads import Patience, download
from tests.faults import dead_server, full_disk
from tests.web import Answer

pytestmark = pytest.mark.faults

CONTENT = bytes(range(256)) * 400
OTHER = bytes(reversed(CONTENT))
QUICK = Patience(timeout=5.0, tries=3, pause=0.0, longest_pause=1.0)


@pytest.fixture
def get(tmp_path):
    """A function that downloads an address and returns the content."""

    def run(url: str, patience: Patience = QUICK, **more: object) -> bytes:
        return download(url, tmp_path, "some/file", patience=patience, **more).read_bytes()

    return run


def test_a_whole_file_comes_once(web, get):
    url = web.serve("/file", Answer(CONTENT))
    assert get(url) == CONTENT
    assert get(url) == CONTENT
    assert web.ranges == [None]


def test_a_file_of_unknown_length_comes_once(web, get):
    url = web.serve("/file", Answer(CONTENT, told=None))
    assert get(url) == CONTENT
    assert get(url) == CONTENT
    assert web.ranges == [None]


def test_a_large_file_comes_in_pieces(web, get):
    large = CONTENT * 30
    assert get(web.serve("/file", Answer(large))) == large


@pytest.mark.parametrize(
    "known",
    [
        {"version": '"1"'},
        {"version": None, "headers": {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}},
        {"version": 'W/"1"', "headers": {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}},
    ],
)
def test_a_broken_transfer_goes_on_where_it_stopped(web, get, known, caplog):
    url = web.serve("/file", Answer(CONTENT, sent=5000, **known), Answer(CONTENT, **known))
    assert get(url) == CONTENT
    assert web.ranges == [None, "bytes=5000-"]
    assert "interrupted after 0.0 MB of 0.1 MB; trying again" in caplog.text


def test_a_later_call_goes_on_too(web, get):
    url = web.serve("/file", Answer(CONTENT, sent=5000), Answer(CONTENT))
    with pytest.raises(ModelFileError, match=r"/file: interrupted after .* run again to continue"):
        get(url, Patience(tries=1))
    assert get(url) == CONTENT
    assert web.ranges == [None, "bytes=5000-"]


@pytest.mark.parametrize("version", [None, 'W/"1"'])
def test_without_a_version_it_starts_over(web, get, version):
    url = web.serve("/file", Answer(CONTENT, sent=5000, version=version), Answer(CONTENT, version=version))
    assert get(url) == CONTENT
    assert web.ranges == [None, None]


def test_a_server_without_ranges_gives_the_whole_again(web, get):
    url = web.serve("/file", Answer(CONTENT, sent=5000), Answer(CONTENT, knows_ranges=False))
    assert get(url) == CONTENT
    assert web.ranges == [None, "bytes=5000-"]


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize("changed", [OTHER, OTHER[:7000], OTHER[:5000], OTHER[:3000]])
def test_two_versions_are_never_put_together(web, get, knows_if_range, changed):
    after = Answer(changed, version='"2"', knows_if_range=knows_if_range)
    url = web.serve("/file", Answer(CONTENT, sent=5000), after)
    assert get(url) == changed


def test_a_part_from_another_place_is_not_gone_on_with(web, get):
    url = web.serve("/file", Answer(CONTENT, sent=5000), Answer(OTHER[:-1], knows_if_range=False), Answer(OTHER))
    assert get(url) == OTHER


def test_a_busy_server_is_asked_again(web, get, caplog):
    url = web.serve("/file", Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer(CONTENT))
    assert get(url) == CONTENT
    assert "/file: 503 Service Unavailable; trying again in 0 s" in caplog.text


def test_pauses_double(web, get, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    busy = Answer(status=429, headers={"Retry-After": "7"})
    url = web.serve("/file", Answer(status=500), Answer(status=500), busy, Answer(CONTENT))
    assert get(url, Patience()) == CONTENT
    assert pauses == [1, 2, 7]


def test_tries_end(web, get):
    url = web.serve("/file", Answer(status=502))
    with pytest.raises(ModelFileError, match="/file: 502 Bad Gateway; run again to continue"):
        get(url)
    assert len(web.requests) == 3


def test_tries_that_bring_something_are_not_counted(web, get):
    large = CONTENT * 60
    steps = [Answer(large, sent=1_100_000) for _ in range(5)]
    assert get(web.serve("/file", *steps, Answer(large))) == large
    assert len(web.requests) == 6


def test_a_server_that_asks_for_a_long_pause_is_not_waited_for(web, get):
    url = web.serve("/file", Answer(status=429, headers={"Retry-After": "500"}))
    with pytest.raises(ModelFileError, match="429 Too Many Requests; run again to continue, when 500 s have passed"):
        get(url)
    assert len(web.requests) == 1


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 0), ("12", 12), ("soon", 0), ("-5", 0)])
def test_a_pause_is_asked_for_in_seconds(wanted, seconds):
    assert downloads._seconds(wanted) == seconds


def test_a_pause_is_asked_for_by_date():
    until = email.utils.formatdate(time.time() + 1000)
    assert downloads._seconds(until) == pytest.approx(1000, abs=5)


@pytest.mark.parametrize(("status", "hint"), [(404, "the link is dead"), (403, "needs a permission"), (401, "log-in")])
def test_a_refusal_is_final(web, get, status, hint):
    with pytest.raises(ModelFileError, match=f"/file: {status} .*; .*{hint}"):
        get(web.serve("/file", Answer(status=status)))
    assert len(web.requests) == 1


def test_a_dead_server_is_named(get):
    url = f"{dead_server()}/x"
    with pytest.raises(ModelFileError, match=rf"{url}: no answer \(.*refused\); run again"):
        get(url)


def test_a_stalled_transfer_ends_and_goes_on(web, get, caplog):
    url = web.serve("/file", Answer(CONTENT, sent=5000, stalls=True), Answer(CONTENT))
    assert get(url, Patience(timeout=0.3, tries=2, pause=0.0)) == CONTENT
    assert "no data for 0.3 s" in caplog.text
    assert web.ranges == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"anything", {"Content-Type": "text/html; charset=utf-8"}),
        (b"\n <!DOCTYPE HTML><title>Sign in</title>", {"Content-Type": "application/octet-stream"}),
        (b"\xef\xbb\xbf<html lang='en'>", {}),
    ],
)
def test_a_web_page_is_no_file(web, get, content, headers):
    with pytest.raises(ModelFileError, match="/file: got a web page instead of the file; the link is dead, needs"):
        get(web.serve("/file", Answer(content, headers=headers)))
    assert len(web.requests) == 1


def test_an_empty_file_is_refused(web, get):
    with pytest.raises(ModelFileError, match="/file: the file is empty"):
        get(web.serve("/file", Answer(b"")))


@pytest.mark.parametrize("told", [-1, None])
@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_is_refused(web, get, tmp_path, told, size):
    with pytest.raises(ChecksumError, match=rf"/file has .* {size}"):
        get(web.serve("/file", Answer(CONTENT, told=told)), size=size)


def test_a_file_of_unknown_length_that_ended_too_early_is_asked_for_again(web, get):
    url = web.serve("/file", Answer(CONTENT, told=None, sent=5000, version=None), Answer(CONTENT))
    with pytest.raises(ChecksumError, match="has 5000 bytes, expected 102400"):
        get(url, size=len(CONTENT))
    assert get(url, size=len(CONTENT)) == CONTENT


def test_more_than_was_told_is_not_taken(web, get):
    assert get(web.serve("/file", Answer(CONTENT, told=1000))) == CONTENT[:1000]


def test_a_redirect_is_followed_and_gets_no_secret(web, get, monkeypatch):
    target = web.serve("/target", Answer(CONTENT)).replace("127.0.0.1", "localhost")
    elsewhere = web.serve("/elsewhere", Answer(status=302, headers={"Location": f"{target}?key=hidden"}))
    url = web.serve("/file", Answer(status=307, headers={"Location": elsewhere}))
    assert get(url, secrets={"Authorization": "Bearer hidden"}) == CONTENT
    assert [headers.get("Authorization") for headers in web.requests] == ["Bearer hidden", "Bearer hidden", None]


@pytest.mark.parametrize("target", ["http://example.org/x?key=hidden", "ftp://example.org/x"])
def test_a_redirect_never_leaves_encryption(target):
    asked = urllib.request.Request("https://example.org/file?key=hidden")
    with pytest.raises(ModelFileError, match=r"^https://example.org/file leads to (http|ftp):, expected https:"):
        addresses._Redirects().redirect_request(asked, io.BytesIO(), 302, "Found", Message(), target)


def test_keys_in_an_address_are_not_shown(web, get, caplog):
    url = web.serve("/file", Answer(status=500), Answer(status=404))
    with pytest.raises(ModelFileError) as error:
        get(f"{url}?key=hidden")
    assert "hidden" not in str(error.value) + caplog.text
    assert web.paths == ["/file?key=hidden"] * 2


def test_the_proxy_of_the_environment_is_asked(web, get, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", web.url)
    web.serve("http://example.invalid/file", Answer(CONTENT))
    assert get("http://example.invalid/file") == CONTENT


def test_a_file_that_does_not_fit_is_not_begun(web, get, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"cannot write .*: 0.1 MB are needed, 0.0 MB are free; free some"):
        get(web.serve("/file", Answer(CONTENT)))


def test_a_disk_that_fills_up_keeps_what_came(web, get, tmp_path):
    large = CONTENT * 30
    url = web.serve("/file", Answer(large))
    room = len(large) * 2 // 3
    with (
        full_disk(tmp_path, room),
        pytest.raises(StorageError, match=r"cannot write .*: no space is left: free some"),
    ):
        get(url)
    kept = sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix != ".json")
    assert 0 < kept < len(large)
    assert get(url) == large
    assert web.ranges == [None, f"bytes={kept}-"]


def test_progress_is_logged_where_there_is_no_terminal(web, get, monkeypatch, caplog):
    caplog.set_level("INFO", "promptgen")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    get(web.serve("/file", Answer(CONTENT)))
    assert "some/file: 100% 102k/102k " in caplog.text


def test_progress_is_quiet_in_between(web, get, caplog):
    caplog.set_level("INFO", "promptgen")
    get(web.serve("/file", Answer(CONTENT)))
    assert caplog.text == ""


def test_progress_is_a_bar_on_a_terminal(web, get, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    get(web.serve("/file", Answer(CONTENT, sent=51200), Answer(CONTENT)))
    assert "some/file:  50%" in terminal.getvalue()
    assert "some/file: 100%" in terminal.getvalue()
    assert "102k/102k" in terminal.getvalue()

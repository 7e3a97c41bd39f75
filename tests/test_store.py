"""Weight files: cards, the three kinds of URL, damage, broken transfers."""

from __future__ import annotations

import errno
import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import yaml

from promptgen import store
from promptgen.build import MODELS
from promptgen.errors import ChecksumError, ConfigError, ModelFileError, StorageError

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A function that makes these the only cards."""
    folder = tmp_path / "cards"
    folder.mkdir()

    def make(**cards: dict) -> None:
        (folder / "cards.yaml").write_text(yaml.safe_dump(cards))
        monkeypatch.setattr(store, "load_cards", lambda: real(folder))

    real = store.load_cards
    return make


def card(*urls: str, **changes: object) -> dict:
    common = {"kind": "classifier", "type": "some", "file": "some.bin", "licence": "CC0", "size": len(CONTENT)}
    return {**common, "urls": list(urls), "sha256": SHA256, **changes}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; knows ranges, and breaks off as often as `breaks` says."""

    breaks: list[int] = []  # noqa: RUF012
    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.path == "/missing":
            self.send_error(404)
        elif start >= len(CONTENT):
            self.send_error(416)
        else:
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:][: self.breaks.pop() if self.breaks else None])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    Server.breaks, Server.ranges = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_cards_of_the_package_are_sound():
    for name, found in store.load_cards().items():
        assert found.type in MODELS, name


def test_a_file_is_copied_and_verified(tmp_path, cards):
    (tmp_path / "source").write_bytes(CONTENT)
    cards(some=card(f"file:{tmp_path / 'source'}"))
    path = store.fetch("some", tmp_path / "models")
    assert path.read_bytes() == CONTENT
    assert store.resolve("some", tmp_path / "models") == path
    (tmp_path / "source").unlink()
    assert store.fetch("some", tmp_path / "models") == path  # it is there and sound: nothing is asked for


def test_a_file_of_the_package_is_copied(tmp_path, cards):
    source = Path(store.__file__).with_name("seeding.py").read_bytes()
    cards(some=card("package:seeding.py", sha256=hashlib.sha256(source).hexdigest(), size=len(source)))
    assert store.fetch("some", tmp_path / "models").read_bytes() == source


def test_a_missing_file_is_named_with_the_way_out(tmp_path, cards):
    cards(some=card("file:/nowhere"))
    with pytest.raises(ModelFileError, match=r"some.bin is missing; fetch it with `python -m steps.fetch some`"):
        store.resolve("some", tmp_path)


def test_a_damaged_file_is_never_used_and_is_fetched_again(tmp_path, cards):
    (tmp_path / "source").write_bytes(CONTENT)
    cards(some=card(f"file:{tmp_path / 'source'}"))
    (tmp_path / "some.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ChecksumError, match=r"has sha256 .* expected .*delete it and fetch it again"):
        store.resolve("some", tmp_path)
    assert store.fetch("some", tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_leaves_nothing(tmp_path, cards):
    (tmp_path / "source").write_bytes(b"something else")
    cards(some=card(f"file:{tmp_path / 'source'}"))
    with pytest.raises(ChecksumError, match=r"cannot fetch some: .*is the card up to date"):
        store.fetch("some", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_urls_are_tried_in_turn(tmp_path, cards, server):
    cards(some=card("file:/nowhere", "ftp://x", f"{server}/missing", f"{server}/here"))
    assert store.fetch("some", tmp_path).read_bytes() == CONTENT
    cards(some=card("file:/nowhere", "ftp://x", f"{server}/missing"))
    (tmp_path / "some.bin").unlink()
    with pytest.raises(ModelFileError, match=r"/nowhere does not exist; ftp://x: unknown kind .*/missing: 404"):
        store.fetch("some", tmp_path)


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path, cards, server):
    cards(some=card(f"{server}/here"))
    Server.breaks = [5000]
    with pytest.raises(ModelFileError, match=r"broke off.* run again to go on"):
        store.fetch("some", tmp_path)
    assert not (tmp_path / "some.bin").exists()
    assert store.fetch("some", tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=5000-"]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("some")] == ["some.bin"]


def test_a_whole_part_is_not_transferred_again(tmp_path, cards, server):
    cards(some=card(f"{server}/here"))
    part = tmp_path / store.PARTIAL / SHA256 / "some.bin"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert store.fetch("some", tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_file_is_dropped(tmp_path, cards, server):
    cards(some=card(f"{server}/here"))
    part = tmp_path / store.PARTIAL / SHA256 / "some.bin"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    with pytest.raises(ChecksumError):
        store.fetch("some", tmp_path)
    assert store.fetch("some", tmp_path).read_bytes() == CONTENT


def test_a_dead_server_is_named(tmp_path, cards):
    cards(some=card("http://127.0.0.1:1/x"))
    with pytest.raises(ModelFileError, match=r"cannot fetch some: http://127.0.0.1:1/x: .*refused"):
        store.fetch("some", tmp_path)


def test_a_full_disk_leaves_no_file(tmp_path, cards, monkeypatch):
    (tmp_path / "source").write_bytes(CONTENT)
    cards(some=card(f"file:{tmp_path / 'source'}"))

    def full(source, target):
        Path(target).write_bytes(CONTENT[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfile", full)
    with pytest.raises(StorageError, match=r"cannot write .*some.bin: no space is left: free some"):
        store.fetch("some", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_an_unknown_model_gets_a_suggestion(tmp_path, cards):
    cards(**{"world-judge": card("file:/x")})
    with pytest.raises(ConfigError, match="there is no model called 'world-jugde'; did you mean world-judge"):
        store.fetch("world-jugde", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "abc"}, "card some: sha256: should match pattern"),
        ({"urls": []}, "card some: urls"),
        ({"kind": "voice"}, "card some: kind: should be 'generator'"),
        ({"file": "../x"}, "card some: file: should match pattern"),
        ({"sze": 3}, "card some: sze is unknown; did you mean size?"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path, changes, message):
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"some": card("file:/x", **changes)}))
    with pytest.raises(ConfigError, match=message):
        store.load_cards(tmp_path)


def test_a_name_on_two_cards_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cards.yaml").write_text(yaml.safe_dump({"some": card("file:/x")}))
    with pytest.raises(ConfigError, match="the card some exists twice"):
        store.load_cards(tmp_path)

"""Weight files: fetched, verified, told, refused, and by one run at a time."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

import promptgen
from promptgen.errors import ChecksumError, ModelFileError, StorageError
from promptgen.files import folder_lock
from promptgen.model_files import store
from promptgen.model_files.downloads import Patience
from promptgen.model_files.pins import PINS_NAME
from promptgen.model_files.sources import PARTIAL
from tests.faults import full_disk
from tests.model_files.made_up_cards import CONTENT, OTHER, QUICK, card, file, pinned, sha256
from tests.web import Answer


def test_a_file_is_copied_and_verified(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    (path,) = store.fetch("some", models)
    assert path == models / "some" / "some.bin"
    assert path.read_bytes() == CONTENT
    assert store.resolve("some", models) == [path]
    assert store.digests("some", models) == {"some/some.bin": sha256(CONTENT)}
    source.unlink()
    assert store.fetch("some", models) == [path]  # it is there and sound: nothing is asked for
    assert not (models.parent / PINS_NAME).exists()


def test_a_relative_path_starts_beside_the_models(models, cards):
    cards(some=card(pinned("file:weights/mine.bin")))
    (models.parent / "weights").mkdir()
    (models.parent / "weights" / "mine.bin").write_bytes(CONTENT)
    assert store.fetch("some", models)[0].read_bytes() == CONTENT


def test_a_file_of_the_package_is_copied(models, cards):
    content = (Path(promptgen.__file__).parent / "seeding.py").read_bytes()
    cards(some=card(file("package:seeding.py", sha256=sha256(content), size=len(content))))
    assert store.fetch("some", models)[0].read_bytes() == content


def test_a_missing_file_is_named_with_the_way_out(models, cards):
    cards(some=card(pinned("file:/nowhere")))
    with pytest.raises(ModelFileError, match=r"some.bin is missing; fetch it with `promptgen fetch some`"):
        store.resolve("some", models)


def test_a_damaged_file_is_never_used_and_is_fetched_again(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    (path,) = store.fetch("some", models)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ChecksumError, match=r"has sha256 .* expected .*delete it and fetch it again"):
        store.resolve("some", models)
    assert store.fetch("some", models)[0].read_bytes() == CONTENT


def test_a_file_changed_in_this_very_process_is_seen(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    (path,) = store.fetch("some", models)
    store.resolve("some", models)
    path.write_bytes(OTHER)
    with pytest.raises(ChecksumError):
        store.resolve("some", models)


def test_an_untouched_file_is_read_once(models, cards, source, monkeypatch):
    cards(some=card(pinned(f"file:{source}")))
    store.fetch("some", models)
    store.resolve("some", models)
    monkeypatch.setattr(store, "sha256_of", None)
    store.resolve("some", models)


def test_a_wrong_file_is_refused_and_leaves_nothing(models, cards, source):
    source.write_bytes(OTHER)
    cards(some=card(pinned(f"file:{source}")))
    with pytest.raises(ChecksumError, match=r"cannot fetch some: .*is the card up to date"):
        store.fetch("some", models)
    assert list((models / "some").iterdir()) == []


def test_urls_are_tried_in_turn(models, cards, web, caplog):
    here = web.serve("/here", Answer(CONTENT))
    cards(some=card(pinned("file:/nowhere", f"{web.url}/missing", here)))
    assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT
    assert "/nowhere does not exist; trying the next address" in caplog.text
    cards(some=card(pinned("file:/nowhere", f"{web.url}/missing?key=hidden")))
    shutil.rmtree(models)
    with pytest.raises(ModelFileError, match=r"some: /nowhere does not exist; .*/missing: 404 .*dead") as error:
        store.fetch("some", models, QUICK)
    assert "hidden" not in str(error.value) + caplog.text


def test_several_files_come_in_the_order_of_the_card(models, cards, web):
    urls = [web.serve("/weights", Answer(CONTENT)), web.serve("/config", Answer(b"{}"))]
    cards(some=card(file(urls[0]), file(urls[1], file="config.json")))
    paths = store.fetch("some", models, QUICK)
    assert [path.name for path in paths] == ["some.bin", "config.json"]
    assert store.resolve("some", models) == paths


def test_a_transfer_ends_in_another_run_and_leaves_no_part(models, cards, web):
    url = web.serve("/here", Answer(CONTENT, sent=5000), Answer(CONTENT))
    cards(some=card(file(url)))
    with pytest.raises(ModelFileError, match=r"interrupted .* run again to continue"):
        store.fetch("some", models, Patience(tries=1))
    assert not (models / "some" / "some.bin").exists()
    assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT
    assert web.ranges == [None, "bytes=5000-"]
    assert not [path for path in (models / PARTIAL).rglob("*") if path.is_file() and path.name != ".lock"]


def test_the_licence_is_told_before_the_transfer_and_once(models, cards, web, caplog):
    caplog.set_level(logging.INFO, "promptgen")
    urls = [web.serve("/weights", Answer(CONTENT)), web.serve("/config", Answer(b"{}"))]
    cards(some=card(file(urls[0]), file(urls[1], file="config.json"), licence="non-commercial"))
    for _ in range(2):
        store.fetch("some", models, QUICK)
    assert caplog.text.count("some: licence: non-commercial") == 1
    assert caplog.messages[0] == "some: licence: non-commercial"


def test_a_model_is_fetched_by_one_run_at_a_time(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    with (
        folder_lock(models / PARTIAL / "some"),
        pytest.raises(StorageError, match="some is held by another run: wait for it to end, or stop it"),
    ):
        store.fetch("some", models)
    store.fetch("some", models)


@pytest.mark.faults
def test_a_full_disk_leaves_no_file(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    with (
        full_disk(models, room=100),
        pytest.raises(StorageError, match=r"cannot write .*some.bin: no space is left: free some"),
    ):
        store.fetch("some", models)
    assert list((models / "some").iterdir()) == []

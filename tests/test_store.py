"""Weight files: cards, the kinds of URL, what is recorded, what is refused, and several processes at once."""

from __future__ import annotations

import errno
import hashlib
import inspect
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from promptgen import store
from promptgen.build import MODELS, RANDOM, import_object
from promptgen.cards import load_cards, read_cards
from promptgen.downloads import Patience
from promptgen.errors import ChecksumError, ConfigError, ModelFileError, StorageError
from promptgen.files import folder_lock
from promptgen.pins import PINS_NAME, Pin, read_pins, record
from promptgen.sources import ARCHIVES, PARTIAL
from promptgen.specs import BigGANSpec, NVAESpec, PublishedGenerator, StyleGAN2Spec
from tests.web import LOCAL, Answer, web_server

ROOT = Path(__file__).parents[1]
CONTENT = bytes(range(256)) * 400
OTHER = bytes(reversed(CONTENT))
QUICK = Patience(timeout=5.0, tries=2, pause=0.0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(*urls: str, **changes: object) -> dict:
    return {"file": "some.bin", "urls": list(urls), **changes}


def pinned(*urls: str, **changes: object) -> dict:
    return file(*urls, sha256=sha256(CONTENT), size=len(CONTENT), **changes)


def card(*files: dict, **changes: object) -> dict:
    return {"kind": "classifier", "type": "some", "files": list(files), "licence": "CC0", **changes}


@pytest.fixture
def models(tmp_path):
    """The models folder of a project whose folder has nothing in it yet."""
    return tmp_path / "project" / "models"


@pytest.fixture
def cards(models):
    """A function that writes the user's own cards."""
    models.parent.mkdir()
    return lambda **cards: (models.parent / "cards.yaml").write_text(yaml.safe_dump(cards))


@pytest.fixture
def source(tmp_path):
    """A file with CONTENT."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running


def options_of(found):
    """Return the names of what a section of params.yaml gives a model beside its card."""
    base = set(PublishedGenerator.model_fields) | {"type"}
    specs = {"stylegan2": StyleGAN2Spec, "biggan": BigGANSpec, "nvae": NVAESpec}
    return set(specs[found.type].model_fields) - base if found.type in specs else set()


each_card = pytest.mark.parametrize("found", [pytest.param(card, id=name) for name, card in load_cards().items()])


@each_card
def test_a_card_fits_what_loads_it(found):
    loader = inspect.signature(import_object(MODELS[found.type], "the test"))
    given = {"attributes": {}, "chosen": []} if found.kind == "multipliers" else dict.fromkeys(options_of(found), 1)
    loader.bind(*(Path(wanted.file) for wanted in found.files), **found.arguments, **given)
    paths = [parameter for parameter in loader.parameters.values() if str(parameter.annotation).startswith("Path")]
    assert len(paths) == len(found.files)
    if found.kind == "generator" and found.type in RANDOM:
        inspect.signature(import_object(RANDOM[found.type], "the test")).bind(**found.arguments, **given)


@each_card
def test_a_card_says_where_its_files_are_and_what_they_may_be_used_for(found):
    assert found.licence
    assert found.note
    for wanted in found.files:
        for url in wanted.urls:
            assert url.startswith(("https://", "hub:", "package:"))
            assert "dropbox" not in url or url.endswith("?dl=1")  # else a page comes
            assert Path(url.partition("?")[0]).name.endswith((wanted.file, ".zip"))


DOCUMENT = (ROOT / "docs" / "models.md").read_text()


def test_the_document_lists_every_published_card_with_its_licence():
    rows = [row.split("|") for row in DOCUMENT.splitlines() if row.startswith("| `")]
    listed = {name: row[3].strip() for row in rows if len(row) == 5 for name in re.findall(r"`([^`]+)`", row[1])}
    assert listed == {name: card.licence for name, card in load_cards().items() if not name.startswith("world-")}
    types = next(row for row in rows if row[1].strip() == "`type`")[2]
    assert {found.type for found in load_cards().values()} <= set(re.findall(r"`([^`]+)`", types)) | {
        "world-generator",
        "world-network",
    }


def test_the_card_in_the_document_is_one(tmp_path):
    (block,) = re.findall(r"^```\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (tmp_path / "cards.yaml").write_text(block)
    (card,) = read_cards([tmp_path / "cards.yaml"]).values()
    inspect.signature(import_object(MODELS[card.type], "the test")).bind(Path(), **card.arguments)


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
    content = Path(store.__file__).with_name("seeding.py").read_bytes()
    cards(some=card(file("package:seeding.py", sha256=sha256(content), size=len(content))))
    assert store.fetch("some", models)[0].read_bytes() == content


def test_a_missing_file_is_named_with_the_way_out(models, cards):
    cards(some=card(pinned("file:/nowhere")))
    with pytest.raises(ModelFileError, match=r"some.bin is missing; fetch it with `python -m steps.fetch some`"):
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
    with pytest.raises(ModelFileError, match=r"broke off .* run again to go on"):
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


class TestUnknownHash:
    """Files whose cards have no sha256."""

    @pytest.fixture
    def url(self, cards, web):
        url = web.serve("/here", Answer(CONTENT))
        cards(some=card(file(f"{url}?key=hidden")))
        return url

    def test_the_first_fetch_shows_and_records_it(self, models, url, caplog):
        caplog.set_level(logging.INFO, "promptgen")
        store.fetch("some", models, QUICK)
        assert f"some/some.bin: sha256 {sha256(CONTENT)}, {len(CONTENT)} bytes, recorded in models.lock" in caplog.text
        assert read_pins(models) == {"some/some.bin": Pin(sha256=sha256(CONTENT), size=len(CONTENT), url=url)}
        store.resolve("some", models)
        assert store.digests("some", models) == {"some/some.bin": sha256(CONTENT)}

    def test_another_machine_gets_the_same_file_or_none(self, models, url, web):
        store.fetch("some", models, QUICK)
        shutil.rmtree(models)
        assert store.digests("some", models) == {"some/some.bin": sha256(CONTENT)}
        store.fetch("some", models, QUICK)
        shutil.rmtree(models)
        web.serve("/here", Answer(OTHER, version='"2"'))
        with pytest.raises(ChecksumError, match=r"/here has sha256 .*, models.lock recorded .*to take the new one"):
            store.fetch("some", models, QUICK)
        assert list((models / "some").iterdir()) == []

    def test_another_size_is_seen_before_the_transfer(self, models, url, web):
        store.fetch("some", models, QUICK)
        shutil.rmtree(models)
        web.serve("/here", Answer(OTHER[:-1], version='"2"'))
        with pytest.raises(ChecksumError, match=r"has 102399 bytes, expected 102400; to take the new one, delete "):
            store.fetch("some", models, QUICK)

    def test_a_wanted_change_is_taken_as_the_error_says(self, models, url, web):
        store.fetch("some", models, QUICK)
        shutil.rmtree(models / "some")
        (models.parent / PINS_NAME).unlink()
        web.serve("/here", Answer(OTHER, version='"2"'))
        store.fetch("some", models, QUICK)
        assert read_pins(models)["some/some.bin"].sha256 == sha256(OTHER)

    def test_a_damaged_file_is_fetched_again(self, models, url):
        (path,) = store.fetch("some", models, QUICK)
        path.write_bytes(OTHER)
        with pytest.raises(ChecksumError, match=r"some.bin has sha256 .* models.lock recorded .*delete it and fetch"):
            store.resolve("some", models)
        assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT

    def test_a_file_put_in_place_by_hand_is_recorded(self, models, url, web):
        (models / "some").mkdir(parents=True)
        (models / "some" / "some.bin").write_bytes(OTHER)
        for use in (store.resolve, store.digests):
            with pytest.raises(ModelFileError, match=r"some.bin is not known yet; `python -m steps.fetch some`"):
                use("some", models)
        store.fetch("some", models, QUICK)
        assert read_pins(models)["some/some.bin"] == Pin(sha256=sha256(OTHER), size=len(OTHER), url=None)
        store.resolve("some", models)
        assert web.requests == []

    @pytest.mark.parametrize(("content", "what"), [(b"<!doctype html><p>quota", "a web page"), (b"", "empty")])
    def test_nothing_useless_is_recorded(self, models, url, content, what):
        (models / "some").mkdir(parents=True)
        (models / "some" / "some.bin").write_bytes(content)
        with pytest.raises(ModelFileError, match=f"some.bin is {what}, expected some.bin"):
            store.fetch("some", models, QUICK)
        assert read_pins(models) == {}

    def test_without_an_address_it_says_what_to_do(self, models):
        with pytest.raises(ModelFileError, match=r"no direct link .*put the file at .*nvae-ffhq-256/checkpoint.pt and"):
            store.fetch("nvae-ffhq-256", models)

    def test_another_file_put_in_place_by_hand_is_not_recorded(self, models, cards, source):
        cards(some=card(file()))
        (path,) = store.adopt("some", models, source)
        path.write_bytes(OTHER)
        with pytest.raises(ChecksumError, match=r"recorded .*; put the right file there or, to take this one, delete"):
            store.fetch("some", models)
        (models.parent / PINS_NAME).unlink()
        store.fetch("some", models)
        assert store.resolve("some", models) == [path]

    def test_it_may_come_from_this_machine(self, models, url, source):
        (path,) = store.adopt("some", models, source)
        assert path.read_bytes() == CONTENT
        assert read_pins(models)["some/some.bin"].url is None
        source.write_bytes(OTHER)
        with pytest.raises(ChecksumError, match="source has sha256"):
            store.adopt("some", models, source)
        assert store.resolve("some", models) == [path]
        with pytest.raises(ModelFileError, match="nowhere does not exist"):
            store.adopt("some", models, source.with_name("nowhere"))

    def test_several_come_from_a_folder(self, models, cards, source, url):
        cards(some=card(file(), file(file="config.json")))
        with pytest.raises(ModelFileError, match=r"not a folder; give the folder of some.bin and config.json"):
            store.adopt("some", models, source)
        folder = source.with_name("folder")
        folder.mkdir()
        source.rename(folder / "some.bin")
        with pytest.raises(ModelFileError, match=r"config.json does not exist"):
            store.adopt("some", models, folder)
        (folder / "config.json").write_text("{}")
        assert store.adopt("some", models, folder) == store.resolve("some", models)


class TestArchive:
    """Files inside archives."""

    @pytest.fixture
    def archive(self, tmp_path):
        path = tmp_path / "celeba.zip"
        with zipfile.ZipFile(path, "w") as made:
            for name in ("Male", "Young"):
                made.writestr(f"celeba/{name}/best.pth", name.encode() * 1000)
        return path

    def of(self, name, url):
        return card(file(url, file="best.pth", member=f"celeba/{name}/best.pth"))

    def test_one_transfer_serves_all_its_files(self, models, cards, web, archive):
        url = web.serve("/celeba.zip", Answer(archive.read_bytes()))
        cards(male=self.of("Male", url), young=self.of("Young", url))
        assert store.fetch("male", models, QUICK)[0].read_bytes() == b"Male" * 1000
        assert store.fetch("young", models, QUICK)[0].read_bytes() == b"Young" * 1000
        assert len(web.requests) == 1
        assert read_pins(models)["male/best.pth"].sha256 == sha256(b"Male" * 1000)
        shutil.rmtree(models / ARCHIVES)
        assert store.fetch("male", models, QUICK) == store.resolve("male", models)
        assert len(web.requests) == 1

    def test_an_archive_on_this_machine_is_left_where_it_is(self, models, cards, archive):
        cards(male=self.of("Male", f"file:{archive}"))
        assert store.fetch("male", models)[0].read_bytes() == b"Male" * 1000
        assert not (models / ARCHIVES).exists()

    def test_a_missing_member_is_named(self, models, cards, web, archive):
        url = web.serve("/celeba.zip", Answer(archive.read_bytes()))
        cards(old=self.of("Mole", url))
        with pytest.raises(ModelFileError, match=r"cannot fetch old: .*has no file celeba/Mole/best.pth; did you mean"):
            store.fetch("old", models, QUICK)

    @pytest.mark.parametrize("member", ["../x", "/x", "a/../b", "a//b", ".", ""])
    def test_a_member_outside_the_archive_is_no_card(self, models, cards, member):
        cards(some=card(file("file:x.zip", member=member)))
        with pytest.raises(ConfigError, match=r"files.0.member: should be a path inside the archive"):
            store.fetch("some", models)


class TestHub:
    """Files of the Hugging Face hub, played by a server here."""

    def test_the_environment_says_where_and_as_whom(self, models, cards, web, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", web.url)
        monkeypatch.setenv("HF_TOKEN", "hf_hidden")
        stored = web.serve("/cdn", Answer(CONTENT)).replace("127.0.0.1", "localhost")
        web.serve("/some/where/resolve/main/a/w.bin", Answer(status=302, headers={"Location": stored}))
        cards(some=card(file("hub:some/where/a/w.bin")))
        assert store.fetch("some", models, QUICK)[0].read_bytes() == CONTENT
        assert [headers.get("Authorization") for headers in web.requests] == ["Bearer hf_hidden", None]
        assert read_pins(models)["some/some.bin"].url == "hub:some/where/a/w.bin"

    def test_a_refusal_says_what_to_set(self, models, cards, web, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", web.url)
        monkeypatch.setenv("HF_TOKEN", "hf_hidden")
        web.serve("/some/where/resolve/main/w.bin", Answer(status=401))
        cards(some=card(file("hub:some/where/w.bin")))
        with pytest.raises(ModelFileError, match=r"401 Unauthorized; it needs a log-in .*set HF_TOKEN") as error:
            store.fetch("some", models, QUICK)
        assert "hidden" not in str(error.value)


class TestPins:
    """The file of what was recorded."""

    def test_equal_content_makes_equal_text(self, models):
        texts = []
        for names in (["b/x", "a/x"], ["a/x", "b/x"]):
            models.mkdir(parents=True)
            for name in names:
                record(models, name, Pin(sha256=sha256(name.encode()), size=1, url=None))
            texts.append((models.parent / PINS_NAME).read_text())
            shutil.rmtree(models.parent)
        assert texts[0] == texts[1]
        assert list(yaml.safe_load(texts[0])) == ["a/x", "b/x"]

    def test_several_processes_lose_nothing(self, models):
        models.mkdir(parents=True)
        code = (
            "import sys; from pathlib import Path; from promptgen.pins import Pin, record\n"
            "for number in range(20):\n"
            "    record(Path(sys.argv[1]), f'{sys.argv[2]}/{number}', Pin(sha256='0' * 64, size=1, url=None))\n"
        )
        runs = [subprocess.Popen([sys.executable, "-c", code, str(models), name], cwd=ROOT) for name in ("one", "two")]
        assert [run.wait(60) for run in runs] == [0, 0]
        assert len(read_pins(models)) == 40

    @pytest.mark.parametrize("text", ["a: {sha256: short, size: 1, url: null}", "[1]", "a: ["])
    def test_a_damaged_one_is_named_with_the_way_out(self, models, text):
        models.mkdir(parents=True)
        (models.parent / PINS_NAME).write_text(text)
        with pytest.raises(ConfigError, match=r"models.lock.*(last committed version|is not YAML)"):
            read_pins(models)


def test_a_model_is_fetched_by_one_run_at_a_time(models, cards, source):
    cards(some=card(pinned(f"file:{source}")))
    with (
        folder_lock(models / PARTIAL / "some"),
        pytest.raises(StorageError, match="some is held by another run: wait for it to end, or stop it"),
    ):
        store.fetch("some", models)
    store.fetch("some", models)


def test_a_full_disk_leaves_no_file(models, cards, source, monkeypatch):
    cards(some=card(pinned(f"file:{source}")))

    def full(source, target):
        Path(target).write_bytes(CONTENT[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match=r"cannot write .*some.bin: no space is left: free some"):
        store.fetch("some", models)
    assert list((models / "some").iterdir()) == []


def test_an_unknown_model_gets_a_suggestion(models):
    with pytest.raises(ConfigError, match="there is no model called 'world-jugde'; did you mean world-judge"):
        store.fetch("world-jugde", models)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "abc"}, r"card some: files.0.sha256: should match pattern"),
        ({"urls": ["ftp://x/y"]}, r"card some: files.0.urls.0: should match pattern"),
        ({"urls": ["https://me:secret@host/x"]}, r"card some: files.0.urls.0: should match pattern"),
        ({"urls": ["https://host/with space"]}, r"card some: files.0.urls.0: should match pattern"),
        ({"urls": ["hub:owner/file"]}, r"card some: files.0.urls.0: should match pattern"),
        ({"file": "../x"}, r"card some: files.0.file: should match pattern"),
        ({"sze": 3}, r"card some: files.0.sze is unknown; did you mean size\?"),
    ],
)
def test_a_wrong_file_of_a_card_is_refused(tmp_path, change, message):
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"some": card(pinned("file:/x") | change)}))
    with pytest.raises(ConfigError, match=message):
        read_cards([tmp_path / "cards.yaml"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "voice"}, "card some: kind: should be 'generator'"),
        ({"files": []}, "card some: files: "),
        ({"license": "MIT"}, "card some: license is unknown; did you mean licence"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path, change, message):
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"some": card(pinned("file:/x"), **change)}))
    with pytest.raises(ConfigError, match=message):
        read_cards([tmp_path / "cards.yaml"])


def test_a_name_on_two_cards_is_refused(models, cards):
    cards(**{"world-judge": card(pinned("file:/x"))})
    with pytest.raises(ConfigError, match="the card world-judge exists twice; rename one"):
        load_cards(models)

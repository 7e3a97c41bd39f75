"""Files whose cards have no sha256, and the file of what was recorded of them."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from promptgen.errors import ChecksumError, ConfigError, ModelFileError
from promptgen.model_files import store
from promptgen.model_files.pins import PINS_NAME, Pin, read_pins, record
from tests.model_files.made_up_cards import CONTENT, OTHER, QUICK, card, file, sha256
from tests.web import Answer

ROOT = Path(__file__).parents[2]


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
            with pytest.raises(ModelFileError, match=r"some.bin is not known yet; `promptgen fetch some`"):
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
            "import sys; from pathlib import Path; from promptgen.model_files.pins import Pin, record\n"
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

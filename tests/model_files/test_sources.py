"""Where files come from: archives, and the Hugging Face hub."""

from __future__ import annotations

import shutil
import zipfile

import pytest

from promptgen.errors import ConfigError, ModelFileError
from promptgen.model_files import store
from promptgen.model_files.pins import read_pins
from promptgen.model_files.sources import ARCHIVES
from tests.model_files.made_up_cards import CONTENT, QUICK, card, file, sha256
from tests.web import Answer


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

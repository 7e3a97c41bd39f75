"""The user's own cards: what is refused, and with which words."""

from __future__ import annotations

import pytest
import yaml

from promptgen.errors import ConfigError
from promptgen.model_files import cards as cards_module
from promptgen.model_files import store
from promptgen.model_files.cards import find_card, load_cards, read_cards
from promptgen.strict import read_yaml
from tests.model_files.made_up_cards import card, pinned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "abc"}, r"card some: files.0.sha256: should match pattern"),
        ({"urls": ["ftp://x/y"]}, r"card some: files.0.urls.0: should be https://... or hub:OWNER/REPO/PATH or pypi:"),
        ({"urls": ["https://me:secret@host/x"]}, r"card some: files.0.urls.0: should be https://..., got"),
        ({"urls": ["https://host/with space"]}, r"card some: files.0.urls.0: should be https://..., got"),
        ({"urls": ["hub:owner/file"]}, r"card some: files.0.urls.0: should be hub:OWNER/REPO/PATH, got"),
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


def test_an_unknown_model_gets_a_suggestion(models):
    with pytest.raises(ConfigError, match="there is no model called 'world-jugde'; did you mean world-judge"):
        store.fetch("world-jugde", models)


def test_a_file_is_parsed_once_and_again_after_it_has_changed(models, cards, monkeypatch):
    parsed = []
    monkeypatch.setattr(cards_module, "read_yaml", lambda path: parsed.append(path) or read_yaml(path))
    cards(some=card(pinned("file:/x"), note="first"))
    assert [find_card("some", models).note for _ in range(3)] == ["first"] * 3
    assert len(parsed) == len(set(parsed)) > 1
    cards(some=card(pinned("file:/x"), note="the second"))
    assert find_card("some", models).note == "the second"


def test_what_a_caller_changes_is_changed_for_nobody_else(models, cards):
    cards(some=card(pinned("file:/x"), arguments={"sizes": [1]}))
    find_card("some", models).arguments["sizes"].append(2)
    load_cards(models)["some"].arguments["sizes"].append(3)
    assert find_card("some", models).arguments == {"sizes": [1]}

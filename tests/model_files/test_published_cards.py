"""The cards that come with the package fit what loads them, and the document lists them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from promptgen.config.build import FACTORIES
from promptgen.config.generators import BigGANSpec, NVAESpec, PublishedGenerator, StyleGAN2Spec
from promptgen.config.registry import import_object
from promptgen.model_files.cards import load_cards, read_cards

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "models.md").read_text()


def options_of(found):
    """Return the names of what a section of params.yaml gives a model beside its card."""
    base = set(PublishedGenerator.model_fields) | {"type"}
    specs = {"stylegan2": StyleGAN2Spec, "biggan": BigGANSpec, "nvae": NVAESpec}
    return set(specs[found.type].model_fields) - base if found.type in specs else set()


def signature_of(type_of_card, way):
    """Return the signature of the function that builds the networks of a type of card."""
    factory = FACTORIES[type_of_card]
    return inspect.signature(import_object(f"{factory.module}:{getattr(factory, way)}", "the test"))


each_card = pytest.mark.parametrize("found", [pytest.param(card, id=name) for name, card in load_cards().items()])


@each_card
def test_a_card_fits_what_loads_it(found):
    loader = signature_of(found.type, "load")
    given = {"attributes": {}, "chosen": []} if found.kind == "multipliers" else dict.fromkeys(options_of(found), 1)
    loader.bind(*(Path(wanted.file) for wanted in found.files), **found.arguments, **given)
    paths = [parameter for parameter in loader.parameters.values() if str(parameter.annotation).startswith("Path")]
    assert len(paths) == len(found.files)
    if found.kind == "generator" and FACTORIES[found.type].random:
        signature_of(found.type, "random").bind(**found.arguments, **given)


@each_card
def test_a_card_says_where_its_files_are_and_what_they_may_be_used_for(found):
    assert found.licence
    assert found.note
    for wanted in found.files:
        for url in wanted.urls:
            assert url.startswith(("https://", "hub:", "package:", "pypi:", "npm:"))
            assert "dropbox" not in url or url.endswith("?dl=1")  # else a page comes
            assert Path(url.partition("?")[0]).name.endswith((wanted.file, ".zip"))


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
    signature_of(card.type, "load").bind(Path(), **card.arguments)

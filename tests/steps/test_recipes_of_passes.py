"""What a worker does before it evaluates: it fetches what is missing, and compares what it has with the driver's."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from promptgen.engine.worker import Bench, Opening, full_identity
from promptgen.errors import ChecksumError
from promptgen.model_files.store import fetch, resolve
from steps.measuring.reading import ReadingRecipe
from steps.shared.common import Pass
from tests import tiny
from tests.steps.projects import project_in

CARD = "world-classifier"


@pytest.fixture
def recipe(tmp_path):
    params = tiny.params()
    params["debias"]["classifier"] = {"type": "card", "model": CARD}
    return ReadingRecipe(Pass(project_in(tmp_path, params), 0))


def models_of(recipe) -> Path:
    return recipe.run_pass.project.models


def opened(recipe, identity=None):
    """Return what a worker answers to a recipe."""
    opening = Opening(recipe, identity or full_identity(recipe), threads=1)
    kind, payload = Bench().answer("open", pickle.dumps(opening))
    return kind, pickle.loads(payload)


def test_a_recipe_is_small_and_equal_after_its_way(recipe):
    sent = pickle.dumps(recipe)
    assert len(sent) < 20_000
    assert pickle.loads(sent) == recipe


def test_a_worker_fetches_missing_weights(recipe):
    kind, _ = opened(recipe)
    assert kind == "ready"
    assert resolve(CARD, models_of(recipe))


def test_a_worker_with_another_weight_file_is_refused_and_keeps_it(recipe):
    (path,) = fetch(CARD, models_of(recipe))
    path.write_bytes(path.read_bytes() + b"1")
    kind, error = opened(recipe)
    assert (kind, type(error)) == ("refused", ChecksumError)
    with pytest.raises(ChecksumError):
        resolve(CARD, models_of(recipe))


@pytest.mark.parametrize("name", ["version of promptgen", "version of torch", "tests.tiny:TinyGenerator"])
def test_a_worker_of_another_version_is_refused(recipe, name):
    identity = full_identity(recipe)
    assert name in identity
    kind, error = opened(recipe, {**identity, name: "another"})
    assert kind == "refused"
    assert name in str(error)

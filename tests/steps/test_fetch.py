"""Fetching from the command line, and whether what is listed is what is used."""

from __future__ import annotations

import json

import pytest
import yaml

from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.model_files.pins import read_pins
from steps import check, fetch, list_models
from steps.shared.common import Project
from tests import tiny
from tests.commands import typed


@pytest.fixture
def models(tmp_path):
    content = {
        "kind": "classifier",
        "type": "fairface",
        "files": [{"file": "weights.pt", "urls": ["file:there"]}],
        "licence": "CC0",
    }
    missing = {**content, "files": [{"file": "weights.pt", "urls": ["file:nowhere"]}]}
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"mine": content, "gone": missing, "lost": missing}))
    (tmp_path / "there").write_bytes(b"weights")
    return tmp_path / "models"


def test_one_failure_holds_up_no_other_and_each_is_told(models, capsys):
    assert typed("fetch", "gone", "mine", "lost", "world-jugde", "--models", models) == 2
    output = capsys.readouterr()
    assert output.out == f"{models / 'mine' / 'weights.pt'}\n"
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1] for line in errors[:3]] == [
        " cannot fetch gone",
        " cannot fetch lost",
        " there is no model called 'world-jugde'; did you mean world-judge or world-pose or world-identity?",
    ]
    assert errors[3] == "error: 3 of 4 models were not fetched: gone, lost, world-jugde; see above"


def test_one_model_fails_in_one_line(models, capsys):
    assert typed("fetch", "gone", "--models", models) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")] == [
        f"error: cannot fetch gone: {models.parent / 'nowhere'} does not exist"
    ]


def test_a_file_of_this_machine_is_taken_over(models, tmp_path, capsys):
    assert typed("fetch", "gone", "--models", models, "--from", tmp_path / "there") == 0
    assert (models / "gone" / "weights.pt").read_bytes() == b"weights"
    assert list(read_pins(models)) == ["gone/weights.pt"]
    assert typed("fetch", "gone", "lost", "--models", models, "--from", tmp_path / "there") == 2
    assert "--from is for one model" in capsys.readouterr().err


def params_with(tmp_path, names):
    content = tiny.params()
    content["debias"]["judge"] = "world-judge"
    content["models"] = names
    return tiny.write_params(tmp_path, content)


def test_what_is_listed_is_what_is_used(tmp_path, capsys):
    path = params_with(tmp_path, ["world-judge"])
    assert typed("list-models", "--params", path) == 0
    assert json.loads((tmp_path / "models" / "used.json").read_text()) == {"world-judge": "MIT"}
    assert capsys.readouterr().err == ""


def test_a_used_model_that_is_not_listed_is_named(tmp_path):
    params = load_params(params_with(tmp_path, []))
    with pytest.raises(ConfigError, match=r"models: lacks world-judge, which the experiment uses; add it"):
        list_models.run(params, tmp_path / "models")


def test_a_listed_model_that_is_not_used_is_named(tmp_path, caplog):
    list_models.run(load_params(params_with(tmp_path, ["world-judge", "world-clip"])), tmp_path / "models")
    assert "models: has world-clip, which the experiment does not use" in caplog.text


def test_random_weights_and_own_models_need_no_fetch(tmp_path):
    content = tiny.params()
    content["generator"] = {"type": "stylegan2", "model": "stylegan2-ffhq-1024", "truncation": 1.0, "weights": "random"}
    params = load_params(tiny.write_params(tmp_path, content))
    assert not params.cards
    list_models.run(params, tmp_path / "models")
    assert json.loads((tmp_path / "models" / "used.json").read_text()) == {}


def test_the_check_tells_both(tmp_path, caplog):
    fetch.run("world-judge", tmp_path / "models")
    check.run(Project.load(params_with(tmp_path, ["world-clip"])))
    assert "models: lacks world-judge" in caplog.text
    assert "models: has world-clip" in caplog.text

"""Fetching from the command line, and whether what is listed is what is used."""

from __future__ import annotations

import io
import json

import pytest
import torch
import yaml
from safetensors.torch import save

from promptgen.config.build import load_model
from promptgen.config.params import load_params
from promptgen.errors import ConfigError, ModelFileError
from promptgen.model_files.pins import read_pins
from steps import check, fetch, list_models
from steps.shared.common import Project
from tests import tiny
from tests.commands import typed

WEIGHTS = save({"weight": torch.ones(4)})


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
    (tmp_path / "there").write_bytes(WEIGHTS)
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
    assert (models / "gone" / "weights.pt").read_bytes() == WEIGHTS
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


def saved(**options):
    """Return a file of torch.save."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(400.0)}, buffer, **options)
    return buffer.getvalue()


def changed(content, place):
    """Return the content with another byte at a place."""
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


NEW, OLD = saved(), saved(_use_new_zipfile_serialization=False)
FIRST_NUMBERS = NEW.index(torch.arange(9.0).numpy().tobytes())


@pytest.mark.faults
@pytest.mark.parametrize(
    "content",
    [
        NEW[:-1],
        NEW[: len(NEW) // 2],
        changed(NEW, FIRST_NUMBERS + 20),
        OLD[:-1],
        OLD[: len(OLD) // 2],
        WEIGHTS[:-1],
        WEIGHTS + b"\0",
        WEIGHTS[:20],
        b"\x1f\x8b" + NEW,
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b'{"error": "quota"',
        b'{"error": "quota"}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"Not Found",
        b"\0" * 4096,
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_damaged_first_download_is_not_recorded(models, content, by_hand):
    source = models / "mine" / "weights.pt" if by_hand else models.parent / "there"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    with pytest.raises(ModelFileError, match="expected a complete weight file"):
        fetch.run("mine", models)
    assert read_pins(models) == {}
    source.write_bytes(NEW)
    (path,) = fetch.run("mine", models)
    assert path.read_bytes() == NEW
    assert list(read_pins(models)) == ["mine/weights.pt"]


@pytest.mark.parametrize("content", [NEW, OLD, WEIGHTS, saved(pickle_protocol=4)])
def test_whole_files_of_every_format_are_recorded(models, content):
    (models.parent / "there").write_bytes(content)
    (path,) = fetch.run("mine", models)
    assert path.read_bytes() == content


def test_what_is_recorded_and_cannot_be_used_is_told_with_what_to_delete(models):
    (path,) = fetch.run("mine", models)
    with pytest.raises(ModelFileError) as caught:
        load_model("mine", models, "classifier")
    assert f"delete {path} and the entry in {models.parent / 'models.lock'}, then run `promptgen fetch mine`" in str(
        caught.value
    )

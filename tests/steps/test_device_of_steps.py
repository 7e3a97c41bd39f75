"""All steps of the embedded world's experiment run where `device` says, on a pretended GPU that any machine has."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from promptgen.errors import ConfigError
from promptgen.model_files.store import fetch
from promptgen.tracking import NullTracker
from steps import check, confirm, draw
from steps.shared import common
from steps.shared.common import Pass, Project
from tests import tiny
from tests.pretended_device import DEVICE, Pretended, move, pretended_device
from tests.steps.projects import project_in, run_pass

ROOT = Path(__file__).parents[2]
SMALL = {
    "method": "on_policy",
    "steps": 2,
    "batch": 4,
    "micro_batch": 2,
    "validate_every": 1,
    "validation_samples": 4,
    "checkpoint_every": 1,
}
POSE = {
    "pose": {"type": "pose", "weight": 1.0, "estimator": "world-pose"},
    "face": {"type": "identity", "weight": 1.0, "embedder": "world-identity"},
}


def small_world():
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("control", "debias"):
        content[section]["training"] = dict(SMALL)
    content["debias"] |= {"samples": 64, "bootstrap": 10, "ess_floor": 0.001}
    content["flow"] |= {"blocks": 1, "hidden": 8}
    content["evaluation"] |= {"samples": 80, "batch": 72, "fit_samples": 30, "bootstrap": 100, "grid": 4}
    return content


def conditional_world():
    content = small_world()
    content["control"] |= {"energies": POSE, "measure": {}, "condition": {"yaw": [-0.3, 0.3], "pitch": [-0.2, 0.2]}}
    return content


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "models"
    for name in ("generator", "classifier", "judge", "clip", "identity", "pose"):
        fetch(f"world-{name}", folder)
    return folder


@pytest.fixture
def device(monkeypatch):
    """Take the pretended device for the one that params.yaml names; `torch.nn.Module.to` cannot go there."""

    def placed(model, device):
        assert device.type == DEVICE
        owner = getattr(model, "__self__", model)
        if isinstance(owner, nn.Module):
            move(owner)
        return model

    monkeypatch.setattr(common, "find_device", lambda name: torch.device(DEVICE))
    monkeypatch.setattr(common, "placed", placed)
    with pretended_device():
        yield


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("content", "passes", "draws"), [(small_world, 3, (None, "metropolis")), (conditional_world, 2, ("resample",))]
)
def test_every_step_runs_on_the_device(tmp_path, models, device, content, passes, draws):
    shutil.copytree(models, tmp_path / "models")
    project = project_in(tmp_path, content())
    for number in range(passes):
        run_pass(project, number)
    last = Pass(project, passes - 1)
    assert any(isinstance(value, Pretended) for value in last.generator().state_dict().values())
    confirm.run(last, NullTracker())
    given = dict.fromkeys(project.params.condition.ranges, 0.05)
    for exact in draws:
        wanted = draw.Request(2, tmp_path / str(exact), 1, exact, 10 if exact else None, given if exact else {}, True)
        assert draw.run(last, wanted, NullTracker())["n"] == 2


def test_what_was_done_on_another_device_is_done(tmp_path):
    content = small_world()
    project = Project.load(project_in(tmp_path, content | {"device": "auto"}).root / "params.yaml")
    for name in project.params.cards:
        fetch(name, project.models)
    assert project.fingerprint == project_in(tmp_path, content | {"device": "cpu"}).fingerprint


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "'gpu' is not a device; expected cpu, cuda"),
        ("cuda:99", r"this torch has no device cuda:99; expected cpu\b"),
        ("meta", r"this torch has no device meta; expected cpu\b"),
    ],
)
def test_a_device_that_is_not_there_is_told_before_any_work(tmp_path, device, message):
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, tiny.params() | {"device": device}))

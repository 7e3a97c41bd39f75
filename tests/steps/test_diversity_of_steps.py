"""An energy of diversity in the steps of a pass: fitted once, counted, and the same for whoever reads it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.evaluations.config import FOLDER_NAME
from promptgen.experiments.plan import Images, usage_of_pass
from promptgen.files import read_json
from promptgen.tracking import NullTracker
from steps import draw, train_flow
from steps.shared.common import Pass
from steps.training.diversity import FITTED_NAME, build_fitted, fit_energies, fitted_inputs
from tests import tiny
from tests.steps.projects import project_in

ROOT = Path(__file__).parents[2]
OWN = 600
"""Images that the energy is fitted to: two whole shards and a part."""

KILLED = """
from tests.faults import die_when_replacing
from promptgen.tracking import NullTracker
from steps import train_flow
from steps.shared.common import Pass, Project
die_when_replacing("{name}", {number}, "before")
train_flow.run(Pass(Project.load("{params}"), 1), NullTracker())
"""


def content(weight=1.0, **training):
    """Return params.yaml with the energy of diversity next to a wish, and inside an OR."""
    params = tiny.lean(tiny.reuse_params())
    features = {"type": "custom", "factory": "tests.tiny:colours", "arguments": {}}
    more = {"type": "diversity", "weight": weight, "features": features}
    params["control"]["energies"] |= {
        "more": {**more, "samples": OWN},
        "either": {"type": "any_of", "weight": 0.1, "energies": {"inner": {**more, "samples": 512}}},
    }
    params["control"]["training"] |= training
    return params


@pytest.fixture
def images(monkeypatch):
    """Count the images that the generator makes."""
    made, forward = [], tiny.TinyGenerator.forward

    def counted(self, latent, **options):
        made.append(len(latent))
        return forward(self, latent, **options)

    monkeypatch.setattr(tiny.TinyGenerator, "forward", counted)
    return made


def energies_of(run_pass):
    image = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return {
        name: part.tolist() for name, part in build_fitted(run_pass).parts(Sample(image.new_zeros(5, 4), image)).items()
    }


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("method", ["reuse", "on_policy"])
def test_its_images_are_made_once_counted_and_planned(tmp_path, images, method):
    params = content()
    if method == "on_policy":
        params["control"]["training"] = tiny.params()["control"]["training"] | {"steps": 4, "validate_every": 2}
    run_pass = Pass(project_in(tmp_path, params), 1)
    result = train_flow.run(run_pass, NullTracker())["result"]
    counted = result["generator_evaluations"]
    assert counted["forward"] == sum(images)
    usage = usage_of_pass(run_pass.params, 1)
    assert usage["fitting energies"] == {"tests.tiny:TinyGenerator": Images(OWN), "tests.tiny:colours": Images(OWN)}
    planned = sum((usage[purpose]["tests.tiny:TinyGenerator"] for purpose in usage if purpose != "measuring"), Images())
    assert planned.forward == counted["forward"]
    if method == "reuse":
        assert result["reuse"]["budget"] == 768 + OWN
        assert result["reuse"]["units"] == counted["forward"] + 2 * counted["backward"] <= 768 + OWN
        history = read_json(run_pass.folder("train_flow") / train_flow.HISTORY_NAME)
        assert [row["units"] for row in history if "units" in row][-1] == result["reuse"]["units"]
    images.clear()
    energies_of(run_pass)
    assert images == []
    draw.run(run_pass, draw.Request(5, tmp_path / "out", 3, "resample", proposals=70), NullTracker())
    assert sum(images) == 70 + 5
    assert list(fitted_inputs(run_pass)) == [FITTED_NAME]


def test_an_energy_inside_another_one_is_fitted_to_its_own_number_of_images(tmp_path):
    run_pass = Pass(project_in(tmp_path, content()), 1)
    fit_energies(run_pass, NullTracker())
    energies = energies_of(run_pass)
    inner, outer = (torch.tensor(energies[name]) for name in ("either", "more"))
    torch.testing.assert_close(inner / 0.1, outer, rtol=0.05, atol=0.02)
    assert not torch.equal(inner / 0.1, outer)


def test_another_weight_makes_another_file_of_the_same_images(tmp_path, images):
    files, energies = [], []
    for weight in (1.0, 2.0):
        run_pass = Pass(project_in(tmp_path, content(weight)), 1)
        spending = fit_energies(run_pass, NullTracker())
        assert (spending.forward, spending.backward) == (OWN, 0)
        files.append((run_pass.folder("train_flow") / FITTED_NAME).read_bytes())
        energies.append(energies_of(run_pass))
    assert sum(images) == OWN
    assert files[0] != files[1]
    assert energies[0]["more"] != [value / 2 for value in energies[1]["more"]]


@pytest.mark.parametrize("other", ["weight", "generator", "features"])
def test_a_file_of_another_energy_or_generator_is_refused(tmp_path, other):
    fit_energies(Pass(project_in(tmp_path, content()), 1), NullTracker())
    params = content(weight=2.0 if other == "weight" else 1.0)
    if other == "generator":
        params["generator"] = {"type": "custom", "factory": "tests.steps.test_diversity_of_steps:Dim", "arguments": {}}
    if other == "features":
        params["control"]["energies"]["more"]["features"]["factory"] = "tests.tiny:embedder"
    run_pass = Pass(project_in(tmp_path, params), 1)
    with pytest.raises(DataError, match=r"another generator or other energies .*promptgen step train_flow --pass 1"):
        build_fitted(run_pass)
    shutil.rmtree(run_pass.folder("train_flow"))
    with pytest.raises(DataError, match=r"is missing; write it with `promptgen step train_flow --pass 1`"):
        build_fitted(run_pass)


class Dim(tiny.TinyGenerator):
    """Another generator, with darker images."""

    def forward(self, latent, *, noise=None):
        return 0.5 * super().forward(latent)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(("name", "number"), [(FITTED_NAME, 1), ("chain.safetensors", 1)])
def test_a_killed_training_ends_with_the_same_numbers(tmp_path, name, number):
    """It is killed before the energies are written, and before the flow is; the second run makes no image again."""
    outcomes = []
    for kill in (False, True):
        folder = tmp_path / str(kill)
        folder.mkdir()
        params = tiny.write_params(folder, content())
        if kill:
            code = KILLED.format(name=name, number=number, params=params)
            ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
            assert ended.returncode == -signal.SIGKILL
            shards = {
                path: path.stat().st_mtime_ns for path in folder.glob(f"artifacts/*/{FOLDER_NAME}/*/[!.]*.safetensors")
            }
            assert len(shards) >= 3
        code = KILLED.format(name="nothing", number=1, params=params)
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        if kill:
            assert {path: path.stat().st_mtime_ns for path in shards} == shards
        step = folder / "artifacts" / "tiny" / "pass-1" / "train_flow"
        result = read_json(step / "manifest.json")["result"]
        outcomes.append([result, *((step / each).read_bytes() for each in (FITTED_NAME, "chain.safetensors"))])
    assert outcomes[0] == outcomes[1]

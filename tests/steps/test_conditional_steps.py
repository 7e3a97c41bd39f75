"""An experiment with a condition through all its steps: a pose is asked for, and a de-biasing pass comes on top."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptgen.conditions import Condition
from promptgen.config.build import build_chain
from promptgen.files import sha256_of
from promptgen.flows.sampling import condition_blocks, draw
from promptgen.flows.training import STATE_NAME
from promptgen.tracking import NullTracker
from steps import check, sample, train_flow
from steps.measuring.records import pass_record
from steps.measuring.samples import Samples
from steps.recording.facts import figures
from steps.shared.common import Pass, Project
from tests import tiny
from tests.faults import HOLD, wait_for
from tests.steps.projects import arrays_of, project_in, run_pass

ROOT = Path(__file__).parents[2]
YAW = Condition({"yaw": (-0.2, 0.2)})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project of which the passes 0 to 2 have been run."""
    project = project_in(tmp_path_factory.mktemp("project"), tiny.conditional_params())
    check.run(project)
    for number in range(3):
        run_pass(project, number)
    return project


@pytest.fixture(scope="module")
def found(done):
    """What was measured of the condition, by pass."""
    return [pass_record(Pass(done, number)).as_dict()["control"] for number in range(3)]


def test_the_pose_follows_the_condition_and_the_face_does_not(found):
    alone, control, last = found
    assert alone["pose.yaw.slope"]["low"] < 0.05
    for conditional in (control, last):
        assert conditional["pose.error"]["high"] < alone["pose.error"]["low"] / 2
        assert conditional["pose.yaw.slope"]["low"] > 0.6
        assert conditional["identity.within"]["high"] < conditional["identity.between"]["low"] / 2
    assert "identity.within" not in alone


def test_a_pass_on_top_reaches_its_target_over_all_conditions(done):
    shares = [pass_record(Pass(done, number)).by["truth"].shares["long"].value for number in range(3)]
    assert shares[1] > 0.6
    assert abs(shares[2] - 0.5) < 0.07


def test_figures_reach_mlflow(done):
    told = figures(pass_record(Pass(done, 1)))
    assert {"control/pose.error/value", "control/pose.yaw.slope/low", "quality/identity.within/high"} <= set(told)


def test_a_chain_says_what_it_can_be_told_and_samples_by_itself(done):
    chain = build_chain(Pass(done, 2).chain, done.models)
    assert chain.condition == YAW
    seen = {}
    for yaw in (-0.2, 0.2):
        (batch,) = draw(chain, 32, seed=5, stream="mine", condition={"yaw": yaw})
        seen[yaw] = tiny.pose_estimator()(batch.image)[:, 0, 2]  # the sine of the yaw
    assert bool((seen[-0.2] < seen[0.2]).all())


def test_samples_hold_what_was_asked_and_what_was_seen(done):
    for number in range(3):
        this = Pass(done, number)
        arrays = arrays_of(Samples(this.folder("sample")))
        expected = torch.cat(list(condition_blocks(YAW, 512, this.seed, "evaluate"))).float()
        np.testing.assert_array_equal(arrays["condition"], expected)
        assert arrays["pose"].shape == (512, 3, 3)
        assert ("identity_again" in arrays) == ("sweep" in arrays) == (number > 0)
    assert arrays["identity_again"].shape == arrays["identity"].shape


def test_samples_do_not_depend_on_the_batch(done, tmp_path):
    content = tiny.conditional_params()
    content["evaluation"]["batch"] = 37
    project = project_in(tmp_path, content)
    shutil.copytree(Pass(done, 1).folder("train_flow"), Pass(project, 1).folder("train_flow"))
    sample.run(Pass(project, 1), NullTracker())
    whole, parts = (arrays_of(Samples(Pass(each, 1).folder("sample"))) for each in (done, project))
    for name in whole:
        np.testing.assert_allclose(parts[name].astype(float), whole[name].astype(float), atol=2e-3)


def test_a_sweep_has_a_latent_per_row_and_a_condition_per_column(done):
    folder = Pass(done, 1).folder("sample")
    tiles = Samples(folder).pictures()["sweep"]
    assert tiles.shape == (6, 7, 4, 4, 3)
    with Image.open(folder / "sweep.png") as picture:
        assert picture.size == (7 * 4, 6 * 4)
    blue = tiles[:, :, 0, 0, 2].astype(int)
    assert bool((np.diff(blue, axis=1) > 0).all())  # the yaw grows from left to right
    red = tiles[:, :, 0, 0, 0].astype(float)
    assert red.std(axis=1).mean() < 0.5 * red.std(axis=0).mean()  # the face stays what it is


def test_another_range_is_other_work(tmp_path):
    content, fingerprints = tiny.conditional_params(), set()
    content["control"]["training"]["steps"] = 1
    for high in (0.1, 0.2):
        content["control"]["condition"]["yaw"] = [-0.2, high]
        project = project_in(tmp_path, content)
        fingerprints |= {project.fingerprint, train_flow.run(Pass(project, 1), NullTracker())["fingerprint"]}
    assert len(fingerprints) == 4


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_training_ends_with_the_same_numbers(done, tmp_path):
    """The control's training is killed after a state was written, and run again; the pass on top then agrees, too."""
    path = tiny.write_params(tmp_path, tiny.conditional_params())
    state = Pass(Project.load(path), 1).folder("train_flow") / "state" / STATE_NAME
    command = [sys.executable, "-m", "steps.train_flow", "--params", str(path), "--pass", "1"]
    environment = os.environ | {HOLD: str(state)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as child:
        wait_for(state, lambda: child.poll() is None)
        child.kill()
    project = Project.load(path)
    assert not Pass(project, 1).chain.exists()
    for number in range(3):
        run_pass(project, number)
    for number in (1, 2):
        assert sha256_of(Pass(project, number).chain) == sha256_of(Pass(done, number).chain)
        mine, theirs = (pass_record(Pass(each, number)).control for each in (project, done))
        assert mine == theirs

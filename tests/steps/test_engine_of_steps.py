"""Engines of the steps: every file that the steps of a pass write is the same, whoever evaluates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from promptgen.audit.figures import Sampling
from promptgen.audit.request import Request
from promptgen.engine.config import InlineConfig, open_engine
from promptgen.errors import NonFiniteEnergyError
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from steps import audit, confirm, draw, fit_moments, sample, train_flow
from steps.shared.common import Pass
from steps.shared.evaluations import open_store
from steps.shared.manifest import MANIFEST_NAME
from steps.training.plan import plan_of
from steps.training.reuse import TrainingRecipe, training_objective
from tests import tiny
from tests.steps.projects import project_in

ROOT = Path(__file__).parents[2]
N = 600
"""Samples: two whole shards and a part."""

PICTURES = "pictures"

SHARDS = "*/[!.]*.safetensors"
"""Whole shards; one that was being written when its writer was killed begins with a dot."""


def content(workers=0):
    """Return params.yaml with a condition and diversity, so that every kind of shard is made, and a short training."""
    params = tiny.conditional_params()
    features = {"type": "custom", "factory": "tests.tiny:colours", "arguments": {}}
    params["control"]["energies"]["more"] = {"type": "diversity", "weight": 1.0, "features": features, "samples": N}
    params["control"]["training"] |= {"steps": 20}
    debias = tiny.reuse_params()["debias"]
    params |= {"debias": debias | {"samples": N}, "evaluation": params["evaluation"] | {"samples": N}}
    return params | ({"engine": {"type": "process", "workers": workers}} if workers else {})


def files(project):
    """Return the bytes of everything in artifacts/, by name; manifests hold times."""
    return {
        path.relative_to(project.artifacts).as_posix(): path.read_bytes()
        for path in project.artifacts.rglob("*")
        if path.is_file() and path.name not in (MANIFEST_NAME, ".lock")
    }


def evaluate(project):
    """Make the evaluations with gradients that a training of pass 2 would make, and return them."""
    run_pass = Pass(project, 2)
    plan = plan_of(run_pass)
    objective, outputs = training_objective(run_pass, plan.build()[0])
    generator, recipe = run_pass.before.generator(), TrainingRecipe(run_pass)
    store = open_store(run_pass, generator, outputs, step="train_flow", batch=64, recipe=recipe)
    rng = stream(1, "test")
    return store.evaluate(torch.randn(N, 4, generator=rng), slope=objective.slope(N, rng))


def run_steps(project):
    """Run every step that evaluates, once, and return evaluations with gradients."""
    for module, number in ((sample, 0), (train_flow, 1), (sample, 1), (fit_moments, 2), (confirm, 1)):
        module.run(Pass(project, number), NullTracker())
    plain = draw.Request(300, project.artifacts / PICTURES, seed=3, labels=True)
    exact = draw.Request(20, project.artifacts / "exact", 3, "resample", proposals=N, condition={"yaw": 0.1})
    for request in (plain, exact):
        draw.run(Pass(project, 1), request, NullTracker())
    return evaluate(project)


def audited(pictures, engine, out):
    """Return the content of the audit of pictures, in batches of which a shard is no multiple."""
    spec = "tests.tiny:TinyClassifier"
    audit.run(Request(pictures, spec, judge=spec, batch=50, engine=engine, sampling=Sampling(resamples=9)), out)
    return (out / audit.JSON_NAME).read_bytes()


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    project = project_in(tmp_path_factory.mktemp("inline"), content())
    return project, run_steps(project)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, inline, workers):
    project = project_in(tmp_path, content(workers))
    evaluations = run_steps(project)
    pictures = inline[0].artifacts / PICTURES
    found, same = (audited(pictures, each, tmp_path / each.type) for each in (project.params.engine, InlineConfig()))
    assert found == same
    open_engine(project.params.engine).close()
    expected = files(inline[0])
    assert files(project).keys() == expected.keys()
    assert [name for name, read in files(project).items() if read != expected[name]] == []
    assert evaluations.gradient.abs().sum(dim=1).min() > 0
    assert torch.equal(evaluations.gradient, inline[1].gradient)


def test_the_engine_is_no_part_of_what_a_step_depends_on(inline):
    """What one engine has made, another one does not make again."""
    project = project_in(inline[0].root, content(workers=3))
    assert project.fingerprint == inline[0].fingerprint
    before = sorted(path.stat().st_mtime_ns for path in project.artifacts.rglob("sample/samples/*.safetensors"))
    sample.run(Pass(project, 0), NullTracker())
    assert sorted(path.stat().st_mtime_ns for path in project.artifacts.rglob("sample/samples/*.safetensors")) == before


def test_an_error_of_an_energy_is_the_one_of_one_process(tmp_path):
    params = tiny.reuse_params() | {"engine": {"type": "process", "workers": 2}}
    params["control"]["energies"]["wish"]["function"] = "tests.tiny:broken_wish"
    project = project_in(tmp_path, params)
    with pytest.raises(NonFiniteEnergyError, match="wish"):
        train_flow.run(Pass(project, 1), NullTracker())
    open_engine(project.params.engine).close()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_driver_leaves_its_finished_shards_and_no_process(tmp_path):
    """The second run makes the rest alone."""
    params = tiny.reuse_params() | {"control": None, "engine": {"type": "process", "workers": 2}}
    params["debias"]["samples"] = 60_000
    path = tiny.write_params(tmp_path, params)
    command = [sys.executable, "-m", "promptgen", "step", "fit_moments", "--pass", "1", "--params", str(path)]
    driver = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    store = tmp_path / "artifacts" / "tiny" / "evaluations"
    deadline = time.monotonic() + 200
    while not (shards := list(store.glob(SHARDS))):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _wait_for_the_end_of(driver.pid)
    written = {shard: shard.stat().st_mtime_ns for shard in shards}
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == written
    assert len(list(store.glob(SHARDS))) == -(-60_000 // 256) > len(shards)


def _wait_for_the_end_of(session):
    """Wait until no process of a session is left; one that is still importing torch notices late."""
    deadline = time.monotonic() + 120
    while members := [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _session(path) == session]:
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


def _session(stat):
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(session)

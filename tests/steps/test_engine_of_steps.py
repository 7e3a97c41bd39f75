"""Engines of the steps: every file that the steps of a pass write is the same, whoever evaluates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptgen.engine.config import open_engine
from promptgen.errors import NonFiniteEnergyError
from promptgen.tracking import NullTracker
from steps import confirm, sample
from steps.shared.common import Pass
from steps.shared.manifest import MANIFEST_NAME
from tests import tiny
from tests.steps.projects import project_in, run_pass

ROOT = Path(__file__).parents[2]


def content(workers=0, **changes):
    """Return params.yaml of a loop on kept evaluations, with a condition, so that every kind of shard is made."""
    params = tiny.reuse_params(tiny.conditional_params()) | changes
    return params | ({"engine": {"type": "process", "workers": workers}} if workers else {})


def files(project):
    """Return the bytes of everything in artifacts/, by name; manifests hold times."""
    return {
        path.relative_to(project.artifacts).as_posix(): path.read_bytes()
        for path in project.artifacts.rglob("*")
        if path.is_file() and path.name not in (MANIFEST_NAME, ".lock")
    }


def passes(project):
    results = [run_pass(project, number) for number in range(3)]
    return [*results, confirm.run(Pass(project, 2), NullTracker())]


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    project = project_in(tmp_path_factory.mktemp("inline"), content())
    passes(project)
    return project


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, inline, workers):
    project = project_in(tmp_path, content(workers))
    passes(project)
    open_engine(project.params.engine).close()
    expected = files(inline)
    assert files(project).keys() == expected.keys()
    assert [name for name, read in files(project).items() if read != expected[name]] == []


def test_the_engine_is_no_part_of_what_a_step_depends_on(tmp_path, inline):
    """What one engine has made, another one does not make again."""
    project = project_in(inline.root, content(workers=3))
    assert project.fingerprint == inline.fingerprint
    before = sorted(path.stat().st_mtime_ns for path in project.artifacts.rglob("*.npz"))
    sample.run(Pass(project, 0), NullTracker())
    assert sorted(path.stat().st_mtime_ns for path in project.artifacts.rglob("*.npz")) == before


def test_an_error_of_an_energy_is_the_one_of_one_process(tmp_path):
    params = content(workers=2)
    params["control"]["energies"]["wish"]["function"] = "tests.tiny:broken_wish"
    project = project_in(tmp_path, params)
    with pytest.raises(NonFiniteEnergyError, match="wish"):
        run_pass(project, 1)
    open_engine(project.params.engine).close()


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_driver_leaves_its_finished_shards_and_no_process(tmp_path):
    """The second run makes the rest alone, and the same files."""
    params = content(workers=2)
    params["control"]["training"]["budget"]["images"] = 4096
    path = tiny.write_params(tmp_path, params)
    command = [sys.executable, "-m", "promptgen", "step", "train_flow", "--pass", "1", "--params", str(path)]
    driver = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    store = tmp_path / "artifacts" / "tiny" / "evaluations"
    deadline = time.monotonic() + 200
    while not (shards := list(store.glob("*/*.safetensors"))):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _wait_for_the_end_of(driver.pid)
    written = {shard: shard.stat().st_mtime_ns for shard in shards}
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == written


def _wait_for_the_end_of(session):
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + 20
    while members := [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _session(path) == session]:
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


def _session(stat):
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(session)

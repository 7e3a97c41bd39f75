"""When the steps of a pass do nothing, and when they work again: done work, other inputs, damage, a full disk."""

from __future__ import annotations

import re

import pytest

from promptgen.errors import (
    CheckpointError,
    StorageError,
)
from promptgen.files import folder_lock
from promptgen.tracking import NullTracker
from steps import evaluate, fit_moments, sample, train_flow
from steps.commands import STEPS
from steps.shared import code, common
from steps.shared.common import Pass
from tests import tiny
from tests.faults import full_disk
from tests.steps.projects import project_in, run_pass


def test_done_work_is_not_done_again(done, monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError("the work was done again")

    before = {path: path.stat().st_mtime_ns for path in done.artifacts.rglob("*") if path.is_file()}
    for module, name in ((train_flow, "_train"), (sample, "_sample"), (evaluate, "_evaluate"), (fit_moments, "_fit")):
        monkeypatch.setattr(module, name, fail)
    first = [run_pass(done, number) for number in range(3)]
    assert first == [run_pass(done, number) for number in range(3)]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_params_make_other_work(tmp_path):
    content = tiny.params()
    first = run_pass(project_in(tmp_path, content), 0)
    content["debias"]["target"] = {"short": 0.6, "long": 0.4}
    second = run_pass(project_in(tmp_path, content), 0)
    assert first["sample"] == second["sample"]  # samples do not depend on the target
    assert first["evaluate"]["fingerprint"] != second["evaluate"]["fingerprint"]
    content["seed"] = 2
    third = run_pass(project_in(tmp_path, content), 0)
    assert third["sample"]["fingerprint"] != second["sample"]["fingerprint"]
    assert third["evaluate"]["result"]["by"] != second["evaluate"]["result"]["by"]


@pytest.mark.parametrize("step", STEPS)
def test_the_fingerprint_of_a_step_covers_all_modules_of_steps_that_it_imports(step):
    covered, files = set(code.code_files(step)), [code.STEPS_ROOT / f"{step}.py"]
    for file in files:
        for name in re.findall(r"^\s*from steps\.([\w.]+) import", file.read_text(), re.MULTILINE):
            module = code.STEPS_ROOT.joinpath(*name.split(".")).with_suffix(".py")
            files += [module] if module.is_file() and module not in files else []
    assert [file for file in files if file not in covered] == []


def test_other_code_makes_other_work(tmp_path, monkeypatch):
    project = project_in(tmp_path)
    first = run_pass(project, 0)
    monkeypatch.setattr(common, "code_sha256", lambda *steps: f"changed {steps}")
    assert run_pass(project, 0)["sample"]["fingerprint"] != first["sample"]["fingerprint"]


def test_a_damaged_output_is_made_again(tmp_path):
    project = project_in(tmp_path)
    run_pass(project, 0)
    samples = Pass(project, 0).folder("sample") / "samples" / "00000256.safetensors"
    content = samples.read_bytes()
    samples.write_bytes(content[:-1])
    sample.run(Pass(project, 0), NullTracker())
    assert samples.read_bytes() == content


@pytest.mark.faults
def test_a_full_disk_leaves_no_half_step(tmp_path):
    project = project_in(tmp_path)
    with (
        full_disk(tmp_path, suffix=".safetensors"),
        pytest.raises(StorageError, match=r"cannot write .*samples/00000000.safetensors: no space is left: free some"),
    ):
        sample.run(Pass(project, 0), NullTracker())
    folder = Pass(project, 0).folder("sample")
    assert not [path for path in folder.iterdir() if path.suffix in (".safetensors", ".png", ".json")]
    sample.run(Pass(project, 0), NullTracker())
    assert (folder / "manifest.json").exists()


def test_a_held_folder_is_refused(tmp_path):
    project = project_in(tmp_path)
    with (
        folder_lock(Pass(project, 0).folder("sample")),
        pytest.raises(StorageError, match=r"sample is held by another run: wait for it to end, or stop it"),
    ):
        sample.run(Pass(project, 0), NullTracker())


def test_a_damaged_state_is_told(tmp_path):
    project = project_in(tmp_path)
    this = Pass(project, 1)
    train_flow.run(this, NullTracker())
    before = this.sha256(this.chain)
    (this.folder("train_flow") / "manifest.json").unlink()
    train_flow.run(this, NullTracker())
    assert this.sha256(this.chain) == before
    this.chain.write_bytes(b"no chain")
    with pytest.raises(CheckpointError):
        this.generator()


def test_stale_passes_are_cleared_away(tmp_path):
    project = project_in(tmp_path)
    for number in range(4):
        (project.artifacts / f"pass-{number}" / "sample").mkdir(parents=True)
    project.discard_passes_after(1)
    assert sorted(path.name for path in project.artifacts.iterdir()) == ["pass-0", "pass-1"]


def test_folders_of_the_users_own_beside_the_passes_stay(tmp_path):
    project = project_in(tmp_path)
    for name in ("pass-0", "pass-1", "pass-2", "pass-1.bak", "pass-2 copy", "pass-", "pass-02", "pass-x", "pass-9²"):
        (project.artifacts / name).mkdir(parents=True)
    (project.artifacts / "pass-7").write_text("a file")
    project.discard_passes_after(1)
    left = {path.name for path in project.artifacts.iterdir()}
    assert left == {"pass-0", "pass-1", "pass-1.bak", "pass-2 copy", "pass-", "pass-02", "pass-x", "pass-9²", "pass-7"}

"""Commands about a ready-made experiment: `--experiment NAME` stands in the place of `--params FILE`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steps.shared.common import Project
from tests import tiny
from tests.commands import typed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project without a params.yaml and with one ready-made experiment, as the current folder."""
    write_presets(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_presets(folder: Path, content: dict | None = None) -> None:
    """Write an experiment "mine", which has the content of `content` besides 128 samples."""
    content = content or tiny.params()
    for derived in ("experiment", "models"):
        del content[derived]
    (folder / "experiments").mkdir()
    (folder / "experiments" / "defaults.yaml").write_text(yaml.safe_dump(content))
    mine = {"experiments": {"mine": {"about": "a small one", "evaluation": {"samples": 128}}}}
    (folder / "experiments" / "mine.yaml").write_text(yaml.safe_dump(mine))


def test_a_name_stands_for_a_file(folder):
    project = Project.load("params.yaml", "mine")
    assert (project.root, project.params.experiment) == (folder, "mine")
    assert project.params.evaluation.samples == 128
    assert project.artifacts == folder / "artifacts" / "mine"


@pytest.mark.usefixtures("folder")
def test_a_step_is_run_by_name(capsys):
    assert typed("step", "sample", "--experiment", "mine", "--pass", 0) == 0
    assert capsys.readouterr().out.startswith("artifacts/mine/pass-0/sample: ")
    assert typed("step", "train_flow", "--experiment", "mine", "--pass", 1) == 0
    assert capsys.readouterr().out.startswith("artifacts/mine/pass-1/train_flow: ")
    assert typed("check", "--experiment", "mine") == 0
    assert capsys.readouterr().out == "the experiment can run\n"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("words", [["check"], ["report"], ["run"], ["step", "fit_moments", "--pass", "2"]])
def test_a_wrong_name_is_told_in_a_line(capsys, words):
    assert typed(*words, "--experiment", "mime") == 2
    assert capsys.readouterr().err == "error: there is no experiment called 'mime'; did you mean mine?\n"

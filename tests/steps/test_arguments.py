"""Commands about a ready-made experiment: `--experiment NAME` stands in the place of `--params FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from steps import check, fit_moments, report, sample, train_flow
from steps.shared.command import command
from steps.shared.common import Project, pass_command
from tests import tiny


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project without a params.yaml and with one ready-made experiment, as the current folder."""
    write_presets(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_presets(folder: Path) -> None:
    content = tiny.params()
    for derived in ("experiment", "models"):
        del content[derived]
    (folder / "experiments").mkdir()
    (folder / "experiments" / "defaults.yaml").write_text(yaml.safe_dump(content))
    mine = {"experiments": {"mine": {"about": "a small one", "evaluation": {"samples": 128}}}}
    (folder / "experiments" / "mine.yaml").write_text(yaml.safe_dump(mine))


def typed(monkeypatch, main, *arguments: str) -> int:
    """Return the exit status of a command's `main`."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_name_stands_for_a_file(folder):
    project = Project.load("params.yaml", "mine")
    assert (project.root, project.params.experiment) == (folder, "mine")
    assert project.params.evaluation.samples == 128
    assert project.artifacts == folder / "artifacts" / "mine"


def test_a_step_is_run_by_name(folder, monkeypatch, capsys):
    assert typed(monkeypatch, lambda: pass_command("", sample.run), "--experiment", "mine", "--pass", "0") == 0
    assert capsys.readouterr().out.startswith("artifacts/mine/pass-0/sample: ")
    assert typed(monkeypatch, train_flow.main, "--experiment", "mine", "--pass", "1") == 0
    assert capsys.readouterr().out.startswith("artifacts/mine/pass-1/train_flow: ")
    assert typed(monkeypatch, check.main, "--experiment", "mine") == 0
    assert capsys.readouterr().out == "the experiment can run\n"


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (lambda: command(check.main), []),
        (lambda: command(report.main), []),
        (lambda: pass_command("", fit_moments.run), ["--pass", "2"]),
    ],
)
def test_a_wrong_name_is_told_in_a_line(folder, monkeypatch, capsys, main, arguments):
    assert typed(monkeypatch, main, "--experiment", "mime", *arguments) == 2
    assert capsys.readouterr().err == "error: there is no experiment called 'mime'; did you mean mine?\n"

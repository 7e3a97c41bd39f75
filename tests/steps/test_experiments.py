"""Putting a ready-made experiment into params.yaml: it reads back the same, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.experiments.presets import read_presets
from steps import experiments

ROOT = Path(__file__).parents[2]
PRESETS = read_presets(ROOT / "experiments")


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "params.yaml").write_text("# mine\n")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("name", PRESETS)
def test_params_read_back_as_the_preset(name, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(experiments.params_text(PRESETS[name]))
    assert load_params(path) == PRESETS[name].params()
    assert not {"&", "*"} & {line.strip().partition(" ")[2][:1] for line in path.read_text().splitlines()[3:]}


def test_a_file_that_git_does_not_have_is_kept(project):
    assert experiments.choose("text-baby", project) == project / "params.yaml.bak"
    assert (project / "params.yaml.bak").read_text() == "# mine\n"
    (project / "params.yaml").write_text("# mine again\n")
    assert experiments.choose("text-boy", project) == project / "params.yaml.bak1"
    assert (project / "params.yaml.bak").read_text() == "# mine\n"
    assert load_params(project / "params.yaml").experiment == "text-boy"


def test_a_committed_file_needs_no_copy_but_a_changed_one_does(project):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "all")
    assert experiments.choose("text-baby", project) is None
    git(project, "checkout", "params.yaml")
    (project / "params.yaml").write_text("# changed\n")
    assert experiments.choose("text-baby", project) == project / "params.yaml.bak"


def test_what_the_command_wrote_itself_is_replaced_until_it_is_edited(project):
    experiments.choose("text-baby", project)
    assert experiments.choose("pose", project) is None
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 2"))
    assert experiments.choose("text-baby", project) is not None


def test_an_unknown_name_changes_nothing(project):
    with pytest.raises(ConfigError, match="did you mean text-baby"):
        experiments.choose("text-babe", project)
    assert (project / "params.yaml").read_text() == "# mine\n"

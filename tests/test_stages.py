"""The first stages of dvc.yaml, run by DVC itself in a copy of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from promptgen.model_files.pins import read_pins
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path):
    """A project with code of its own and tiny parameters."""
    for name in ("promptgen", "steps", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "cards.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    tiny.write_params(tmp_path)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    return tmp_path


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC with this Python's tools, and return what it says."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "PATH": tools, "DVC_NO_ANALYTICS": "true"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.mark.slow
def test_models_come_and_stay(project):
    dvc(project, "repro", "list_models", "fetch")  # an experiment of code of one's own lists none
    assert [path.name for path in (project / "models").iterdir()] == ["used.json"]

    mine = {"file": "weights.pt", "urls": ["file:there"]}
    card = {"kind": "classifier", "type": "fairface", "files": [mine], "licence": "CC0"}
    (project / "cards.yaml").write_text(yaml.safe_dump({"mine": card}))
    torch.save({"weight": torch.zeros(2)}, project / "there")
    weights = (project / "there").read_bytes()
    tiny.write_params(project, tiny.params() | {"models": ["mine"]})
    assert "models: has mine, which the experiment does not use" in dvc(project, "repro", "list_models", "fetch")
    assert list(read_pins(project / "models")) == ["mine/weights.pt"]

    (project / "there").unlink()
    (project / "cards.yaml").write_text(yaml.safe_dump({"mine": card | {"note": "changed"}}))
    assert "Running stage 'fetch@mine'" in dvc(project, "repro", "list_models", "fetch")
    assert (project / "models" / "mine" / "weights.pt").read_bytes() == weights

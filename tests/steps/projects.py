"""Projects of the tiny world, and how tests run the steps of a pass in them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from promptgen.tracking import NullTracker
from steps import estimate_bias, evaluate, fit_moments, sample, train_flow
from steps.measuring.records import STEPS
from steps.measuring.samples import Samples
from steps.shared.common import Pass, Project
from tests import tiny

MODULES = {
    "fit_moments": fit_moments,
    "train_flow": train_flow,
    "sample": sample,
    "evaluate": evaluate,
    "estimate_bias": estimate_bias,
}


def project_in(folder: Path, content: dict | None = None) -> Project:
    return Project.load(tiny.write_params(folder, content))


def arrays_of(samples: Samples) -> dict:
    """Return all columns and pictures as arrays by name."""
    return {name: samples[name][:].numpy() for name in samples.columns} | samples.pictures()


def run_pass(project: Project, number: int) -> dict:
    """Run the steps of a pass and return their results by step."""
    this = Pass(project, number)
    return {step: MODULES[step].run(this, NullTracker()) for step in STEPS[this.kind]}


def changed(section: str, **values: object) -> dict:
    """Return the content of the tiny params.yaml with other values in one section."""
    content = tiny.params()
    return content | {section: content[section] | values}


def run_command(monkeypatch, module, *arguments: str) -> int:
    """Run a step's command line as `python -m` would; return its exit status."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0

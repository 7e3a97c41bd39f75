"""The experiment on two prompts with worker processes: its passes write what one process writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptgen.engine.config import open_engine
from promptgen.experiments.presets import find_preset
from promptgen.model_files.store import fetch
from steps import check
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from tests.quick import COUNTS, shortened
from tests.steps.projects import project_in, run_pass
from tests.steps.test_engine_of_steps import files

FOLDER = Path(__file__).parents[2] / "experiments"


def content(precision, workers=0):
    """Return params.yaml of the experiment with few images."""
    params = find_preset("world-prompts", FOLDER).content()
    params["precision"] = precision
    params["debias"] |= {"samples": 300, "bootstrap": 50, "max_passes": 1, "training": {"budget": {"images": 512}}}
    params["evaluation"] |= {"samples": 300, "fit_samples": 128, "bootstrap": 100, "grid": 4}
    params["flow"] |= {"blocks": 2, "hidden": 16}
    return params | ({"engine": {"type": "process", "workers": workers}} if workers else {})


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_workers_write_the_same_bytes(tmp_path_factory, precision):
    projects = [project_in(tmp_path_factory.mktemp("prompts"), content(precision, workers)) for workers in (0, 2)]
    for project in projects:
        for name in project.params.models:
            fetch(name, project.models)
        check.run(project)
        with shortened(COUNTS):
            for number in range(2):
                run_pass(project, number)
    open_engine(projects[1].params.engine).close()
    inline, processes = map(files, projects)
    assert inline.keys() == processes.keys()
    assert [name for name, read in processes.items() if read != inline[name]] == []
    assert set(pass_record(Pass(projects[1], 1)).by["judge"].within) == {"a nurse", "a builder"}

"""Real faces: other people's generator, classifiers and judges, fetched and run through the steps of `faces-smile`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from promptgen.experiments.presets import find_preset
from steps.shared.common import Pass, Project
from tests.parity.published_faces import FILES, ROOT, files_of
from tests.steps.projects import run_pass


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The experiment with a fraction of its images and a smaller flow."""
    folders = {path.parents[1] for kind in FILES for path in files_of(kind)}
    if folders != {ROOT / "models"}:
        pytest.skip("PROMPTGEN_FACES names loose files, but a project needs a folder for each model")
    folder: Path = tmp_path_factory.mktemp("faces")
    (folder / "models").symlink_to(ROOT / "models")
    content = find_preset("faces-smile", ROOT / "experiments").content()
    content["control"]["training"]["budget"] = {"images": 1536}
    content["evaluation"] |= {"samples": 256, "fit_samples": 256, "bootstrap": 100}
    content["flow"] |= {"blocks": 4, "hidden": 64}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return Project.load(folder / "params.yaml")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_faces_smile_more_by_a_judge_that_never_steered(project):
    before = run_pass(project, 0)["evaluate"]["result"]
    after = run_pass(project, 1)
    measured = [before, after["evaluate"]["result"]]
    smiling = {
        reader: [result["control"][f"expression.happy.{reader}"]["value"] for result in measured]
        for reader in ("classifier", "judge")
    }
    assert 0.05 < smiling["judge"][0] < 0.35
    assert smiling["classifier"][1] > smiling["classifier"][0] + 0.3
    assert smiling["judge"][1] > smiling["judge"][0] + 0.1
    assert after["train_flow"]["result"]["reuse"]["units"] <= 1536
    assert Pass(project, 1).chain.is_file()

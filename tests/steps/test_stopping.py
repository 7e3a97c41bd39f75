"""After which pass the loop ends, and why."""

from __future__ import annotations

import shutil

import pytest

from promptgen.tracking import NullTracker
from steps import estimate_bias
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from tests import tiny
from tests.steps.projects import changed, project_in


@pytest.mark.parametrize(
    ("number", "control", "contains", "expected"),
    [
        (0, True, True, None),  # what is asked for has not been trained yet
        (0, False, True, estimate_bias.REACHED),
        (1, True, False, None),
        (1, True, True, estimate_bias.REACHED),
        (3, True, True, estimate_bias.REACHED),
        (3, True, False, estimate_bias.EXHAUSTED),
        (2, False, False, estimate_bias.EXHAUSTED),
    ],
)
def test_loop_stops_at_the_target_or_at_the_maximum(tmp_path, number, control, contains, expected):
    content = tiny.params()
    content["control"] = content["control"] if control else None
    assert estimate_bias.decide(Pass(project_in(tmp_path, content), number), contains) == expected


def test_interval_decides_not_the_value(done, tmp_path):
    """With a target just outside the judge's interval the loop goes on, just inside it stops."""
    share = pass_record(Pass(done, 1))["shares"]["judge"]["long"]
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny")
    for target, contains in ((share["low"] - 0.01, False), (share["low"] + 0.01, True)):
        content = tiny.params()
        content["debias"]["target"] = {"short": 1 - target, "long": target}
        project = project_in(tmp_path, content)
        assert estimate_bias.run(Pass(project, 1), NullTracker())["result"]["contains_target"] is contains


@pytest.mark.parametrize(
    ("values", "reason"), [({"max_passes": 0}, estimate_bias.MEASURED), ({"training": None}, estimate_bias.FITTED)]
)
@pytest.mark.parametrize("contains_target", [True, False])
def test_without_debiasing_the_loop_ends_after_the_control(tmp_path, values, reason, contains_target):
    project = project_in(tmp_path, changed("debias", **values))
    assert estimate_bias.decide(Pass(project, 0), contains_target) is None
    assert estimate_bias.decide(Pass(project, 1), contains_target) == reason
    alone = project_in(tmp_path, changed("debias", **values) | {"control": None})
    assert estimate_bias.decide(Pass(alone, 0), contains_target) == reason

"""After which pass the loop ends, and why."""

from __future__ import annotations

import shutil

import pytest

from promptgen.errors import DataError
from promptgen.records import Count
from promptgen.tracking import NullTracker
from steps import estimate_bias, evaluate
from steps.estimate_bias import EXHAUSTED, FITTED, MEASURED, REACHED, decide
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from tests import tiny
from tests.steps.projects import changed, project_in


def count_of(number: int, contains: bool) -> Count:
    """Return a count of a pass by the judge alone, whose intervals contain the target or do not."""
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    ends = {"value": 0.5, "low": 0.4, "high": 0.6} if contains else {"value": 0.8, "low": 0.7, "high": 0.9}
    labels = ("short", "long")
    judge = {"counts": dict.fromkeys(labels, 10), "shares": dict.fromkeys(labels, ends)}
    judge |= dict.fromkeys(("kl", "total_variation", "discrepancy"), zero)
    content = {"pass": number, "n": 20, "target": dict.fromkeys(labels, 0.5), "chance": {}, "by": {"judge": judge}}
    return Count.model_validate(content)


@pytest.mark.parametrize(
    ("number", "control", "contains", "expected"),
    [
        (0, True, True, None),  # what is asked for has not been trained yet
        (0, False, True, REACHED),
        (1, True, False, None),
        (1, True, True, REACHED),
        (3, True, True, REACHED),
        (3, True, False, EXHAUSTED),
        (2, False, False, EXHAUSTED),
    ],
)
def test_loop_stops_at_the_target_or_at_the_maximum(tmp_path, number, control, contains, expected):
    content = tiny.params()
    content["control"] = content["control"] if control else None
    assert decide(count_of(number, contains), project_in(tmp_path, content).params) == expected


def test_interval_decides_not_the_value(done, tmp_path):
    """With a target just outside the judge's interval the loop goes on, just inside it stops."""
    share = pass_record(Pass(done, 1)).by["judge"].shares["long"]
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny")
    for target, contains in ((share.low - 0.01, False), (share.low + 0.01, True)):
        content = tiny.params()
        content["debias"]["target"] = {"short": 1 - target, "long": target}
        project = project_in(tmp_path, content)
        for number in (0, 1):
            evaluate.run(Pass(project, number), NullTracker())
        assert estimate_bias.run(Pass(project, 1), NullTracker())["result"]["contains_target"] is contains


def test_a_counted_target_is_met_within_the_chance_of_both_samples(done, tmp_path):
    """A target outside the judge's interval ends the loop if few samples tell it, and does not if many do."""
    target = pass_record(Pass(done, 1)).by["judge"].shares["long"].low - 0.01
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny")
    for samples, contains in ((100, True), (1_000_000, False), (None, False)):
        content = changed("debias", target={"short": 1 - target, "long": target}, target_samples=samples)
        project = project_in(tmp_path, content)
        for number in (0, 1):
            evaluate.run(Pass(project, number), NullTracker())
        assert estimate_bias.run(Pass(project, 1), NullTracker())["result"]["contains_target"] is contains


@pytest.mark.parametrize(("values", "reason"), [({"max_passes": 0}, MEASURED), ({"training": None}, FITTED)])
@pytest.mark.parametrize("contains_target", [True, False])
def test_without_debiasing_the_loop_ends_after_the_control(tmp_path, values, reason, contains_target):
    params = project_in(tmp_path, changed("debias", **values)).params
    assert decide(count_of(0, contains_target), params) is None
    assert decide(count_of(1, contains_target), params) == reason
    alone = project_in(tmp_path, changed("debias", **values) | {"control": None}).params
    assert decide(count_of(0, contains_target), alone) == reason


def test_a_pass_is_compared_only_with_passes_that_were_evaluated(done, tmp_path):
    """Nothing is counted here: without the evaluation of an earlier pass the step says how to get it."""
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny")
    shutil.rmtree(tmp_path / "artifacts/tiny/pass-0/evaluate")
    with pytest.raises(DataError, match=r"promptgen step evaluate --pass 0"):
        estimate_bias.run(Pass(project_in(tmp_path), 1), NullTracker())


def test_a_later_pass_is_compared_with_the_first_the_controls_and_the_one_before(done):
    assert [change.since for change in pass_record(Pass(done, 2)).changes] == [0, 1]
    change = pass_record(Pass(done, 2)).change(since=1)
    assert set(change.by) == set(change.watched["hair x makeup"]) == {"classifier", "judge", "truth"}
    assert change.by["judge"].distances["kl"].high < 0  # de-biasing brought the shares nearer to the target
    assert set(change.control) == {f"makeup.without.{reader}" for reader in change.by}

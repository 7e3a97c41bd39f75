"""What MLflow is told of a pass: every interval as a group of three, under names that it takes whatever labels say."""

import math

import pytest
from mlflow.utils.validation import _validate_metric

from promptgen.records import Interval, PassRecord, Quality
from steps.recording.facts import figures, tracked_name


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def bias(*labels):
    shares = {label: interval(0.5) for label in labels}
    return {"shares": shares, **{name: interval(0.2) for name in ("kl", "total_variation", "discrepancy")}}


def reader(*labels, **others):
    return bias(*labels) | {"counts": dict.fromkeys(labels, 5)} | others


HAIR, GLASSES = ("short", "long"), ("short x with", "long x with")
WATCHED = {"target": dict.fromkeys(GLASSES, 0.5), "chance": {}, "by": {"judge": reader(*GLASSES)}}
CONTENT = {
    "pass": 1,
    "kind": "control",
    "n": 10,
    "target": dict.fromkeys(HAIR, 0.5),
    "chance": {"kl": 0.0002},
    "by": {"judge": reader(*HAIR, soft=bias(*HAIR), corrected=dict.fromkeys(HAIR, interval(0.61)))},
    "watched": {
        "hair x glasses": {"target": dict.fromkeys(GLASSES, 0.5), "chance": {}, "by": {"judge": reader(*GLASSES)}}
    },
    "quality": {
        "reference": "the generator",
        "features": "world-judge",
        "n": 10,
        "n_reference": 10,
        "few_samples": False,
        **{name: interval(0.8) for name, field in Quality.model_fields.items() if field.annotation is Interval},
        "frechet": {"value": 1.5, "chance": 0.2},
    },
    "control": {"makeup.without.judge": interval(0.9)},
    "changes": [],
    "fit": None,
    "seconds": {"sample": 3.0},
    "generator_evaluations": {"forward": 10},
}
RECORD = PassRecord.model_validate(CONTENT)


def test_every_interval_is_a_group_of_value_low_and_high():
    flat = figures(RECORD)
    groups = [name.rpartition("/")[0] for name in flat if name.endswith("/low")]
    assert {
        "bias/kl/judge",
        "bias/share/long/judge",
        "corrected/long/judge",
        "distance/total_variation/judge",
        "soft/share/short/judge",
        "soft/kl/judge",
        "watched/hair x glasses/share/short x with/judge",
        "watched/hair x glasses/discrepancy/judge",
        "quality/precision",
        "quality/recall",
        "quality/kernel",
    } <= set(groups)
    assert all(f"{group}/{part}" in flat for group in groups for part in ("value", "low", "high"))
    assert flat["quality/frechet/value"] == 1.5
    assert flat["quality/frechet/chance"] == 0.2
    assert flat["chance/kl"] == 0.0002
    assert all(math.isfinite(value) for value in flat.values())


def test_the_figures_of_a_pass_without_quality_have_none():
    assert not [name for name in figures(RECORD.model_copy(update={"quality": None})) if name.startswith("quality/")]


@pytest.mark.parametrize(
    "label", ["> 70", "a man's face", "black & white", "(none)", "..", "a//b", "ältere Frau", "50 %", "x" * 300, ""]
)
def test_labels_of_any_words_become_names_that_mlflow_takes(label):
    name = tracked_name(f"bias/share/{label}/judge/value")
    _validate_metric(name, 1.0, 0, 0)
    assert name.startswith("bias/share/")
    assert name.endswith("/judge/value")


def test_names_that_mlflow_takes_stay_as_they_are():
    for name in figures(RECORD):
        assert tracked_name(name) == name


def test_names_of_different_labels_stay_different():
    labels = ["<20", ">20", "_20", "20+", "20-", "20?", "a/b", "a//b", "x" * 300, "x" * 301, "", ".", "..", "_"]
    assert len({tracked_name(f"share/{label}/value") for label in labels}) == len(labels)

"""Whether two samplers differ: known intervals and p-values, and what is compared of two passes."""

import pytest

from promptgen.metrics.comparison import change_between, compare_counts
from promptgen.records import Measurement

FIGURE = {"value": 0.1, "low": 0.0, "high": 0.2}


def share(value):
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def attribute(**counts):
    """Return what is recorded of an attribute, by reader: the counts of each."""
    labels = list(next(iter(counts.values())))
    by = {
        reader: {"counts": seen, "shares": dict.fromkeys(labels, FIGURE)}
        | dict.fromkeys(("kl", "total_variation", "discrepancy"), FIGURE)
        for reader, seen in counts.items()
    }
    return {"target": dict.fromkeys(labels, 1 / len(labels)), "chance": {}, "by": by}


def measurement(number, control=None, watched=None, **counts):
    content = {"pass": number, "n": 1000, "kind": "debias", "quality": None, **attribute(**counts)}
    return Measurement.model_validate(content | {"control": control or {}, "watched": watched or {}})


def test_a_share_s_change_has_newcombes_interval_and_the_score_test_s_p_value():
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    change = compare_counts([14, 56], [32, 48], [0.5, 0.5]).shares[1]
    assert [change.value, change.low, change.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)
    # z = 0.2 / sqrt(104/150 * 46/150 * (1/70 + 1/80)) = 2.6505
    assert change.p_value == pytest.approx(0.00804, abs=5e-5)


def test_all_shares_together_tell_a_change_from_chance():
    assert compare_counts([296, 104], [300, 100], [0.5, 0.5], resamples=200).p_value > 0.3
    assert compare_counts([100, 300], [300, 100], [0.5, 0.5], resamples=200).p_value == pytest.approx(1 / 201)


def test_a_distance_that_shrinks_has_a_negative_change():
    change = compare_counts([500, 500], [100, 900], [0.5, 0.5], resamples=200).distances["kl"]
    assert change.value == pytest.approx(-0.3681, abs=1e-4)
    assert change.high < 0
    assert change.p_value < 0.05


def test_passes_are_compared_by_label_whatever_the_order():
    first = measurement(0, judge={"short": 900, "long": 100})
    last = measurement(3, judge={"long": 500, "short": 500})
    change = change_between(first, last, resamples=100)
    assert change.since == 0
    moved = change.by["judge"]
    assert (moved.shares["long"].value, moved.shares["short"].value) == pytest.approx((0.4, -0.4))
    again = change_between(first, measurement(3, judge={"short": 500, "long": 500}), resamples=100)
    assert again == change


def test_only_what_both_passes_measured_is_compared():
    hair, glasses = {"short": 500, "long": 500}, attribute(judge={"with": 4, "without": 6})
    before = measurement(0, {"makeup.without.judge": share(0.5)}, judge=hair, truth=hair)
    control = {"makeup.without.judge": share(0.9), "makeup.without.truth": share(0.9), "pose.error": share(3.0)}
    after = measurement(1, control, {"glasses": glasses}, judge=hair)
    change = change_between(before, after, resamples=100)
    assert set(change.by) == {"judge"}
    assert change.watched == {}
    assert set(change.control) == {"makeup.without.judge"}
    assert change.control["makeup.without.judge"].low > 0.3
    assert set(change_between(after, after, resamples=100).watched) == {"glasses"}

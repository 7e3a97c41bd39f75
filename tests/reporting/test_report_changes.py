"""Whether two passes differ: known intervals and p-values, and what is counted from shares."""

import made_up_run
import pytest

from promptgen.records import Interval
from promptgen.reporting.changes import any_change, distance_change, share_changes, tally
from promptgen.reporting.sections.bias_tables import distance_rows, indirect_rows, indirect_sources, pass_rows
from promptgen.reporting.text import formats

SETTINGS = made_up_run.settings(made_up_run.PARAMS)


def share(count, n):
    return Interval(**made_up_run.wilson(count, n).as_dict())


def test_counts_come_back_from_shares():
    assert tally({"a": share(1, 3), "b": share(2, 3)}, 3) == {"a": 1, "b": 2}
    assert tally({"a": share(1234, 2048)}, 2048) == {"a": 1234}
    assert tally(None, 3) == {}


def test_a_share_s_change_has_newcombes_interval_and_the_score_test_s_p_value():
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    change = share_changes({"yes": 48, "no": 32}, {"no": 14, "yes": 56}, SETTINGS)["yes"]
    assert [change.value, change.low, change.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)
    # z = 0.2 / sqrt(104/150 * 46/150 * (1/70 + 1/80)) = 2.6505
    assert change.p_value == pytest.approx(0.00804, abs=5e-5)


def test_all_shares_together_tell_a_change_from_chance():
    before = {"a": 300, "b": 100}
    assert any_change(before, {"b": 104, "a": 296}, SETTINGS) > 0.3
    assert any_change(before, {"b": 300, "a": 100}, SETTINGS) == pytest.approx(1 / (SETTINGS.bootstrap + 1))


def test_a_distance_that_shrinks_has_a_negative_change():
    target = {"long": 0.5, "short": 0.5}
    change = distance_change({"short": 100, "long": 900}, {"long": 500, "short": 500}, "kl", target, SETTINGS)
    assert change.value == pytest.approx(-0.3681, abs=1e-4)
    assert change.high < 0
    assert change.p_value < 0.05


def test_nothing_is_compared_with_what_nobody_counted():
    assert share_changes({}, {"a": 1, "b": 2}, SETTINGS) == {}
    assert any_change({"a": 1, "b": 2}, {}, SETTINGS) is None
    assert distance_change({}, {"a": 1, "b": 2}, "kl", {"a": 0.5, "b": 0.5}, SETTINGS) is None


def test_passes_are_compared_with_the_one_before_and_the_count_after_the_loop_with_none():
    run = made_up_run.make()
    rows = pass_rows(run.metrics, run.settings)
    assert [row.change and round(row.change.value, 3) for row in rows] == [None, 0.34, -0.333, None]
    assert [row.on_target for row in rows] == [True, False, True, True]
    assert rows[-1].seconds is None
    assert rows[-1].title.startswith("Counted again")
    distances = distance_rows(run.metrics, run.settings)
    assert [row.title for row in distances] == ["KL, nats", "Total variation", "Discrepancy"] * 4
    assert [row.change is None for row in distances] == [True] * 3 + [False] * 6 + [True] * 3
    assert distances[4].by["judge"].value == pytest.approx(0.34)
    assert distances[4].chance == run.metrics.passes[1].chance["total_variation"]


def test_a_run_without_other_distances_has_its_kl_and_what_chance_shows():
    run = made_up_run.make(made_up_run.of_an_older_run(made_up_run.content()))
    rows = distance_rows(run.metrics, run.settings)
    assert [row.title for row in rows] == ["KL, nats"] * 3
    assert rows[0].chance == pytest.approx(1 / (2 * made_up_run.N))
    assert indirect_sources(run.metrics) == [("judge", "corrected")]


def test_what_is_not_counted_stands_by_its_way_and_source():
    metrics = made_up_run.make().metrics
    assert indirect_sources(metrics) == [
        ("judge", "corrected"),
        ("classifier", "mean probability"),
        ("judge", "mean probability"),
    ]
    rows = indirect_rows(metrics)
    assert [row.title for row in rows[:5]] == ["short", "long", "KL, nats", "Total variation", "Discrepancy"]
    corrected, soft = rows[0].cells[0], metrics.passes[0].soft["judge"]
    assert (corrected.value, rows[0].cells[2]) == (0.4567, soft.shares["short"])
    assert rows[2].cells == [None, metrics.passes[0].soft["classifier"].kl, soft.kl]
    again = [row for row in rows if row.count is metrics.confirmation]
    assert [row.title for row in again] == ["short", "long"]
    assert again[0].cells[1:] == [None, None]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.001, "p = 0.001"), (0.0312, "p = 0.031"), (0.314, "p = 0.31")]
)
def test_p_values_are_written_with_the_digits_that_mean_anything(p, text):
    assert formats.p_value(p).replace("\u00a0", " ") == text

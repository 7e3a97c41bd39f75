"""Whether two passes differ, and what is told of shares without counting labels, as the page's tables have it."""

import made_up_run
import pytest

from promptgen.reporting.sections.bias_tables import distance_rows, indirect_rows, indirect_sources, pass_rows
from promptgen.reporting.text import formats


def test_passes_are_compared_with_the_one_before_and_the_count_after_the_loop_with_none():
    run = made_up_run.make()
    rows = pass_rows(run.metrics, run.settings)
    assert [row.change and round(row.change.value, 3) for row in rows] == [None, 0.34, -0.333, None]
    assert [row.on_target for row in rows] == [True, False, True, True]
    assert rows[-1].seconds is None
    assert rows[-1].title.startswith("Confirming count")
    distances = distance_rows(run.metrics)
    assert [row.title for row in distances] == ["KL, nats", "Total variation", "Discrepancy"] * 4
    assert [row.change is None for row in distances] == [True] * 3 + [False] * 6 + [True] * 3
    assert distances[4].by["judge"].value == pytest.approx(0.34)
    assert distances[4].chance == run.metrics.passes[1].chance["total_variation"]


def test_a_run_without_probabilities_has_its_corrected_shares_alone():
    run = made_up_run.make(made_up_run.least(made_up_run.content()))
    assert distance_rows(run.metrics)[0].chance == pytest.approx(1 / (2 * made_up_run.N))
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
    corrected, soft = rows[0].cells[0], metrics.passes[0].by["judge"].soft
    assert (corrected.value, rows[0].cells[2]) == (0.4567, soft.shares["short"])
    assert rows[2].cells == [None, metrics.passes[0].by["classifier"].soft.kl, soft.kl]
    again = [row for row in rows if row.count is metrics.confirmation]
    assert [row.title for row in again] == ["short", "long"]
    assert again[0].cells[1:] == [None, None]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.001, "p = 0.001"), (0.0312, "p = 0.031"), (0.314, "p = 0.31")]
)
def test_p_values_are_written_with_the_digits_that_mean_anything(p, text):
    assert formats.p_value(p).replace("\u00a0", " ") == text

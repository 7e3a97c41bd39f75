"""What the report says of a training on evaluations: its cost, and whether the surrogate was right."""

import made_up_run
import pytest
from made_up_run import content, make

from promptgen.figures import Fit, Reuse
from promptgen.records import AttributeBias, Metrics
from promptgen.reporting.page import render
from promptgen.reporting.text.formats import count

REUSE = {"units": 8119, "budget": 8192, "used": 4321, "surrogate_error": 0.0625, "expected_ess": 0.5, "polished": 0,
         "rank": 12, "given_away": {"value": 0.02, "low": 0.01, "high": 0.034}}  # fmt: skip


def reused(**changes):
    made = content()
    for record in made["passes"][1:]:
        record["reuse"] = REUSE | changes
    return made


def test_the_page_shows_what_was_spent_and_used():
    page = render(make(reused()))
    for name in ("units", "budget", "used"):
        assert page.count(f"<td>{count(REUSE[name])}</td>") == 2
    assert "What training cost" not in render(make())


@pytest.mark.parametrize(("expected_ess", "trusted"), [(0.45, True), (0.6, True), (0.95, False)])
def test_a_surrogate_is_trusted_as_far_as_true_images_bear_it_out(expected_ess, trusted):
    """The true effective sample size is 41.7 %, at most 44.7 %."""
    assert Reuse(**REUSE | {"expected_ess": expected_ess}).trusts(Fit(**made_up_run.FIT)) == trusted
    page = render(make(reused(expected_ess=expected_ess)))
    assert ("Pass 1: the surrogate cannot be trusted" in page) == (not trusted)
    assert page.count('<td class="text">trusted</td>') == (2 if trusted else 0)


def test_the_page_says_where_true_gradients_replaced_the_surrogate():
    page = render(make(reused(expected_ess=0.1, polished=592)))
    assert page.count("true gradients of 592 images") == 2
    assert '<td class="text">trusted</td>' not in page


def test_the_page_says_how_many_directions_a_flow_moves_and_what_that_gives_away():
    page = render(make(reused()))
    assert page.count("<td>12</td><td>at most 0.034</td>") == 2
    whole = render(make(reused(rank=None, given_away=None)))
    assert whole.count("<td>all</td>") == 2
    assert "at most 0.034" not in whole


def test_the_record_survives_its_file():
    written = Metrics.parse(made_up_run.with_changes(reused()), "x").as_dict()
    assert written["passes"][1]["reuse"] == REUSE
    assert Metrics.parse(written, "x").as_dict() == written


def test_the_stopping_rule_takes_the_intervals_that_hold_together():
    """A target just outside the interval of one share, and inside those that hold together."""
    made = content()["passes"][2]
    judge = made["by"]["judge"]
    judge["shares"] = {name: {"value": 0.507, "low": 0.505, "high": 0.51} for name in judge["shares"]}
    counted = {name: made[name] for name in ("target", "chance", "by")}
    assert not AttributeBias.parse(counted, "x").contains_target
    judge["simultaneous"] = {name: {"value": 0.507, "low": 0.495, "high": 0.52} for name in judge["shares"]}
    assert AttributeBias.parse(counted, "x").contains_target

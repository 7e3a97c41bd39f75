import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.correction import (
    corrected_shares,
    impossible_classes,
    invert_confusion,
    project_to_simplex,
)

ACCURACIES = (0.9471627486437613, 0.9829294755877035)


def test_inversion_gives_the_published_correction_of_two_classes_and_undoes_any_confusion():
    a0, a1 = ACCURACIES
    matrix = np.array([[a0, 1 - a0], [1 - a1, a1]])
    assert invert_confusion([0.61, 0.39], matrix)[0] == pytest.approx(0.6375, abs=5e-5)
    rng = np.random.default_rng(0)
    truth, confusion = rng.dirichlet(np.ones(6)), 0.7 * np.eye(6) + 0.3 * rng.dirichlet(np.ones(6), size=6)
    np.testing.assert_allclose(invert_confusion(truth @ confusion, confusion), truth, atol=1e-12)


def test_projection_is_the_nearest_point_of_the_simplex():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 4))
    projected = project_to_simplex(points)
    np.testing.assert_allclose(projected.sum(axis=1), 1)
    assert (projected >= 0).all()
    # The nearest point p of a convex set has (x - p) . (q - p) <= 0 for every q in it; corners suffice.
    slack = (points - projected)[:, None, :] * (np.eye(4)[None] - projected[:, None, :])
    assert (slack.sum(axis=2) <= 1e-12).all()


def test_intervals_cover_with_both_uncertainties():
    rng, truth = np.random.default_rng(2), np.array([0.7, 0.3])
    confusion = np.array([[0.93, 0.07], [0.12, 0.88]])
    hits = 0
    for world in range(300):
        labelled = np.stack([rng.multinomial(200, row) for row in confusion])
        counts = rng.multinomial(1000, truth @ confusion)
        hits += corrected_shares(counts, labelled, resamples=400, seed=world)[0].contains(0.7)
    assert 0.91 <= hits / 300 <= 0.99


def test_little_labelled_data_widens_the_interval():
    def width(n):
        share = corrected_shares([600, 400], [[9 * n, n], [n, 9 * n]])[0]
        return share.high - share.low

    assert width(5) > 1.5 * width(500)


def test_a_classifier_no_better_than_chance_is_refused():
    with pytest.raises(DataError, match="chance"):
        invert_confusion([0.5, 0.5], [[0.3, 0.7], [0.7, 0.3]])


def test_a_class_without_labelled_samples_is_refused():
    with pytest.raises(TooFewSamplesError, match="class 1"):
        corrected_shares([5, 5], [[9, 1], [0, 0]])


def alarms(truth, confusion, *, labelled, n, held=None, worlds=500):
    """Return in which part of simulated worlds a class is named impossible.

    The table is measured with `confusion`, and the samples are read with `held`, by default the same.
    """
    rng, found = np.random.default_rng(3), 0
    for world in range(worlds):
        table = np.stack([rng.multinomial(labelled, row) for row in confusion])
        counts = rng.multinomial(n, np.asarray(truth) @ (confusion if held is None else held))
        found += bool(impossible_classes(counts, table, resamples=400, seed=world))
    return found / worlds


def symmetric(classes, error):
    """Return the confusion of a classifier with the same error, spread over the other classes, on each class."""
    others = np.ones((classes, classes)) - np.eye(classes)
    return (1 - error) * np.eye(classes) + error / (classes - 1) * others


@pytest.mark.parametrize("truth", [(0, 1), (0.03, 0.97), (0.5, 0.5)])
@pytest.mark.parametrize(("labelled", "n"), [(200, 500), (30, 4000)])
def test_no_class_is_impossible_where_the_table_holds(truth, labelled, n):
    assert alarms(truth, symmetric(2, 0.15), labelled=labelled, n=n) <= 0.05


@pytest.mark.parametrize("error", [0, 0.002, 0.1])
@pytest.mark.parametrize(("labelled", "n"), [(200, 500), (50, 10000)])
def test_the_level_is_that_of_all_classes_together(error, labelled, n):
    """Also where there are hardly any errors, of which Jeffreys' prior would assume half a one in every cell."""
    truth = (0, 0, 0, 0, 0.2, 0.3, 0.5)
    assert alarms(truth, symmetric(7, error), labelled=labelled, n=n) <= 0.05


@pytest.mark.parametrize("truth", [(0, 1), (0.03, 0.97)])
def test_a_table_that_does_not_hold_is_told(truth):
    """The table says that 15 % of the second class are taken for the first; of the samples it is 2 %."""
    held = np.array([[0.85, 0.15], [0.02, 0.98]])
    assert alarms(truth, symmetric(2, 0.15), held=held, labelled=500, n=500) >= 0.95


def test_impossible_classes_are_those_whose_unprojected_shares_lie_outside():
    table = [[90, 10, 0], [0, 90, 10], [10, 0, 90]]
    assert impossible_classes([300, 300, 300], table) == []
    assert impossible_classes([10, 500, 490], [[900, 50, 50], [100, 800, 100], [100, 100, 800]]) == [0]
    assert impossible_classes([20, 980], [[180, 20], [30, 170]]) == [0, 1]
    assert impossible_classes([2, 98], [[18, 2], [3, 17]]) == []


def test_the_same_seed_names_the_same_classes_and_all_classes_are_kept_in_order():
    counts, table = [4, 700, 296], 100 * np.eye(3, dtype=int) + 20
    once = impossible_classes(counts, table, seed=1)
    assert once == impossible_classes(counts, table, seed=1) == [0]
    assert impossible_classes(counts[::-1], table[::-1, ::-1]) == [2]


def test_confidence_decides_how_sure_it_takes():
    counts, table = [30, 470], [[170, 30], [20, 180]]
    assert impossible_classes(counts, table, confidence=0.8) == [0, 1]
    assert impossible_classes(counts, table, confidence=0.9999) == []


def test_impossible_classes_need_a_table_that_can_be_inverted():
    with pytest.raises(DataError, match="no better than chance"):
        impossible_classes([50, 50], [[3, 7], [7, 3]])
    with pytest.raises(TooFewSamplesError, match="class 1"):
        impossible_classes([5, 5], [[9, 1], [0, 0]])
    with pytest.raises(DataError, match="expected a confusion table for 3 classes"):
        impossible_classes([5, 5, 5], [[9, 1], [1, 9]])


def test_a_table_that_is_barely_better_than_chance_makes_nothing_impossible():
    """Many of its draws cannot be inverted, and such a draw explains everything."""
    assert impossible_classes([0, 500], [[6, 4], [4, 6]]) == []


def test_a_small_table_of_a_weak_classifier_gives_a_wide_interval_and_no_refusal():
    """Some draws of its posterior are no better than chance; what is answered must not hang on how many are drawn."""
    table = [[14, 6], [6, 14]]
    few, many = (corrected_shares([900, 1100], table, resamples=n)[0] for n in (200, 4000))
    assert few.low < 0.1
    assert few.high > 0.7
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.1)
    with pytest.raises(DataError, match="no better than chance"):
        corrected_shares([900, 1100], [[10, 10], [10, 10]])
    nearly = corrected_shares([900, 1100], [[11, 9], [9, 11]])[0]
    assert (nearly.low, nearly.high) == (0, 1)

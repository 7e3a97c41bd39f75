import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.correction import cleam, cleam_interval, corrected_shares, invert_confusion, project_to_simplex

ACCURACIES = (0.9471627486437613, 0.9829294755877035)


def test_published_correction():
    assert cleam(0.610, ACCURACIES) == pytest.approx(0.6375, abs=5e-5)


def test_interval_is_mapped_like_the_share():
    interval = cleam_interval(0.610, 0.02, 30, ACCURACIES)
    half = 1.959964 * 0.02 / 30**0.5
    assert interval.low == pytest.approx(cleam(0.610 - half, ACCURACIES), abs=1e-8)
    assert interval.high == pytest.approx(cleam(0.610 + half, ACCURACIES), abs=1e-8)


def test_inversion_is_the_two_class_form_and_undoes_any_confusion():
    a0, a1 = ACCURACIES
    matrix = np.array([[a0, 1 - a0], [1 - a1, a1]])
    assert invert_confusion([0.61, 0.39], matrix)[0] == pytest.approx(cleam(0.61, ACCURACIES))
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
    with pytest.raises(DataError, match="more than 1"):
        cleam(0.5, (0.4, 0.6))
    with pytest.raises(DataError, match="chance"):
        invert_confusion([0.5, 0.5], [[0.3, 0.7], [0.7, 0.3]])


def test_a_class_without_labelled_samples_is_refused():
    with pytest.raises(TooFewSamplesError, match="class 1"):
        corrected_shares([5, 5], [[9, 1], [0, 0]])

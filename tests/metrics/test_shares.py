"""Shares: counts, intersections, intervals, and whether two samplers differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.shares import (
    class_counts,
    compare_shares,
    homogeneity,
    joint_labels,
    joint_table,
    share_difference,
    share_estimates,
    shares,
    simultaneous_differences,
    simultaneous_estimates,
    soft_share_estimates,
    wilson,
)


@pytest.mark.parametrize(("count", "n"), [(0, 20), (20, 20), (1, 20), (13, 50), (500, 4096)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(count, n, confidence):
    ours = wilson(count, n, confidence)
    theirs = stats.binomtest(count, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == count / n


def test_newcombe_difference_of_his_paper():
    # Newcombe 1998, table II, case a: 56/70 against 48/80, method 10.
    difference = share_difference(wilson(56, 70), wilson(48, 80))
    assert difference.value == pytest.approx(0.2)
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_comparison_is_newcombes_with_the_p_value_of_the_chi_square():
    first, second = compare_shares([56, 14], [48, 32])
    assert (first.low, first.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    chi_square = stats.chi2_contingency([[56, 14], [48, 32]], correction=False)
    assert first.p_value == pytest.approx(chi_square.pvalue)
    assert second.p_value == pytest.approx(first.p_value)
    assert second.value == pytest.approx(-first.value)
    assert [each.p_value for each in compare_shares([9, 0], [7, 0])] == [1.0, 1.0]


def test_homogeneity_agrees_with_the_chi_square_test_where_that_holds():
    a, b = [300, 420, 280], [340, 380, 280]
    exact = stats.chi2_contingency([a, b], correction=False).pvalue
    assert homogeneity(a, b, resamples=20_000) == pytest.approx(exact, abs=0.01)
    assert homogeneity([0, 5], [5, 0], resamples=4000) == pytest.approx(2 / 252, abs=0.005)  # two tables of C(10, 5)
    assert homogeneity([10, 0], [12, 0]) == 1.0


def test_homogeneity_rejects_as_often_as_it_says():
    rng = np.random.default_rng(2)
    pairs = [(rng.multinomial(60, [0.6, 0.3, 0.1]), rng.multinomial(40, [0.6, 0.3, 0.1])) for _ in range(500)]
    rejected = np.mean([homogeneity(a, b, resamples=200, seed=i) <= 0.05 for i, (a, b) in enumerate(pairs)])
    assert rejected == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("compare", [compare_shares, homogeneity])
def test_other_classes_do_not_compare(compare):
    with pytest.raises(DataError, match="got 2 and 3"):
        compare([1, 2], [1, 2, 3])


def test_soft_shares_of_certain_labels_are_wilson():
    labels = np.repeat(np.eye(3), [5, 15, 20], axis=0)
    for soft, hard in zip(soft_share_estimates(labels), share_estimates([5, 15, 20]), strict=True):
        assert (soft.value, soft.low, soft.high) == pytest.approx((hard.value, hard.low, hard.high))


def test_soft_shares_of_equal_rows_are_known_exactly():
    (first, second) = soft_share_estimates(np.full((50, 2), 0.5))
    assert (first.low, first.value, first.high) == pytest.approx((0.5, 0.5, 0.5))
    assert second.value == 0.5


@pytest.mark.parametrize("rows", [[[0.5, 0.4]] * 5, [[1.5, -0.5]] * 5, [0.5, 0.5], [[np.nan, 1.0]] * 5])
def test_wrong_probabilities_are_refused(rows):
    with pytest.raises(DataError, match="expected probabilit"):
        soft_share_estimates(rows)


def test_joint_table_counts_every_combination():
    hair, glasses = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 2, 2, 0])
    table = joint_table([hair, glasses], [2, 3])
    np.testing.assert_array_equal(table, [[1, 0, 1], [1, 0, 2]])
    np.testing.assert_array_equal(table.sum(axis=1), class_counts(hair, 2))
    np.testing.assert_array_equal(joint_labels([hair, glasses], [2, 3]), [0, 2, 5, 5, 3])


def test_shares_count_empty_classes():
    np.testing.assert_array_equal(shares([0, 2, 2, 0], 4), [0.5, 0, 0.5, 0])


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.5, 1], [[0, 1]]])
def test_wrong_labels_are_refused(labels):
    with pytest.raises(DataError, match="labels must"):
        shares(np.array(labels), 3)


def test_no_labels_are_too_few():
    with pytest.raises(TooFewSamplesError):
        shares([], 3)
    with pytest.raises(TooFewSamplesError):
        wilson(0, 0)
    with pytest.raises(TooFewSamplesError):
        soft_share_estimates([[0.5, 0.5]])


def test_a_class_of_no_probability_has_the_interval_of_one_that_never_occurred():
    rows = np.tile([0.0, 0.3, 0.7], (50, 1)) + np.linspace(-0.1, 0.1, 50)[:, None] * [0, 1, -1]
    assert soft_share_estimates(rows)[0] == wilson(0, 50)
    assert soft_share_estimates(np.tile([1.0, 0.0], (50, 1))) == [wilson(50, 50), wilson(0, 50)]


@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("tilted", [False, True], ids=["uniform", "tilted"])
def test_exact_samples_meet_all_simultaneous_intervals_as_often_as_said(k, tilted):
    """So the stopping rule passes a perfect flow at the confidence level, whatever the number of classes."""
    target = np.arange(1, k + 1) ** (0.5 if tilted else 0.0)
    target = target / target.sum()
    counts = np.random.default_rng(k).multinomial(2048, target, size=1500)

    def coverage(estimates):
        hits = [
            all(each.low <= share <= each.high for each, share in zip(estimates(row), target, strict=True))
            for row in counts
        ]
        return np.mean(hits)

    assert 0.935 <= coverage(simultaneous_estimates) <= 0.98
    if k == 9:
        assert coverage(share_estimates) < 0.75  # one by one, they do not hold together
    if k == 2:
        assert [each.low for each in simultaneous_estimates([5, 15])] == [each.low for each in share_estimates([5, 15])]


@pytest.mark.parametrize("k", [2, 6])
@pytest.mark.parametrize("samples", [200, 2000])
def test_exact_samples_meet_a_counted_target_as_often_as_said(k, samples):
    """The interval of a share alone, which takes a counted target for exact, would seldom contain it."""
    shares = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    rng = np.random.default_rng(10 * samples + k)
    counts, targets = rng.multinomial(2048, shares, size=1500), rng.multinomial(samples, shares, size=1500) / samples

    hits = [
        all(difference.low <= 0 <= difference.high for difference in simultaneous_differences(row, target, samples))
        for row, target in zip(counts, targets, strict=True)
    ]
    alone = [
        all(each.low <= goal <= each.high for each, goal in zip(simultaneous_estimates(row), target, strict=True))
        for row, target in zip(counts, targets, strict=True)
    ]
    assert 0.935 <= np.mean(hits) <= 0.98
    assert np.mean(alone) < (0.5 if samples == 200 else 0.87)


def test_a_target_of_very_many_samples_is_as_exact_as_one_that_is_wanted():
    counts, target = [334, 333, 333], [0.3, 0.34, 0.36]
    for difference, share, goal in zip(
        simultaneous_differences(counts, target, samples=1e12), simultaneous_estimates(counts), target, strict=True
    ):
        assert (difference.low, difference.high) == pytest.approx((share.low - goal, share.high - goal), abs=1e-6)

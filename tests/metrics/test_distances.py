"""Distances to wanted shares: known answers, intervals at the edges, what chance alone shows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.distances import (
    discrepancy,
    distance_difference,
    distance_interval,
    kl_to_target,
    noise_floor,
    noise_floor_kl,
    soft_distance_interval,
    total_variation,
)

UNIFORM = np.array([0.5, 0.5])
ALL = [kl_to_target, total_variation, discrepancy]


def uniform(k):
    return np.full(k, 1 / k)


@pytest.mark.parametrize(("k", "log_k"), [(2, 0.6931472), (7, 1.9459101), (9, 2.1972246)])
def test_all_in_one_class_is_log_k(k, log_k):
    assert float(kl_to_target(np.eye(k)[0], uniform(k))) == pytest.approx(log_k, abs=1e-7)


def test_kl_agrees_with_scipy_on_any_shares():
    rng = np.random.default_rng(0)
    s, mu = rng.dirichlet(np.ones(5), size=20), rng.dirichlet(np.ones(5))
    np.testing.assert_allclose(kl_to_target(s, mu), [stats.entropy(row, mu) for row in s], rtol=1e-12)


def test_distances_on_a_hand_example():
    s, mu = [0.7, 0.2, 0.1], [0.5, 0.25, 0.25]
    assert float(total_variation(s, mu)) == pytest.approx(0.2)
    assert float(discrepancy(s, mu)) == pytest.approx(math.sqrt(0.04 + 0.0025 + 0.0225))


@pytest.mark.parametrize("distance", ALL)
def test_distances_vanish_at_the_target_and_work_over_leading_axes(distance):
    mu = np.array([0.2, 0.3, 0.5])
    assert distance(np.broadcast_to(mu, (4, 2, 3)), mu).shape == (4, 2)
    assert float(distance(mu, mu)) == 0


def test_a_class_that_is_not_wanted_at_all_is_infinitely_far():
    assert float(kl_to_target([0.5, 0.5], [1.0, 0.0])) == math.inf
    assert float(kl_to_target([1.0, 0.0], [1.0, 0.0])) == 0


@pytest.mark.parametrize("distance", ALL)
def test_interval_at_exactly_the_target_starts_at_zero_and_has_a_width(distance):
    interval = distance_interval([500, 500], UNIFORM, distance)
    assert (interval.value, interval.low) == (0, 0)
    assert 0 < interval.high < 0.05


def test_interval_of_an_empty_class_is_finite():
    interval = distance_interval([100, 0], UNIFORM)
    assert interval.value == interval.high == pytest.approx(math.log(2))
    # Shares of which 100 samples show one class alone in 1 of 40 cases: 1 - 0.025 ** (1 / 100) of the other.
    rare = 1 - 0.025**0.01
    assert interval.low == pytest.approx(float(kl_to_target([1 - rare, rare], UNIFORM)), abs=0.02)


@pytest.mark.parametrize("distance", ALL)
def test_two_classes_far_from_the_target_have_the_interval_of_the_share(distance):
    """With two classes every distance is a monotone function of the larger share, and so are the interval's ends."""
    interval = distance_interval([1600, 400], UNIFORM, distance, resamples=4000)
    share = stats.binomtest(1600, 2000).proportion_ci(method="exact")
    ends = [float(distance([edge, 1 - edge], UNIFORM)) for edge in (share.low, share.high)]
    assert (interval.low, interval.high) == pytest.approx(ends, rel=0.05)


def test_intervals_narrow_with_samples():
    widths = [distance_interval(np.array([70, 30]) * n, UNIFORM) for n in (1, 4, 16)]
    ratios = [(a.high - a.low) / (b.high - b.low) for a, b in itertools.pairwise(widths)]
    assert ratios == pytest.approx([2, 2], rel=0.15)


def test_soft_interval_of_certain_labels_is_that_of_the_counts():
    soft = soft_distance_interval(np.repeat(np.eye(3), [600, 900, 500], axis=0), uniform(3))
    hard = distance_interval([600, 900, 500], uniform(3))
    assert soft.value == pytest.approx(hard.value)
    assert (soft.low, soft.high) == pytest.approx((hard.low, hard.high), rel=0.1)


def test_soft_interval_of_unsure_rows_is_narrower():
    unsure = 0.5 + 0.2 * (np.repeat(np.eye(2), [600, 400], axis=0) - 0.5)
    soft = soft_distance_interval(unsure, UNIFORM, total_variation)
    hard = distance_interval([520, 480], UNIFORM, total_variation)
    assert soft.value == pytest.approx(hard.value)
    assert soft.high - soft.low < 0.5 * (hard.high - hard.low)


@pytest.mark.parametrize("distance", ALL)
def test_noise_floor_is_what_samples_of_the_target_show(distance):
    counts = np.random.default_rng(3).multinomial(2000, uniform(7), size=4000)
    expected = distance(counts / 2000, uniform(7)).mean()
    assert noise_floor(uniform(7), 2000, distance) == pytest.approx(expected, rel=0.05)
    if distance is kl_to_target:
        assert noise_floor_kl(7, 2000) == pytest.approx(expected, rel=0.05)


def test_difference_of_two_samplers_separates_what_differs():
    far = distance_difference([800, 200], [600, 400], UNIFORM)
    assert far.low > 0
    assert far.p_value < 0.005
    same = distance_difference([610, 390], [600, 400], UNIFORM)
    assert same.contains(0)
    assert same.p_value > 0.2


def test_p_value_agrees_with_the_interval():
    rng = np.random.default_rng(8)
    for seed in range(60):
        a, b = rng.multinomial(300, [0.7, 0.3]), rng.multinomial(300, [0.62, 0.38])
        found = distance_difference(a, b, UNIFORM, resamples=2000, seed=seed)
        if not 0.04 < found.p_value < 0.06:
            assert found.contains(0) == (found.p_value > 0.05)


@pytest.mark.parametrize("target", [[1.0, 0.0], [0.5, 0.6], [0.5, 0.25, 0.25]])
def test_wrong_targets_are_refused(target):
    with pytest.raises(DataError):
        distance_interval([5, 5], target)


def test_too_few_samples_are_refused():
    with pytest.raises(TooFewSamplesError):
        distance_interval([0, 0], UNIFORM)
    with pytest.raises(TooFewSamplesError):
        soft_distance_interval([[0.5, 0.5]], UNIFORM)
    with pytest.raises(TooFewSamplesError):
        noise_floor_kl(2, 0)

import math

import numpy as np
import pytest
from scipy import stats

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.bias import (
    bootstrap_difference,
    bootstrap_interval,
    class_counts,
    contains_target,
    discrepancy,
    joint_labels,
    joint_table,
    kl_to_target,
    measure_bias,
    noise_floor_kl,
    share_difference,
    share_estimates,
    shares,
    total_variation,
    wilson,
)

UNIFORM = np.array([0.5, 0.5])
WORLDS = 500


def uniform(k):
    return np.full(k, 1 / k)


@pytest.mark.parametrize(("k", "log_k"), [(2, 0.6931472), (7, 1.9459101), (9, 2.1972246)])
def test_all_in_one_class_is_log_k(k, log_k):
    assert float(kl_to_target(np.eye(k)[0], uniform(k))) == pytest.approx(log_k, abs=1e-7)


@pytest.mark.parametrize(
    ("counts", "kl"),
    [((21101, 17144), 0.0053620), ((17485, 19930), 0.0021367), ((656104, 572857), 0.0022960)],
    ids=["generated", "edited", "laion"],
)
def test_published_pooled_counts(counts, kl):
    # Counts of the Fair-Diffusion repository (Friedrich et al. 2023), pooled over 153 occupations.
    assert measure_bias(counts, UNIFORM).kl.value == pytest.approx(kl, abs=5e-8)


def test_kl_agrees_with_scipy_on_any_shares():
    rng = np.random.default_rng(0)
    s, mu = rng.dirichlet(np.ones(5), size=20), rng.dirichlet(np.ones(5))
    np.testing.assert_allclose(kl_to_target(s, mu), [stats.entropy(row, mu) for row in s], rtol=1e-12)


def test_distances_on_a_hand_example():
    s, mu = [0.7, 0.2, 0.1], [0.5, 0.25, 0.25]
    assert float(total_variation(s, mu)) == pytest.approx(0.2)
    assert float(discrepancy(s, mu)) == pytest.approx(math.sqrt(0.04 + 0.0025 + 0.0225))


@pytest.mark.parametrize("distance", [kl_to_target, total_variation, discrepancy])
def test_distances_vanish_at_the_target_and_work_over_leading_axes(distance):
    mu = np.array([0.2, 0.3, 0.5])
    assert distance(np.broadcast_to(mu, (4, 2, 3)), mu).shape == (4, 2)
    assert float(distance(mu, mu)) == 0


def test_a_class_that_is_not_wanted_at_all_is_infinitely_far():
    assert float(kl_to_target([0.5, 0.5], [1.0, 0.0])) == math.inf
    assert float(kl_to_target([1.0, 0.0], [1.0, 0.0])) == 0


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


def covered(truth, target, n, distance=kl_to_target):
    """Share of simulated worlds whose interval contains the true distance."""
    worlds = np.random.default_rng(7).multinomial(n, truth, size=WORLDS)
    expected = float(distance(truth, target))
    intervals = [bootstrap_interval(counts, target, distance, resamples=300, seed=i) for i, counts in enumerate(worlds)]
    assert all(interval.low <= interval.value <= interval.high for interval in intervals)
    return np.mean([interval.contains(expected) for interval in intervals])


@pytest.mark.parametrize("share", [0.02, 0.19, 0.5])
def test_wilson_covers_the_true_share(share):
    counts = np.random.default_rng(1).binomial(1024, share, size=WORLDS)
    hits = sum(wilson(count, 1024).contains(share) for count in counts)
    # 500 worlds at 95 %: 4.9 standard deviations are 24 worlds.
    assert 451 <= hits <= 498


@pytest.mark.parametrize("truth", [[0.5, 0.5], [0.55, 0.45], [0.8, 0.2]], ids=["at target", "near", "far"])
@pytest.mark.parametrize("distance", [kl_to_target, total_variation])
def test_bootstrap_interval_covers_the_true_distance(truth, distance):
    assert covered(np.array(truth), UNIFORM, 1024, distance) >= 0.9


def test_bootstrap_interval_covers_with_many_classes():
    tilted = np.exp(np.linspace(0.3, -0.3, 7))
    assert covered(uniform(7), uniform(7), 2048) >= 0.9
    assert covered(tilted / tilted.sum(), uniform(7), 2048) >= 0.9


def test_interval_at_exactly_the_target_starts_at_zero_and_has_a_width():
    interval = bootstrap_interval([500, 500], UNIFORM)
    assert (interval.value, interval.low) == (0, 0)
    assert 0 < interval.high < 0.01


def test_interval_of_an_empty_class_is_finite():
    interval = bootstrap_interval([100, 0], UNIFORM)
    assert interval.value == pytest.approx(math.log(2))
    assert math.isfinite(interval.low)
    assert math.isfinite(interval.high)


def test_noise_floor_is_what_samples_of_the_target_show():
    counts = np.random.default_rng(3).multinomial(2000, uniform(7), size=4000)
    assert kl_to_target(counts / 2000, uniform(7)).mean() == pytest.approx(noise_floor_kl(7, 2000), rel=0.05)


def test_joint_table_counts_every_combination():
    hair, glasses = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 2, 2, 0])
    table = joint_table([hair, glasses], [2, 3])
    np.testing.assert_array_equal(table, [[1, 0, 1], [1, 0, 2]])
    np.testing.assert_array_equal(table.sum(axis=1), class_counts(hair, 2))
    np.testing.assert_array_equal(joint_labels([hair, glasses], [2, 3]), [0, 2, 5, 5, 3])


def test_joint_bias_sees_what_the_marginals_hide():
    hair, glasses = np.repeat([0, 1], 500), np.repeat([0, 1], 500)
    assert measure_bias(class_counts(hair, 2), UNIFORM).kl.value == 0
    joint = measure_bias(joint_table([hair, glasses], [2, 2]).ravel(), uniform(4))
    assert joint.kl.value == pytest.approx(math.log(2))
    assert not joint.contains_target


def test_decision_needs_every_share():
    estimates = share_estimates([334, 333, 333])
    assert contains_target(estimates, uniform(3))
    assert not contains_target(estimates, [0.33, 0.17, 0.5])


def test_difference_of_two_samplers_covers_and_separates():
    rng = np.random.default_rng(5)
    a, b = np.array([0.8, 0.2]), np.array([0.6, 0.4])
    truth = float(kl_to_target(a, UNIFORM) - kl_to_target(b, UNIFORM))
    found = [
        bootstrap_difference(rng.multinomial(1024, a), rng.multinomial(1024, b), UNIFORM, resamples=300, seed=world)
        for world in range(WORLDS)
    ]
    assert 0.9 <= np.mean([difference.contains(truth) for difference in found]) <= 0.99
    assert all(difference.low > 0 for difference in found)


def test_figures_follow_the_seed():
    assert measure_bias([700, 300], UNIFORM, seed=1) == measure_bias([700, 300], UNIFORM, seed=1)
    assert measure_bias([700, 300], UNIFORM, seed=1).kl != measure_bias([700, 300], UNIFORM, seed=2).kl


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


@pytest.mark.parametrize("target", [[1.0, 0.0], [0.5, 0.6], [0.5, 0.25, 0.25]])
def test_wrong_targets_are_refused(target):
    with pytest.raises(DataError):
        measure_bias([5, 5], target)

import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, check_counts, quantiles, resample_shares


def test_estimate_as_dict_and_contains():
    estimate = Estimate(0.5, 0.4, 0.7)
    assert estimate.as_dict() == {"value": 0.5, "low": 0.4, "high": 0.7}
    assert estimate.contains(0.4)
    assert estimate.contains(0.7)
    assert not estimate.contains(0.71)


def test_resampled_shares_have_the_mean_and_variance_of_a_multinomial():
    counts = np.array([60, 30, 10, 0])
    drawn = resample_shares(counts, 20_000, 0, "a")
    p = counts / 100
    np.testing.assert_allclose(drawn.mean(axis=0), p, atol=2e-3)
    np.testing.assert_allclose(drawn.var(axis=0), p * (1 - p) / 100, rtol=0.05)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)


def test_resamples_follow_the_seed_and_the_name_alone():
    counts = np.array([5, 5])
    first = resample_shares(counts, 10, 1, "a")
    np.testing.assert_array_equal(first, resample_shares(counts, 10, 1, "a"))
    assert (first != resample_shares(counts, 10, 1, "b")).any()
    assert (first != resample_shares(counts, 10, 2, "a")).any()


def test_quantiles_cut_equal_tails():
    low, high = quantiles(np.arange(1001.0), 0.9)
    assert (low, high) == pytest.approx((50, 950))


@pytest.mark.parametrize("counts", [[1, -1], [0.5, 1], [[1, 2]], [np.nan, 1]])
def test_bad_counts_are_refused(counts):
    with pytest.raises(DataError, match="whole numbers"):
        check_counts(counts)


def test_no_samples_are_too_few():
    with pytest.raises(TooFewSamplesError):
        check_counts([0, 0])

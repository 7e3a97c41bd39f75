"""Identity figures: known distances, pairs that share no noise, intervals that cover, what is refused."""

import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.identity import identity_between, identity_distances, identity_within


def directions(degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def random_unit(n, seed=0, dim=16):
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_distances_are_those_of_the_publication():
    first, second = directions([0, 0, 0, 0]), directions([0, 60, 90, 180])
    np.testing.assert_allclose(identity_distances(first, second), [0, 1, np.sqrt(2), 2], atol=1e-12)
    cosines = (random_unit(9) * random_unit(9, 1)).sum(axis=1)
    np.testing.assert_allclose(identity_distances(random_unit(9), random_unit(9, 1)), np.sqrt(2 * (1 - cosines)))


def test_half_precision_loses_nothing_to_speak_of():
    a, b = random_unit(20), random_unit(20, 1)
    np.testing.assert_allclose(identity_distances(a.astype(np.float16), b), identity_distances(a, b), atol=1e-3)


def test_within_pairs_views_and_between_pairs_neighbours():
    first, second = directions([0, 60, 0, 90, 7]), directions([60, 60, 90, 90, 7])
    assert identity_within(first, second).value == pytest.approx((1 + 0 + np.sqrt(2)) / 5)
    assert identity_between(first).value == pytest.approx((1 + np.sqrt(2)) / 2)
    assert identity_between(first, second).value == pytest.approx((1 + np.sqrt(2) + 0 + 0) / 4)


def test_two_views_of_the_same_pairs_make_the_interval_no_narrower():
    e = random_unit(200)
    one, twice = identity_between(e, seed=4), identity_between(e, e, seed=4)
    assert (one.low, one.high) == pytest.approx((twice.low, twice.high))


def test_intervals_cover_the_mean():
    truth = identity_between(random_unit(200_000, 99)).value
    covered = sum(
        identity_between(random_unit(100, seed), resamples=200, seed=seed).contains(truth) for seed in range(60)
    )
    assert 50 <= covered <= 60


def test_impossible_pairs_are_refused():
    with pytest.raises(DataError, match=r"\(2, 16\).*\(3, 16\)"):
        identity_distances(random_unit(2), random_unit(3))
    with pytest.raises(DataError, match="unit vectors"):
        identity_distances(2 * random_unit(2), random_unit(2))
    with pytest.raises(TooFewSamplesError):
        identity_between(random_unit(1))

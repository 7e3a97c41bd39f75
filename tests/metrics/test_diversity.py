import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.diversity import PairwiseDistance, pairwise_distance


def unit(rng, n, e, drift=0.0):
    vectors = rng.normal(size=(n, e))
    vectors[:, 0] += drift
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equals_the_mean_over_all_pairs():
    vectors = unit(np.random.default_rng(0), 40, 8, drift=1.0)
    pairs = (1 - vectors @ vectors.T)[~np.eye(40, dtype=bool)]
    assert pairwise_distance(vectors).value == pytest.approx(pairs.mean(), abs=1e-13)


def test_known_answers():
    assert pairwise_distance(np.tile([1.0, 0.0], (5, 1))).value == pytest.approx(0)
    assert pairwise_distance(np.eye(4)).value == pytest.approx(1)
    assert pairwise_distance([[1.0, 0.0], [-1.0, 0.0]]).value == pytest.approx(2)


def test_batches_do_not_matter():
    vectors = unit(np.random.default_rng(1), 100, 6)
    streaming = PairwiseDistance(resamples=50, seed=3)
    for batch in np.split(vectors, [7, 8, 64]):
        streaming.update(batch)
    whole = pairwise_distance(vectors, resamples=50, seed=3)
    assert streaming.compute().as_dict() == pytest.approx(whole.as_dict(), abs=1e-13)


def test_interval_covers_the_true_mean():
    # E[e_i . e_j] = |E[e]|^2 for independent samples.
    rng = np.random.default_rng(2)
    truth = 1 - np.square(unit(rng, 400_000, 4, drift=1.0).mean(axis=0)).sum()
    found = [pairwise_distance(unit(rng, 200, 4, drift=1.0), resamples=300, seed=world) for world in range(300)]
    assert 0.9 <= np.mean([estimate.contains(truth) for estimate in found]) <= 0.99


def test_half_precision_is_enough():
    vectors = unit(np.random.default_rng(4), 200, 64)
    half = pairwise_distance(vectors.astype(np.float16)).value
    assert half == pytest.approx(pairwise_distance(vectors).value, abs=1e-4)


def test_errors():
    with pytest.raises(TooFewSamplesError, match="at least 2"):
        pairwise_distance(np.eye(3)[:1])
    with pytest.raises(DataError, match="unit vectors"):
        pairwise_distance(2 * np.eye(3))
    with pytest.raises(DataError, match="finite"):
        pairwise_distance([[np.nan, 0.0]])
    distance = PairwiseDistance()
    distance.update(np.eye(3))
    with pytest.raises(DataError, match="earlier"):
        distance.update(np.eye(4))

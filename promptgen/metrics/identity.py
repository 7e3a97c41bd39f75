"""Whether a condition leaves alone who is shown: how far apart two embeddings of faces lie.

The distance of unit vectors is ``sqrt(2 (1 - cos)) = |e_1 - e_2|``, in [0, 2]. *Within* is the mean distance of two
images of the same noise under two conditions, *between* that of images of different noise: the smaller the first is
against the second, the better an identity outlasts its condition.

Wu, Motamed, Srivastava, De la Torre, "Generative Visual Prompt", NeurIPS 2022, https://arxiv.org/abs/2209.06970
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from promptgen.errors import DataError
from promptgen.metrics.diversity import unit_vectors
from promptgen.metrics.estimate import Estimate, Vector, mean_interval
from promptgen.metrics.sizes import PAIRS as PAIRS


def identity_distances(first: ArrayLike, second: ArrayLike) -> Vector:
    """Return the distance, (N,), of each pair of unit vectors, both (N, E).

    Raises:
        DataError: they are not unit vectors of the same shape.
    """
    a, b = unit_vectors(first), unit_vectors(second)
    if a.shape != b.shape:
        raise DataError(f"pairs of embeddings must be of one shape, got {a.shape} and {b.shape}")
    return np.asarray(np.linalg.norm(a - b, axis=1))


def identity_within(
    first: ArrayLike, second: ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the mean distance of images of the same noise under two conditions, with a bootstrap interval.

    Args:
        first: unit embeddings, (N, E), under one condition each.
        second: those of the same noise under another.
        resamples: number of bootstrap resamples.
        confidence: probability that the interval covers the true mean.
        seed: seed of the bootstrap.

    Raises:
        DataError: they are not unit vectors of the same shape.
        TooFewSamplesError: there are none.
    """
    distances = identity_distances(first, second)
    return mean_interval(distances, resamples=resamples, confidence=confidence, seed=seed, name="identity within")


def identity_between(*views: ArrayLike, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Return the mean distance of images of different noise, with a bootstrap interval.

    Samples 1 and 2 make a pair, 3 and 4 the next: no noise is in two pairs of one view, so that pairs are independent.
    The pairs of two views that share their noise are averaged before they are resampled.

    Args:
        views: unit embeddings, each (N, E), of the same N noises, each under conditions of its own.
        resamples: number of bootstrap resamples.
        confidence: probability that the interval covers the true mean.
        seed: seed of the bootstrap.

    Raises:
        DataError: they are not unit vectors of the same shape.
        TooFewSamplesError: there are fewer than two samples.
    """
    units = [unit_vectors(view) for view in views]
    even = len(units[0]) // 2 * 2
    distances = np.mean([identity_distances(unit[0:even:2], unit[1:even:2]) for unit in units], axis=0)
    return mean_interval(distances, resamples=resamples, confidence=confidence, seed=seed, name="identity between")

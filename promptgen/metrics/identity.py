"""Whether a condition preserves the identity: distances between embeddings of faces.

The distance of unit vectors is ``sqrt(2 (1 - cos)) = |e_1 - e_2|``, in [0, 2]. *Within* is the mean distance between
two images of the same noise under two conditions, *between* the mean distance between images of different noise. The
smaller *within* is relative to *between*, the better the identity is preserved.

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
    """Return the distances, (N,), between the rows of `first` and `second`, unit vectors (N, E).

    Raises:
        DataError: they are not unit vectors of the same shape.

    Example:
        >>> identity_distances([[1.0, 0.0]], [[-1.0, 0.0]]).tolist()
        [2.0]
    """
    a, b = unit_vectors(first), unit_vectors(second)
    if a.shape != b.shape:
        raise DataError(f"pairs of embeddings must have the same shape, got {a.shape} and {b.shape}")
    return np.asarray(np.linalg.norm(a - b, axis=1))


def identity_within(
    first: ArrayLike, second: ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the mean distance between images of the same noise under two conditions, with a bootstrap interval.

    Args:
        first: unit embeddings, (N, E), of images under a first condition.
        second: unit embeddings, (N, E), of images of the same noise under a second condition.
        resamples: number of bootstrap resamples.
        confidence: coverage probability of the interval.
        seed: seed of the bootstrap.

    Raises:
        DataError: they are not unit vectors of the same shape.
        TooFewSamplesError: there are no samples.
    """
    distances = identity_distances(first, second)
    return mean_interval(distances, resamples=resamples, confidence=confidence, seed=seed, name="identity within")


def identity_between(*views: ArrayLike, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Return the mean distance between images of different noise, with a bootstrap interval.

    Samples 1 and 2 form a pair, 3 and 4 the next, and so on, so the pairs of one view are independent. Pairs of
    several views that share their noise are averaged before they are resampled.

    Args:
        views: unit embeddings, each (N, E), of the same N noise vectors under different conditions.
        resamples: number of bootstrap resamples.
        confidence: coverage probability of the interval.
        seed: seed of the bootstrap.

    Raises:
        DataError: they are not unit vectors of the same shape.
        TooFewSamplesError: there are fewer than two samples.
    """
    units = [unit_vectors(view) for view in views]
    even = len(units[0]) // 2 * 2
    distances = np.mean([identity_distances(unit[0:even:2], unit[1:even:2]) for unit in units], axis=0)
    return mean_interval(distances, resamples=resamples, confidence=confidence, seed=seed, name="identity between")

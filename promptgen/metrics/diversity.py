"""Diversity of samples: the mean distance over all pairs, without forming any pair.

For unit vectors e_i with sum S, the squared length of S sums over every pair, so

    mean over i != j of (1 - e_i . e_j) = 1 - (|S|^2 - N) / (N (N - 1))

exactly, in O(N). A weighted form of this identity gives the bootstrap resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, quantiles, random_stream
from promptgen.metrics.rows import Rows, chunks

DRAWS = 128
"""Samples whose bootstrap weights are drawn at a time."""


class PairwiseDistance:
    """Mean pairwise cosine distance ``1 - e_i . e_j``, in [0, 2], of unit embeddings that arrive in batches.

    Each bootstrap resample gives sample i a Poisson(1) weight w_i and averages over the pairs i != j with weight
    w_i w_j. Only one sum vector per resample is kept, and the result does not depend on how the samples are batched.

    Args:
        resamples: number of bootstrap resamples.
        confidence: coverage probability of the interval.
        seed: seed of the bootstrap weights.

    Example:
        >>> distance = PairwiseDistance(resamples=100)
        >>> distance.update([[1.0, 0.0], [1.0, 0.0]])
        >>> distance.update([[0.0, 1.0]])
        >>> round(distance.compute().value, 4)  # the pairs have distances 0, 1 and 1
        0.6667
    """

    def __init__(self, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> None:
        self.confidence = confidence
        self.n = 0
        self._rng = random_stream(seed, "diversity")
        # Row 0 gives every sample weight 1; the other rows are the resamples.
        self._weights = np.zeros(resamples + 1)
        self._squares = np.zeros(resamples + 1)
        self._sums: Vector = np.zeros((resamples + 1, 0))

    def update(self, embeddings: ArrayLike) -> None:
        """Add unit vectors, (B, E). They are normalised again, so half precision does no harm.

        Raises:
            DataError: not (B, E), not finite, not of length one, or E differs from that of earlier batches.
        """
        unit = unit_vectors(embeddings)
        if self.n == 0:
            self._sums = np.zeros((len(self._weights), unit.shape[1]))
        elif unit.shape[1] != self._sums.shape[1]:
            raise DataError(f"embeddings have {unit.shape[1]} numbers, earlier ones had {self._sums.shape[1]}")
        weights = np.ones((len(unit), len(self._weights)))
        for part in np.array_split(weights[:, 1:], max(len(unit) // DRAWS, 1)):  # less to hold than all at once
            part[:] = self._rng.poisson(1.0, size=part.shape)
        self.n += len(unit)
        self._weights += weights.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", weights, weights)
        self._sums += weights.T @ unit

    def compute(self) -> Estimate:
        """Return the mean distance over all pairs seen so far.

        Raises:
            TooFewSamplesError: there are fewer than two samples.
        """
        if self.n < 2:
            raise TooFewSamplesError(f"a distance between samples needs at least 2 of them, got {self.n}")
        pairs = np.square(self._weights) - self._squares
        likeness = np.square(self._sums).sum(axis=1) - self._squares  # sum over i != j of w_i w_j e_i . e_j
        kept = pairs > 0  # a resample of very few samples may have no pair
        distances = 1 - likeness[kept] / pairs[kept]
        low, high = quantiles(distances[1:], self.confidence)
        return Estimate(float(distances[0]), float(low), float(high))


def pairwise_distance(
    embeddings: Rows | ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the mean pairwise cosine distance of unit vectors (N, E), read in chunks; see `PairwiseDistance`."""
    distance = PairwiseDistance(resamples=resamples, confidence=confidence, seed=seed)
    for _, part in chunks(embeddings):
        distance.update(part)
    return distance.compute()


def unit_vectors(embeddings: ArrayLike) -> NDArray[np.float64]:
    """Return embeddings, (B, E), normalised again, because half precision is not exactly of length one.

    Raises:
        DataError: not (B, E), not finite, or not of length one; the message names the first such sample.
    """
    array = np.asarray(embeddings, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(f"embeddings must be of shape (B, E), got shape {array.shape}")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)  # NaN or infinite if an entry is
    if (wrong := np.flatnonzero(~(np.abs(lengths - 1) <= 0.01))).size:
        raise DataError(
            f"embeddings must be finite unit vectors, got length {lengths[wrong[0], 0]:.3g} for sample {wrong[0]}; "
            "check the identity network"
        )
    return np.asarray(array / lengths)

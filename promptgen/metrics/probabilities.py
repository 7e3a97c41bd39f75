"""Probability vectors of samples: whether they are any, and their moments as they arrive."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from promptgen.errors import DataError
from promptgen.metrics.estimate import Vector
from promptgen.metrics.rows import Rows, chunks


class MeanProbabilities:
    """Number, mean, variances and covariance of probability vectors that arrive in batches; see `check_probabilities`.

    Attributes:
        n: number of samples so far.
        mean: mean probability of each class so far, (K,).

    Example:
        >>> mean = MeanProbabilities.of([[0.5, 0.5], [1.0, 0.0]])
        >>> mean.n, mean.mean.tolist(), mean.variances.tolist()
        (2, [0.75, 0.25], [0.0625, 0.0625])
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean: Vector = np.zeros(0)
        self._squares: Vector = np.zeros(0)
        self._scatter: Vector = np.zeros((0, 0))

    @classmethod
    def of(cls, probabilities: MeanProbabilities | Rows | ArrayLike) -> MeanProbabilities:
        """Return those of probability vectors, (N, K), which are read in chunks."""
        if isinstance(probabilities, MeanProbabilities):
            return probabilities
        mean = cls()
        for _, part in chunks(probabilities):
            mean.update(part)
        return mean

    @property
    def variances(self) -> Vector:
        """Variance of the probability of each class, (K,), with the divisor n."""
        return np.asarray(self._squares / self.n)

    @property
    def covariance(self) -> Vector:
        """Covariance of the probabilities, (K, K), with the divisor n."""
        return np.asarray(self._scatter * (1 / self.n))

    def update(self, probabilities: ArrayLike) -> None:
        """Add probability vectors, (B, K).

        Raises:
            DataError: the rows are not probability vectors, or K differs from that of earlier batches.
        """
        rows = check_probabilities(probabilities, self.n)
        if not self.n:
            k = rows.shape[1]
            self.mean, self._squares, self._scatter = np.zeros(k), np.zeros(k), np.zeros((k, k))
        if rows.shape[1] != len(self.mean):
            raise DataError(f"these samples have {rows.shape[1]} classes, earlier ones had {len(self.mean)}")
        if not len(rows):
            return
        mean, n = rows.mean(axis=0), self.n + len(rows)
        centred, shift, weight = rows - mean, mean - self.mean, self.n * len(rows) / n
        self._squares = self._squares + np.square(centred).sum(axis=0) + weight * np.square(shift)
        self._scatter = self._scatter + centred.T @ centred + weight * np.outer(shift, shift)
        self.mean = self.mean + shift * (len(rows) / n)
        self.n = n


def check_probabilities(probabilities: ArrayLike, first: int = 0) -> Vector:
    """Return probability vectors, (N, K), as float64, each normalised to sum to exactly one.

    Args:
        probabilities: the vectors.
        first: number of the first sample, for errors.

    Raises:
        DataError: the shape is not (N, K), a number is not in [0, 1], or a row does not sum to one; the message names
            the first such row.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError(f"expected probability vectors, (N, K), that sum to 1, got an array of shape {rows.shape}")
    sound = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-2)  # false for NaN
    if not sound.all():
        index = int(np.argmin(sound))
        raise DataError(
            f"expected probabilities of 0 or more that sum to 1, got {rows[index].tolist()} for sample "
            f"{first + index}; check the classifier"
        )
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))

"""Which moments a tilt of the samples can reach, and the error that explains why a target is out of reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, InfeasibleTargetError, TooFewSamplesError
from promptgen.metrics.estimate import Vector

NULL_VARIANCE = 1e-10
"""Directions of the features with less than this fraction of the largest variance are constant: no tilt moves them."""


@dataclass(frozen=True)
class Moments:
    """Features of samples and their target means.

    Attributes:
        names: name of each feature.
        mu: target means, (K,).
        rows: distinct feature vectors, (M, K).
        probabilities: share of the samples that have each of these vectors, (M,).
    """

    names: tuple[str, ...]
    mu: Vector
    rows: Vector
    probabilities: Vector

    @property
    def observed(self) -> Vector:
        """Means of the original samples, (K,)."""
        return self.probabilities @ self.rows

    def basis(self) -> Vector:
        """Return an orthonormal basis, (K, r), of the directions in which the features vary.

        Raises:
            InfeasibleTargetError: the target is outside the range of a feature, or moves a constant one.
        """
        least, most = self.rows.min(axis=0), self.rows.max(axis=0)
        outside = (least < most) & ((self.mu <= least) | (self.mu >= most))
        if outside.any():
            raise self.infeasible("a tilt only reaches values strictly within the range of the samples", outside)
        centred = self.rows - self.observed
        variances, directions = np.linalg.eigh(centred.T @ (self.probabilities[:, None] * centred))
        varying = variances > NULL_VARIANCE * max(variances[-1], np.finfo(np.float64).tiny)
        constant = directions[:, ~varying]
        moved = np.abs(constant @ (constant.T @ (self.mu - self.observed))) > 1e-5
        if moved.any():
            raise self.infeasible("a tilt cannot change a class that never occurs or a sum that is constant", moved)
        return directions[:, varying]

    def infeasible(self, reason: str, among: NDArray[np.bool_] | None = None) -> InfeasibleTargetError:
        """Return the error, which names the feature, `among` those marked, the most standard deviations off target."""
        deviation = np.sqrt(self.probabilities @ np.square(self.rows - self.observed))
        distance = np.abs(self.mu - self.observed) / np.maximum(deviation, 1e-12)
        worst = int(np.argmax(distance if among is None else np.where(among, distance, -1)))
        return InfeasibleTargetError(
            f"target {self.mu[worst]:.4g} of {self.names[worst]!r} cannot be reached, observed share "
            f"{self.observed[worst]:.4g}: {reason}; draw more samples or choose a target closer to the observed share"
        )


def checked_arrays(features: ArrayLike, target: ArrayLike, names: Sequence[str]) -> tuple[Vector, Vector]:
    """Return features (N, K) and target means (K,) as float64 arrays of matching shapes.

    Raises:
        DataError: the shapes do not match, or a number is not finite.
        TooFewSamplesError: there are fewer than two samples.
    """
    gamma, mu = np.asarray(features, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if gamma.ndim != 2 or gamma.shape[1:] != mu.shape or len(names) != len(mu):
        raise DataError(f"features {gamma.shape} must be (N, K) with K targets and names, got {mu.shape}, {len(names)}")
    if len(gamma) < 2:
        raise TooFewSamplesError(f"moments need at least 2 samples, got {len(gamma)}")
    if not (np.isfinite(gamma).all() and np.isfinite(mu).all()):
        raise DataError("features and target must be finite numbers")
    return gamma, mu

"""What a tilt of given samples can reach, and the error that says why it cannot reach more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, InfeasibleTargetError, TooFewSamplesError
from promptgen.metrics.estimate import Vector

NULL_VARIANCE = 1e-10
"""A direction of the features with less than this part of the largest variance is constant: no tilt can move it."""


@dataclass(frozen=True)
class Moments:
    """Features of samples and the means wanted of them.

    Attributes:
        names: name of each feature.
        mu: wanted means, (K,).
        rows: distinct features, (M, K).
        probabilities: share of the samples with these features, (M,).
    """

    names: tuple[str, ...]
    mu: Vector
    rows: Vector
    probabilities: Vector

    @property
    def observed(self) -> Vector:
        """Means of the samples as they are, (K,)."""
        return self.probabilities @ self.rows

    def basis(self) -> Vector:
        """Return an orthonormal basis, (K, r), of the directions in which the features vary at all.

        Raises:
            InfeasibleTargetError: the target leaves the range of a feature, or moves one that is constant.
        """
        least, most = self.rows.min(axis=0), self.rows.max(axis=0)
        outside = (least < most) & ((self.mu <= least) | (self.mu >= most))
        if outside.any():
            raise self.infeasible("a tilt only reaches what lies strictly within the range of the samples", outside)
        centred = self.rows - self.observed
        variances, directions = np.linalg.eigh(centred.T @ (self.probabilities[:, None] * centred))
        varying = variances > NULL_VARIANCE * max(variances[-1], np.finfo(np.float64).tiny)
        constant = directions[:, ~varying]
        moved = np.abs(constant @ (constant.T @ (self.mu - self.observed))) > 1e-5
        if moved.any():
            raise self.infeasible("a tilt cannot move a class that never occurs, nor a sum that is constant", moved)
        return directions[:, varying]

    def infeasible(self, reason: str, among: NDArray[np.bool_] | None = None) -> InfeasibleTargetError:
        """Return the error; it names the feature, `among` those marked, that is most standard deviations away."""
        deviation = np.sqrt(self.probabilities @ np.square(self.rows - self.observed))
        distance = np.abs(self.mu - self.observed) / np.maximum(deviation, 1e-12)
        worst = int(np.argmax(distance if among is None else np.where(among, distance, -1)))
        return InfeasibleTargetError(
            f"target {self.mu[worst]:.4g} of {self.names[worst]!r} cannot be reached, observed share "
            f"{self.observed[worst]:.4g}: {reason}; draw more samples or ask for a share nearer to the observed one"
        )


def checked_arrays(features: ArrayLike, target: ArrayLike, names: Sequence[str]) -> tuple[Vector, Vector]:
    """Return features (N, K) and wanted means (K,) as double precision arrays that fit together.

    Raises:
        DataError: shapes do not fit together, or a number is not finite.
        TooFewSamplesError: fewer than two samples.
    """
    gamma, mu = np.asarray(features, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if gamma.ndim != 2 or gamma.shape[1:] != mu.shape or len(names) != len(mu):
        raise DataError(f"features {gamma.shape} must be (N, K) with K targets and names, got {mu.shape}, {len(names)}")
    if len(gamma) < 2:
        raise TooFewSamplesError(f"moments need at least 2 samples, got {len(gamma)}")
    if not (np.isfinite(gamma).all() and np.isfinite(mu).all()):
        raise DataError("features and target must be finite numbers")
    return gamma, mu

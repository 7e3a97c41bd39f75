"""The convex problem behind a moment constraint: minimise ``D(a) = log sum_i s_i exp(a . d_i)`` over a.

The s_i are probabilities and the d_i deviations of features from their target. D is convex, and it has a minimum
exactly if 0 lies inside the convex hull of the d_i. Otherwise some a has ``a . d_i <= 0`` for all i, which is what the
solver looks for on its way; so an infeasible target is recognised, and a diverging solution is never returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptgen.metrics.estimate import Vector

MAX_STEPS = 200
GRADIENT_TOLERANCE = 1e-12
SEPARATION_TOLERANCE = 1e-7


@dataclass(frozen=True)
class DualSolution:
    """The minimum of the dual.

    Attributes:
        multipliers: where it is, (r,).
        weights: tilted probabilities ``s_i exp(a . d_i) / sum``, (M,).
        value: D there, nats; minus the KL of the tilted to the original probabilities.
    """

    multipliers: Vector
    weights: Vector
    value: float


def solve_dual(deviations: Vector, probabilities: Vector, start: Vector) -> DualSolution | None:
    """Minimise the dual by damped Newton; return None if it has no minimum.

    Args:
        deviations: d, (M, r), spanning all r dimensions.
        probabilities: s, (M,), positive, with sum 1.
        start: where to start, (r,).
    """
    log_probabilities: Vector = np.log(probabilities)
    scale = float(np.abs(deviations).max(initial=0.0))
    a: Vector = start
    value, weights = _tilt(log_probabilities, deviations, a)
    for _ in range(MAX_STEPS):
        gradient = weights @ deviations
        if np.abs(gradient).max(initial=0.0) <= GRADIENT_TOLERANCE * scale:
            return DualSolution(a, weights, value)
        hessian = (weights[:, None] * deviations).T @ deviations - np.outer(gradient, gradient)
        step: Vector = -np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0]
        a = a + step * _step_length(log_probabilities, deviations, a, step, value, -float(gradient @ step))
        if _separates(deviations @ a):
            return None
        value, weights = _tilt(log_probabilities, deviations, a)
    return None


def _tilt(log_probabilities: Vector, deviations: Vector, a: Vector) -> tuple[float, Vector]:
    """Return D(a) in nats and the tilted probabilities, (M,)."""
    exponents = log_probabilities + deviations @ a
    largest = exponents.max()
    tilted = np.exp(exponents - largest)
    total = tilted.sum()
    return float(largest + np.log(total)), tilted / total


def _step_length(
    log_probabilities: Vector, deviations: Vector, a: Vector, step: Vector, value: float, decrement: float
) -> float:
    """Halve a Newton step until D falls by a small part of what its slope promises (Armijo's rule)."""
    length = 1.0
    # A smaller decrement is below the rounding of D, and so near the minimum the whole step is right.
    while decrement > 1e-9 and length > 1e-9:
        if _tilt(log_probabilities, deviations, a + length * step)[0] <= value - 1e-4 * length * decrement:
            break
        length /= 2
    return length


def _separates(projections: Vector) -> bool:
    """Tell whether no deviation lies on the positive side: then 0 is not inside their convex hull."""
    spread = projections.max() - projections.min()
    return bool(spread > 0 and projections.max() <= SEPARATION_TOLERANCE * spread)

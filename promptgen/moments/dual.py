"""The convex problem behind a moment constraint: minimise ``D(a) = log sum_i s_i exp(a . d_i)`` over a.

The s_i are probabilities and the d_i deviations of features from their target. D is convex, and it has a minimum
exactly if 0 lies inside the convex hull of the d_i. Otherwise some a has ``a . d_i <= 0`` for all i, which is what the
solver looks for on its way; so an infeasible target is recognised, and a diverging solution is never returned.

Along a step v, the third derivative of D is at most the spread of the ``v . d_i`` times the second. For such functions
Newton steps of length ``log(1 + spread) / spread`` always go down, without any line search: Sun, Tran-Dinh,
*Generalized self-concordant functions: a recipe for Newton-type methods*, Mathematical Programming 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptgen.metrics.estimate import Vector

MAX_STEPS = 500
GRADIENT_TOLERANCE = 1e-12
"""Relative to the largest deviation."""
SEPARATION_TOLERANCE = 1e-7
"""How far, relative to the spread of all ``a . d_i``, some may be positive and 0 still count as outside the hull."""
RIDGE = 1e-13
"""Keeps a step finite where rounding leaves no curvature; far too small to matter near a minimum."""


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
    largest = float(np.abs(deviations).max(initial=0.0))
    ridge = RIDGE * largest**2 * np.eye(deviations.shape[1])
    log_probabilities: Vector = np.log(probabilities)
    a = start
    for _ in range(MAX_STEPS):
        value, weights = _tilt(log_probabilities, deviations @ a)
        gradient = weights @ deviations
        if np.abs(gradient).max(initial=0.0) <= GRADIENT_TOLERANCE * largest:
            return DualSolution(a, weights, value)
        centred = deviations - gradient
        hessian = (weights[:, None] * centred).T @ centred
        step = np.linalg.solve(hessian + ridge, -gradient)
        spread = np.ptp(deviations @ step)
        a = a + step * (np.log1p(spread) / spread if spread > 0 else 1.0)
        if _separates(deviations @ a):
            return None
    return None


def _tilt(log_probabilities: Vector, exponents: Vector) -> tuple[float, Vector]:
    """Return D in nats and the tilted probabilities, (M,), for the exponents ``a . d_i``, (M,)."""
    logits = log_probabilities + exponents
    largest = logits.max()
    tilted = np.exp(logits - largest)
    total = tilted.sum()
    return float(largest + np.log(total)), tilted / total


def _separates(projections: Vector) -> bool:
    """Tell whether no deviation lies on the positive side: then 0 is not inside their convex hull."""
    return bool(projections.min() < 0 and projections.max() <= SEPARATION_TOLERANCE * np.ptp(projections))

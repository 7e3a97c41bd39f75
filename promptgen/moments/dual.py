"""The convex problem behind a moment constraint: minimise ``D(a) = log sum_i s_i exp(a . d_i)`` over a.

The s_i are probabilities and the d_i are deviations of features from their target. D is convex, and it has a minimum
if and only if 0 lies inside the convex hull of the d_i. Otherwise some a has ``a . d_i <= 0`` for all i. The solver
checks for such an a at every step, so it detects an infeasible target instead of returning a diverging solution.

Along a step v, the third derivative of D is at most the spread of the ``v . d_i`` times the second. For such functions,
Newton steps of length ``log(1 + spread) / spread`` always descend, without a line search: Sun, Tran-Dinh,
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
"""Largest positive ``a . d_i``, relative to their spread, at which 0 still counts as outside the hull."""
RIDGE = 1e-13
"""Keeps a step finite where rounding leaves no curvature; too small to matter near a minimum."""


@dataclass(frozen=True)
class DualSolution:
    """The minimum of the dual.

    Attributes:
        multipliers: the minimiser a, (r,).
        weights: tilted probabilities ``s_i exp(a . d_i) / sum``, (M,).
        value: the minimum of D, nats: minus KL(tilted || original).
    """

    multipliers: Vector
    weights: Vector
    value: float


def solve_dual(deviations: Vector, probabilities: Vector, start: Vector) -> DualSolution | None:
    """Minimise the dual by damped Newton steps; return None if it has no minimum.

    Args:
        deviations: deviations d, (M, r), spanning all r dimensions.
        probabilities: probabilities s, (M,), positive, with sum 1.
        start: initial a, (r,).
    """
    largest = float(np.abs(deviations).max(initial=0.0))
    ridge = RIDGE * largest**2 * np.eye(deviations.shape[1])
    log_probabilities: Vector = np.log(probabilities)
    a = start
    for _ in range(MAX_STEPS):
        logits = log_probabilities + deviations @ a
        largest_logit = logits.max()
        tilted = np.exp(logits - largest_logit)
        total = tilted.sum()
        value, weights = float(largest_logit + np.log(total)), tilted / total
        gradient = weights @ deviations
        if np.abs(gradient).max(initial=0.0) <= GRADIENT_TOLERANCE * largest:
            return DualSolution(a, weights, value)
        centred = deviations - gradient
        hessian = (weights[:, None] * centred).T @ centred
        step = np.linalg.solve(hessian + ridge, -gradient)
        spread = np.ptp(deviations @ step)
        a = a + step * (np.log1p(spread) / spread if spread > 0 else 1.0)
        projections = deviations @ a
        if projections.min() < 0 and projections.max() <= SEPARATION_TOLERANCE * np.ptp(projections):
            return None  # a separates all deviations from 0, so 0 is not inside their convex hull
    return None

"""Multipliers of a moment constraint: the smallest change of a distribution such that ``E[gamma(x)] = mu``.

The distribution closest in KL to the generator's own p is ``q(x) proportional to p(x) exp(beta . gamma(x))``, and
beta minimises the convex dual ``log E_p[exp(beta . (gamma - mu))]``. `fit_moments` solves it on features that are drawn
once.

Source: Wu et al., *Generative Visual Prompt*, NeurIPS 2022, section 3.3, arXiv 2209.06970. Deviation: the reference
minimises a squared error by 500 gradient steps, each on newly generated images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from promptgen.metrics.estimate import Vector, resample_shares
from promptgen.moments.dual import solve_dual
from promptgen.moments.feasibility import Moments, checked_arrays


@dataclass(frozen=True)
class MomentFit:
    """A solved moment constraint.

    Attributes:
        names: name of each feature.
        target: target moments mu, (K,).
        observed: moments of the original samples, (K,).
        achieved: moments of the tilted samples, (K,); equal to the target up to rounding.
        beta: multipliers, (K,), with mean zero in each simplex.
        beta_low: lower ends of their bootstrap intervals, (K,); infinite if too many resamples are infeasible. None
            without a bootstrap.
        beta_high: upper ends, (K,), likewise.
        kl: KL(tilted || original), nats: how far the generator has to move.
        ess_fraction: effective sample size of the tilted samples divided by n, in (0, 1].
        n: number of samples.
    """

    names: tuple[str, ...]
    target: Vector
    observed: Vector
    achieved: Vector
    beta: Vector
    beta_low: Vector | None
    beta_high: Vector | None
    kl: float
    ess_fraction: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fit as plain numbers, and the vectors as dicts from name to number."""

        def by_name(values: Vector | None) -> dict[str, float] | None:
            return None if values is None else dict(zip(self.names, values.tolist(), strict=True))

        vectors = ("target", "observed", "achieved", "beta", "beta_low", "beta_high")
        return {name: by_name(getattr(self, name)) for name in vectors} | {
            "kl": self.kl,
            "ess_fraction": self.ess_fraction,
            "n": self.n,
        }


def fit_moments(
    features: ArrayLike,
    target: ArrayLike,
    *,
    names: Sequence[str],
    ess_floor: float = 0.01,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> MomentFit:
    """Fit the multipliers that move the mean of `features` to `target`.

    Adding a constant to the multipliers of a simplex changes nothing. The solution returned is the shortest vector,
    whose mean is zero in each simplex.

    Args:
        features: features gamma of N samples of the generator, (N, K): simplices side by side, or any numbers.
        target: target means mu, (K,).
        names: name of each feature, for errors and records.
        ess_floor: smallest effective sample size of the tilted samples that is accepted, as a fraction of N.
        bootstrap: number of resamples for the intervals of beta; 0 means no intervals.
        confidence: coverage probability of the intervals.
        seed: seed of the resamples.

    Raises:
        DataError: shapes do not match, or a number is not finite.
        TooFewSamplesError: there are fewer than two samples.
        InfeasibleTargetError: no tilt reaches the target, or the tilt rests on too few samples.

    Example:
        Of 100 labels, 80 are "short". Equal shares need ``beta = log(target / share)``, up to a constant:

        >>> labels = np.repeat([[1.0, 0.0], [0.0, 1.0]], [80, 20], axis=0)
        >>> fit = fit_moments(labels, [0.5, 0.5], names=["short", "long"])
        >>> fit.beta.round(4).tolist()  # -log(2), log(2)
        [-0.6931, 0.6931]
        >>> fit.achieved.round(4).tolist(), round(fit.ess_fraction, 4)
        ([0.5, 0.5], 0.64)
    """
    gamma, mu = checked_arrays(features, target, names)
    rows, counts = np.unique(gamma, axis=0, return_counts=True)  # hard labels have few distinct rows
    probabilities = counts / len(gamma)
    moments = Moments(tuple(names), mu, rows, probabilities)
    basis = moments.basis()
    deviations = (rows - mu) @ basis
    solution = solve_dual(deviations, probabilities, np.zeros(basis.shape[1]))
    if solution is None:
        raise moments.infeasible("it lies outside what the samples span")
    ess_fraction = 1 / float((np.square(solution.weights) / probabilities).sum())
    if ess_fraction < ess_floor:
        raise moments.infeasible(f"the tilt rests on {ess_fraction:.2g} of the samples, less than {ess_floor:g}")
    low = high = None
    if bootstrap:
        resamples = resample_shares(counts, bootstrap, seed, "bootstrap", "beta")
        low, high = _interval(deviations, basis, solution.multipliers, resamples, confidence)
    return MomentFit(
        names=moments.names,
        target=mu,
        observed=moments.observed,
        achieved=solution.weights @ rows,
        beta=basis @ solution.multipliers,
        beta_low=low,
        beta_high=high,
        kl=max(-solution.value, 0.0),
        ess_fraction=ess_fraction,
        n=len(gamma),
    )


def _interval(
    deviations: Vector, basis: Vector, start: Vector, resamples: Vector, confidence: float
) -> tuple[Vector, Vector]:
    """Return the lower and upper ends, both (K,), of the central `confidence` interval of the resampled multipliers.

    A resample that cannot reach the target counts as unbounded on both sides.
    """
    low, high = [], []
    for probabilities in resamples:
        drawn = probabilities > 0
        solution = solve_dual(deviations[drawn], probabilities[drawn], start)
        beta = None if solution is None else basis @ solution.multipliers
        low.append(np.full(len(basis), -np.inf) if beta is None else beta)
        high.append(np.full(len(basis), np.inf) if beta is None else beta)
    tail = (1 - confidence) / 2
    # Order statistics instead of interpolation, which has no value between a number and infinity.
    return np.quantile(low, tail, axis=0, method="lower"), np.quantile(high, 1 - tail, axis=0, method="higher")

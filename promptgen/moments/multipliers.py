"""The smallest change of a distribution that meets wanted moments: ``E[gamma(x)] = mu``.

The distribution closest in KL to the generator's own p is ``q(x) proportional to p(x) exp(beta . gamma(x))``, and
beta minimises the convex dual ``log E_p[exp(beta . (gamma - mu))]``. `fit_moments` solves it on features that are drawn
once.

A flow trained on that tilt still falls short of mu: it cannot follow a steep energy exactly, and mean probabilities
are not shares of labels. `MomentAscent` therefore moves beta during training by what the flow's own samples lack.

Source: Wu et al., *Generative Visual Prompt*, NeurIPS 2022, section 3.3, arXiv 2209.06970. Deviations: the reference
minimises a squared error by 500 gradient steps, each on newly generated images, and has no ascent but a factor 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import DataError
from promptgen.metrics.estimate import Vector, resample_shares
from promptgen.moments.config import DualConfig as DualConfig
from promptgen.moments.dual import solve_dual
from promptgen.moments.feasibility import Moments, checked_arrays


@dataclass(frozen=True)
class MomentFit:
    """A solved moment constraint.

    Attributes:
        names: name of each feature.
        target: wanted moments mu, (K,).
        observed: moments of the samples as they are, (K,).
        achieved: moments of the tilted samples, (K,); the target up to rounding.
        beta: multipliers, (K,), with mean zero in each simplex.
        beta_low: lower ends of their bootstrap intervals, (K,), or None; infinite if too many resamples are infeasible.
        beta_high: upper ends, (K,), or None.
        kl: KL(tilted || original), nats: how far the generator has to be moved.
        ess_fraction: effective sample size of the tilted samples as a part of n, in (0, 1].
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
        """Return the fit as plain numbers, lists and mappings from name to number."""

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

    The solution is the shortest one, which has mean zero in each simplex among the features: adding a constant to the
    multipliers of a simplex changes nothing, and the shortest vector has no such part.

    Args:
        features: gamma of N samples of the generator, (N, K): simplices side by side, or any numbers.
        target: wanted means mu, (K,).
        names: name of each feature, for errors and records.
        ess_floor: least effective sample size of the tilted samples, as a part of N.
        bootstrap: resamples for the intervals of beta; 0 for no intervals.
        confidence: probability that an interval covers.
        seed: seed of the resamples.

    Raises:
        DataError: shapes do not fit together, or a number is not finite.
        TooFewSamplesError: fewer than two samples.
        InfeasibleTargetError: no tilt reaches the target, or only one that rests on too few samples.
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


class MomentAscent:
    """Dual ascent on the flow's own samples: ``beta_k += rate (mu_k - s_k) / (weight mu_k)``, s the batch's shares.

    This is the Newton direction of the dual for hard labels once the shares are mu, so that one rate suits any number
    of classes, rare ones too. The mean of each simplex is taken out again.

    It starts at the multipliers that the energy has (the dual solution), lets the flow come near, moves them with a
    decaying step, then fixes them at the average of the last ones. From there on the flow is trained on one
    distribution, the one its fit is measured against. Losses from before `fixed` turns true belong to other ones.

    Args:
        energy: the tilt; its beta is moved.
        target: wanted shares, (K,).
        steps: number of training steps in all.
        config: step size and phases.
    """

    def __init__(
        self, energy: MomentEnergy, target: ArrayLike, *, steps: int, config: DualConfig | None = None
    ) -> None:
        self.energy = energy
        self.config = config or DualConfig()
        self.target = torch.as_tensor(target, dtype=torch.float64)
        if self.target.shape != energy.beta.shape:
            raise DataError(f"the target has {self.target.numel()} shares, expected one for each of {energy.names}")
        if not bool((self.target > 0).all()):
            raise DataError(f"wanted shares must be positive, got {self.target.tolist()}")
        self.first, self.end = self.config.phases(steps)
        self.averaged_from = self.end - max(1, round((self.end - self.first) * self.config.average_last))
        self.beta = energy.beta.detach().cpu().double()
        self.total = torch.zeros_like(self.beta)
        self.averaged = 0
        self.fixed = False
        energy.forget_shares()

    def update(self, sample: Sample, log_w: Tensor, step: int) -> Mapping[str, float]:
        """Move the multipliers by what the shares of the training step just done lack.

        Args:
            sample: samples of the step; not looked at, for the energy has counted all micro-batches itself.
            log_w: their log weights, nats; not used, the constraint is on the flow's own samples.
            step: index of the step, from 0.

        Returns:
            The shares of the step and the multipliers, under ``share/NAME`` and ``beta/NAME``.
        """
        shares = self.energy.take_shares()
        if step >= self.first and not self.fixed:
            self._move(shares, step)
        if step + 1 >= self.end:
            self.finalise()
        numbers = {"share": shares, "beta": self.beta}
        return {
            f"{kind}/{name}": float(value)
            for kind, values in numbers.items()
            for name, value in zip(self.energy.names, values, strict=True)
        }

    def finalise(self) -> None:
        """Fix the multipliers at the average of the last ones; a second call changes nothing."""
        if self.averaged and not self.fixed:
            self.beta = self.total / self.averaged
            self.energy.set_beta(self.beta)
        self.fixed = True

    def _move(self, shares: Tensor, step: int) -> None:
        rate = self.config.rate * (1 - (step - self.first) / (self.end - self.first)) / self.energy.weight
        parts = torch.split(rate * (self.target - shares) / self.target, list(self.energy.sizes))
        self.beta = self.beta + torch.cat([part - part.mean() for part in parts])
        self.energy.set_beta(self.beta)
        if step >= self.averaged_from:
            self.total = self.total + self.beta
            self.averaged += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a restarted training needs to go on with the same numbers."""
        return {"beta": self.beta, "total": self.total, "averaged": self.averaged, "fixed": self.fixed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` and hand its multipliers to the energy."""
        self.beta, self.total = state["beta"].clone(), state["total"].clone()
        self.averaged, self.fixed = int(state["averaged"]), bool(state["fixed"])
        self.energy.set_beta(self.beta)
        self.energy.forget_shares()


def _interval(
    deviations: Vector, basis: Vector, start: Vector, resamples: Vector, confidence: float
) -> tuple[Vector, Vector]:
    """Return the ends, (K,) each, between which the middle part `confidence` of the resampled multipliers lies.

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
    # Order statistics, not interpolated ones: between a number and infinity there is no mean.
    return np.quantile(low, tail, axis=0, method="lower"), np.quantile(high, 1 - tail, axis=0, method="higher")

"""How well a flow fits its target, from the log importance weights of fresh samples.

With ``w = p(z) exp(-E) / q(z)`` at z ~ q, so that ``E[w] = Z``:

    log Z estimate = log mean(w)         bound = mean(log w) <= log Z
    KL(q || p*) ~ log Z - bound          effective sample size = (sum w)^2 / sum w^2

Each has a standard error by the delta method. Estimates and errors depend mostly on the largest weights, so
`tail_index` measures how heavy the tail of the weights is: above about 0.7, no practical number of samples makes them
reliable.

A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry, "Pareto smoothed importance sampling", JMLR 2024,
https://arxiv.org/abs/1507.02646
J. Zhang, M. Stephens, "A new and efficient estimation method for the generalized Pareto distribution",
Technometrics 2009
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor

from promptgen.errors import DataError
from promptgen.metrics.estimate import Estimate

Trust = Literal["good", "usable", "not to be trusted"]

GOOD_TAIL = 0.5
"""Up to this tail index, the weights have a finite variance."""

USABLE_TAIL = 0.7
"""Up to this tail index, importance sampling converges fast enough to be useful; lower for few samples."""

LEAST_TAIL = 5
"""Smallest number of weights that a tail is fitted to."""

LEAST_WEIGHT = 1e-300
"""Weights that underflow beside the largest one are raised to this value."""

LEAST_SAMPLES = 5 * LEAST_TAIL
"""Smallest number of weights whose tail can be judged: a fifth of them form the tail."""


@dataclass(frozen=True)
class Fit:
    """How well a flow fits its target.

    Attributes:
        log_z: estimate of ``log Z``, nats.
        log_z_error: standard error of `log_z`, nats.
        log_z_bound: lower bound of ``log Z``: the mean log weight, nats.
        kl_gap: estimate of ``KL(q || p*)``: `log_z` minus `log_z_bound`, nats.
        kl_gap_error: standard error of `kl_gap`, nats.
        ess_fraction: effective sample size divided by the number of samples, in (0, 1].
        ess_error: standard error of `ess_fraction`.
        tail_index: shape k of the generalised Pareto distribution of the largest weights; None if there are too few
            weights, or too many of the largest ones are equal.
        n: number of samples.
    """

    log_z: float
    log_z_error: float
    log_z_bound: float
    kl_gap: float
    kl_gap_error: float
    ess_fraction: float
    ess_error: float
    tail_index: float | None
    n: int

    @property
    def trust(self) -> Trust:
        """How far these figures, and samples corrected by the weights, can be trusted."""
        if self.tail_index is None:  # the effective sample size is small if a few weights outweigh the rest
            return "good" if round(self.ess_fraction * self.n) >= LEAST_SAMPLES else "not to be trusted"
        if self.n < LEAST_SAMPLES or self.tail_index > usable_tail(self.n):
            return "not to be trusted"
        return "good" if self.tail_index <= GOOD_TAIL else "usable"

    def intervals(self, confidence: float = 0.95) -> dict[str, Estimate]:
        """Return `log_z`, `kl_gap` and `ess_fraction` with normal intervals, cut off at the limits of their range."""
        half = NormalDist().inv_cdf(0.5 + confidence / 2)

        def around(value: float, error: float, least: float, largest: float) -> Estimate:
            return Estimate(value, max(value - half * error, least), min(value + half * error, largest))

        return {
            "log_z": around(self.log_z, self.log_z_error, -math.inf, math.inf),
            "kl_gap": around(self.kl_gap, self.kl_gap_error, 0.0, math.inf),
            "ess_fraction": around(self.ess_fraction, self.ess_error, 1 / self.n, 1.0),
        }

    def as_dict(self, confidence: float = 0.95) -> dict[str, Any]:
        """Return plain numbers by name; a number with an interval is a dict as from `Estimate.as_dict`."""
        intervals = {name: estimate.as_dict() for name, estimate in self.intervals(confidence).items()}
        return {**intervals, "tail_index": self.tail_index, "trust": self.trust, "n": self.n}


def fit_statistics(log_w: Tensor) -> Fit:
    """Summarise log importance weights, nats, (n,), of fresh samples from the flow.

    Raises:
        DataError: there are no weights, or one is NaN or infinite.

    Example:
        Equal weights mean a perfect fit:

        >>> fit = fit_statistics(torch.full((100,), 2.0))
        >>> round(fit.log_z, 6), round(fit.kl_gap, 6), round(fit.ess_fraction, 6), fit.trust
        (2.0, 0.0, 1.0, 'good')
    """
    log_w = log_w.detach().double().cpu()
    if log_w.numel() == 0 or not bool(log_w.isfinite().all()):
        raise DataError(f"the fit needs finite log weights, got {log_w.numel()} with {log_w.isfinite().sum()} finite")
    n, bound = log_w.numel(), float(log_w.mean())
    log_z = float(log_w.logsumexp(dim=0)) - math.log(n)
    relative = (log_w - log_z).exp()  # w over its mean
    square = float(relative.square().mean())
    return Fit(
        log_z=log_z,
        log_z_error=_standard_error(relative),
        log_z_bound=bound,
        kl_gap=log_z - bound,
        kl_gap_error=_standard_error(relative - log_w),
        ess_fraction=1 / square,
        ess_error=_standard_error(2 * relative - relative.square() / square) / square,
        tail_index=tail_index(log_w),
        n=n,
    )


def tail_index(log_w: Tensor) -> float | None:
    """Return the shape k of the generalised Pareto distribution fitted to the largest weights.

    The weights have finite moments up to order 1 / k. As in the source, a weak prior pulls the estimate from few
    weights towards 0.5.

    Args:
        log_w: log weights, nats, (n,); a constant added to all of them changes nothing.

    Returns:
        The shape, or None if the tail has fewer than `LEAST_TAIL` weights or more than a quarter of it is equal.
    """
    n = len(log_w)
    size = math.ceil(min(0.2 * n, 3 * math.sqrt(n)))
    if size < LEAST_TAIL or size >= n:
        return None
    largest = log_w.double().sort().values[-size - 1 :]
    if float(largest[size // 4 + 1]) <= float(largest[0]):
        return None
    weight = (largest - largest[-1]).exp()
    excess = (weight[1:] - weight[0]).clamp(min=LEAST_WEIGHT)
    shape = _pareto_shape(excess)
    return (size * shape + 10 * 0.5) / (size + 10)


def usable_tail(n: int) -> float:
    """Return the largest tail index at which `n` weights are useful."""
    return min(1 - 1 / math.log10(n), USABLE_TAIL) if n > 10 else 0.0


def _pareto_shape(excess: Tensor) -> float:
    """Return the shape of the generalised Pareto distribution fitted to `excess`, (m,), ascending and positive.

    The profile likelihood of theta = -shape / scale is averaged over a grid of its plausible values.
    """
    m = len(excess)
    grid = torch.arange(1, 30 + math.isqrt(m) + 1, dtype=torch.float64) - 0.5
    first_quartile = excess[int(m / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - (len(grid) / grid).sqrt()) / (3 * first_quartile)
    shape = torch.log1p(-theta[:, None] * excess).mean(dim=1)
    likelihood = m * ((-theta / shape).log() - shape - 1)
    best = float((likelihood.softmax(dim=0) * theta).sum())
    return float(torch.log1p(-best * excess).mean())


def _standard_error(terms: Tensor) -> float:
    """Return the standard error of the mean of independent terms, (n,); zero for a single term."""
    return float(terms.std(correction=min(1, len(terms) - 1))) / math.sqrt(len(terms))

"""Exact sampling: correct a flow's samples by their importance weights, and say how far to trust the result.

A flow draws from `q`, which is close to the controlled distribution `p*` but not equal to it. Its density is known, so
the weight ``w = p(z) exp(-E) / q(z)`` says how much too rare each sample is. Resampling many proposals in proportion to
their weights, or running a Metropolis-Hastings chain over them, yields samples of `p*` itself, with an error that
vanishes as the number of proposals grows. `p` is the prior of the generator under the flow, which may be a chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from promptgen.energies.base import Energy
from promptgen.errors import DataError, NonFiniteEnergyError, TooFewSamplesError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.fit import Fit, fit_statistics
from promptgen.flows.objective import log_weight
from promptgen.seeding import stream

Method = Literal["resample", "metropolis"]


@dataclass(frozen=True)
class Correction:
    """The proposals that were chosen, and how far to trust them.

    Attributes:
        method: how they were chosen.
        chosen: indices of the proposals, (n,); some repeat when few proposals carry most of the weight.
        fit: how well the flow fits the target, from the weights of all proposals.
        acceptance: share of proposals that the Metropolis chain accepted, in [0, 1]; None for resampling and for a
            single proposal.
    """

    method: Method
    chosen: Tensor
    fit: Fit
    acceptance: float | None

    @property
    def effective(self) -> float:
        """Effective sample size: the number of independent samples of `p*` that the proposals are worth."""
        return self.fit.ess_fraction * self.fit.n

    @property
    def distinct(self) -> int:
        """Number of different proposals among those chosen."""
        return len(set(self.chosen.tolist()))

    @property
    def doubts(self) -> list[str]:
        """Reasons not to treat the chosen samples as exact, one sentence each; usually empty."""
        doubts = []
        if self.fit.trust == "not to be trusted":
            tail = "unknown" if self.fit.tail_index is None else f"{self.fit.tail_index:.2f}"
            doubts.append(
                f"the weights are not to be trusted (tail index {tail}): train longer, or draw more proposals"
            )
        if len(self.chosen) > round(self.effective):
            doubts.append(
                f"{len(self.chosen)} samples are more than the {self.effective:.0f} that the proposals are worth, so "
                "they repeat or depend on each other: draw more proposals"
            )
        return doubts

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, without the indices."""
        figures = {"method": self.method, "acceptance": self.acceptance, "effective": self.effective}
        return {**figures, "distinct": self.distinct, "doubts": self.doubts, "fit": self.fit.as_dict()}


def chain_log_weights(
    chain: ChainedGenerator,
    energy: Energy,
    latents: Tensor,
    context: Tensor | None = None,
    *,
    seed: int,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the log weights, nats, (M,), of a chain's samples under the target of its last flow.

    Args:
        chain: generator with the flow on top.
        energy: energy that the last flow was trained on, nats.
        latents: latents of the chain, (M, D), drawn from its prior.
        context: conditions of the chain, (M, C); None for an unconditional chain.
        seed: seed of the random stream for stochastic energies.
        batch: largest number of samples per forward pass.
        progress: called with the number of samples done so far.

    Raises:
        NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
    """
    rng, log_weights = stream(seed, "exact", "energy"), []
    for start in range(0, len(latents), batch):
        part = slice(start, start + batch)
        conditions = None if context is None else context[part]
        log_weights.append(log_weight(chain.flow, chain.base, energy, latents[part], context=conditions, rng=rng))
        if progress:
            progress(min(part.stop, len(latents)))
    return torch.cat(log_weights)


def correct(log_weights: Tensor, n: int, method: Method, rng: torch.Generator) -> Correction:
    """Choose `n` of M proposals so that they follow the controlled distribution.

    For the method "metropolis", the chain starts at the first proposal and `n` of its states are kept, evenly spaced:
    the first one spacing after the start, the last at the end of the chain.

    Args:
        log_weights: log weights of the proposals, nats, (M,).
        n: number of samples to choose.
        method: "resample" or "metropolis".
        rng: random stream.

    Raises:
        TooFewSamplesError: there are fewer proposals than samples.
        NonFiniteEnergyError: a log weight is not finite.

    Example:
        Proposals 0 and 2 have no weight, so only 1 and 3 are chosen, each twice:

        >>> import torch
        >>> from promptgen.seeding import stream
        >>> log_weights = torch.tensor([-100.0, 0.0, -100.0, 0.0])
        >>> correction = correct(log_weights, 4, "resample", stream(0, "example"))
        >>> sorted(correction.chosen.tolist()), round(correction.effective, 6)
        ([1, 1, 3, 3], 2.0)
    """
    m = len(log_weights)
    if not 1 <= n <= m:
        raise TooFewSamplesError(f"cannot choose {n} of {m} proposals: ask for at least one sample, or draw more")
    if method == "resample":
        return Correction(method, importance_resample(log_weights, n, rng), fit_statistics(log_weights), None)
    chain = metropolis(log_weights, rng)
    stops = torch.tensor([math.ceil((index + 1) * m / n) - 1 for index in range(n)])
    return Correction(method, chain[stops], fit_statistics(log_weights), acceptance_rate(chain))


def importance_resample(log_weights: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Choose `n` of M samples in proportion to their weights (systematic sampling importance resampling).

    The chosen samples follow the controlled distribution with an error that vanishes as M grows.

    Args:
        log_weights: ``log p(z) - E - log q(z)`` in nats, (M,).
        n: number to choose. Keep it well below the effective sample size, or samples repeat.
        rng: random stream.

    Returns:
        Indices, (n,), int64, in random order.
    """
    weights = _checked(log_weights).softmax(dim=0)
    offset = torch.rand((), generator=rng, dtype=torch.float64)
    points = (torch.arange(n, dtype=torch.float64) + offset) / n
    indices = torch.searchsorted(weights.cumsum(dim=0), points).clamp(max=len(weights) - 1)
    return indices[torch.randperm(n, generator=rng)]


def metropolis(log_weights: Tensor, rng: torch.Generator) -> Tensor:
    """Run independence Metropolis-Hastings over M samples of the flow, proposed one after another.

    Args:
        log_weights: ``log p(z) - E - log q(z)`` in nats, (M,).
        rng: random stream.

    Returns:
        Index of the chain's current sample after each proposal, (M,), int64. The stationary distribution of the chain
        is exactly the controlled one; its first states depend on the starting point.
    """
    checked = _checked(log_weights)
    thresholds = torch.rand(len(checked), generator=rng, dtype=torch.float64).log().tolist()
    values, state, chain = checked.tolist(), 0, []
    for proposal, value in enumerate(values):
        if thresholds[proposal] <= value - values[state]:
            state = proposal
        chain.append(state)
    return torch.tensor(chain, dtype=torch.int64)


def acceptance_rate(chain: Tensor) -> float | None:
    """Return the share of proposals after the first, in [0, 1], that a Metropolis chain, (M,), accepted.

    It is 1 for a flow that draws exactly from its target, and None for a single proposal, which has no alternative.
    """
    accepted = chain[1:] == torch.arange(1, len(chain))
    return float(accepted.double().mean()) if len(accepted) else None


def _checked(log_weights: Tensor) -> Tensor:
    """Return finite log weights, (M,), as float64 on the CPU."""
    if log_weights.ndim != 1:
        raise DataError(f"log weights must be a vector, got shape {tuple(log_weights.shape)}")
    if not len(log_weights):
        raise TooFewSamplesError("exact sampling needs at least one weighted sample, got none")
    if not bool(log_weights.isfinite().all()):
        raise NonFiniteEnergyError("a log weight is NaN or infinite: check the energies of the samples one by one")
    return log_weights.detach().double().cpu()

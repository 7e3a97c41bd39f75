"""Exact sampling: a flow's samples as proposals, corrected by their weights, and whether these carry it.

A flow draws from `q`, which is near the wanted `p*` and not equal to it. Its density is known, so weights
``w = p(z) exp(-E) / q(z)`` tell by how much each sample is too rare. Choosing among many proposals in proportion to
them, or running a Metropolis-Hastings chain over them, gives samples of `p*` itself, up to an error that vanishes as
the proposals become more. `p` is the prior of what the flow stands on: of the chain before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from promptgen.energies.base import Energy
from promptgen.errors import TooFewSamplesError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.fit import Fit, fit_statistics
from promptgen.flows.objective import log_weight
from promptgen.flows.sampling import importance_resample, metropolis
from promptgen.seeding import stream

Method = Literal["resample", "metropolis"]


@dataclass(frozen=True)
class Correction:
    """Which proposals to take, and how far to trust them.

    Attributes:
        method: how they were chosen.
        chosen: indices of the proposals, (n,); some repeat where few proposals carry the weight.
        fit: how near the flow is to what is wanted, from the weights of all proposals.
        acceptance: share of the proposals that the Metropolis chain moved to, in [0, 1]; None for another method, or
            for a single proposal.
    """

    method: Method
    chosen: Tensor
    fit: Fit
    acceptance: float | None

    @property
    def effective(self) -> float:
        """Effective sample size of the proposals: as many independent samples of `p*` they are worth."""
        return self.fit.ess_fraction * self.fit.n

    @property
    def distinct(self) -> int:
        """How many different proposals were chosen."""
        return len(set(self.chosen.tolist()))

    @property
    def doubts(self) -> list[str]:
        """What speaks against taking the chosen samples for exact, a sentence each; mostly empty."""
        found = []
        if self.fit.trust == "not to be trusted":
            tail = "unknown" if self.fit.tail_index is None else f"{self.fit.tail_index:.2f}"
            found.append(f"the weights are not to be trusted (tail index {tail}): train longer, or draw more proposals")
        if len(self.chosen) > round(self.effective):
            found.append(
                f"{len(self.chosen)} samples are more than the {self.effective:.0f} that the proposals are worth, so "
                "they repeat or depend on each other: draw more proposals"
            )
        return found

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
    """Return the log weights, nats, (M,), of a chain's samples towards what its last flow was trained for.

    Args:
        chain: generator with the flow on top.
        energy: what the last flow was trained for, nats.
        latents: latents of the chain, (M, D), from its prior.
        context: conditions of the chain, (M, C); None for a chain that takes none.
        seed: seed of the stream of energies that draw.
        batch: most samples at a time.
        progress: is told how many are done.

    Raises:
        NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
    """
    rng, found = stream(seed, "exact", "energy"), []
    for start in range(0, len(latents), batch):
        part = slice(start, start + batch)
        told = None if context is None else context[part]
        found.append(log_weight(chain.flow, chain.base, energy, latents[part], context=told, rng=rng))
        if progress:
            progress(min(part.stop, len(latents)))
    return torch.cat(found)


def correct(log_weights: Tensor, n: int, method: Method, rng: torch.Generator) -> Correction:
    """Choose `n` of M proposals so that they follow what is wanted.

    Of a Metropolis chain, which starts at the first proposal, `n` states at even distances are taken, the first of them
    one distance from the start and the last at its end.

    Args:
        log_weights: log weights of the proposals, nats, (M,).
        n: how many to choose.
        method: how.
        rng: random stream.

    Raises:
        TooFewSamplesError: there are fewer proposals than samples.
        NonFiniteEnergyError: a log weight is not finite.
    """
    m = len(log_weights)
    if not 1 <= n <= m:
        raise TooFewSamplesError(f"cannot choose {n} of {m} proposals: ask for at least one sample, or draw more")
    if method == "resample":
        return Correction(method, importance_resample(log_weights, n, rng), fit_statistics(log_weights), None)
    chain = metropolis(log_weights, rng)
    stops = torch.tensor([math.ceil((index + 1) * m / n) - 1 for index in range(n)])
    return Correction(method, chain[stops], fit_statistics(log_weights), acceptance_rate(chain))


def acceptance_rate(chain: Tensor) -> float | None:
    """Return the share of proposals after the first, in [0, 1], that a Metropolis chain, (M,), has moved to.

    One for a flow that draws exactly what is wanted. None for a single proposal, which is where the chain starts.
    """
    moved = chain[1:] == torch.arange(1, len(chain))
    return float(moved.double().mean()) if len(moved) else None

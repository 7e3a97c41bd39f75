"""A flow on a generator, as a proposal: its samples with their densities and the base latents that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from promptgen.conditions import Condition, split_context
from promptgen.flows.chained import base_latent
from promptgen.flows.flow import Flow, standard_log_prob
from promptgen.flows.objective import path_log_prob
from promptgen.flows.sampling import condition_blocks, latent_blocks
from promptgen.generators.base import GaussianPrior, Generator, condition_of
from promptgen.networks.distributed import share


@dataclass(frozen=True)
class Draw:
    """Samples of a proposal.

    Attributes:
        latent: latents of the generator, (B, D).
        base: latents of the generator under its chain, (B, D).
        context: conditions, (B, C), the generator's first; None without any.
        log_p: log density of the generator's prior, nats, (B,).
        log_q: log density of the flow, nats, (B,).
    """

    latent: Tensor
    base: Tensor
    context: Tensor | None
    log_p: Tensor
    log_q: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def __getitem__(self, part: slice | Tensor) -> Draw:
        context = None if self.context is None else self.context[part]
        return Draw(self.latent[part], self.base[part], context, self.log_p[part], self.log_q[part])

    def __add__(self, other: Draw) -> Draw:
        return join([self, other])


@dataclass(frozen=True)
class Proposal:
    """A flow on a generator, or the generator alone.

    Attributes:
        generator: the frozen generator, which may be a chain.
        seed: seed of all draws.
        flow: the flow; None draws from the generator's prior.
        condition: the condition of the flow.
    """

    generator: Generator
    seed: int
    flow: Flow | None = None
    condition: Condition = field(default_factory=Condition)

    def draw(self, n: int, *names: str | int, path: bool = False, divided: bool = False) -> Draw:
        """Draw `n` samples from the stream `names`.

        Args:
            n: number of samples.
            names: name of the stream; different names give independent samples.
            path: whether the log density of the flow carries the gradient of the path estimator, through the latent
                alone; see `promptgen.flows.objective.reverse_kl`.
            divided: whether this process draws its share of them alone; one block at most.
        """
        like = self.generator.prior.scale
        stream, box = "/".join(map(str, names)), condition_of(self.generator) + self.condition
        noise = latent_blocks(GaussianPrior.standard(len(like)), n, self.seed, stream)
        conditions = condition_blocks(box, n, self.seed, stream)
        portion = share(n) if divided else slice(None)
        parts = [
            self._part(eps[portion].to(like), context[portion].to(like) if box else None, path)
            for eps, context in zip(noise, conditions, strict=True)
        ]
        return parts[0] if len(parts) == 1 else join(parts)

    def mixed(self, start: Proposal, n: int, *names: str | int) -> Draw:
        """Draw `n` samples of the flow, and `n` of another distribution with the flow's density as their `log_q`."""
        assert self.flow is not None
        drawn, others = self.draw(n, *names), start.draw(n, *names, "start")
        return drawn + replace(others, log_q=self.flow.log_prob(others.latent, self.own(others.context)))

    def own(self, context: Tensor | None) -> Tensor | None:
        """Return the flow's part of conditions, (B, C)."""
        return split_context(context, len(self.condition))[1]

    def _part(self, eps: Tensor, context: Tensor | None, path: bool) -> Draw:
        """Return the samples of one block of noise; equal blocks give equal samples, whatever else is drawn."""
        below, flow_context = split_context(context, len(self.condition))
        prior = self.generator.prior
        if self.flow is None:
            latent = eps * prior.scale
            log_q = prior.log_prob(latent)
        else:
            latent, log_det = self.flow(eps, flow_context)
            log_q = path_log_prob(self.flow, latent, flow_context) if path else standard_log_prob(eps) - log_det
        return Draw(latent, base_latent(self.generator, latent, below), context, prior.log_prob(latent), log_q)


def join(parts: list[Draw]) -> Draw:
    """Return samples one after another."""
    contexts = [part.context for part in parts if part.context is not None]
    return Draw(
        torch.cat([part.latent for part in parts]),
        torch.cat([part.base for part in parts]),
        torch.cat(contexts) if contexts else None,
        torch.cat([part.log_p for part in parts]),
        torch.cat([part.log_q for part in parts]),
    )

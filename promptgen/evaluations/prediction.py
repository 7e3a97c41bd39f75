"""What a surrogate predicts of the samples of two proposals, without an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from promptgen.evaluations.objective import Objective
from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.evaluations.span import Span
from promptgen.evaluations.surrogate import Surrogate
from promptgen.flows.chained import base_of


@dataclass(frozen=True)
class Prediction:
    """A surrogate, and two proposals whose samples it reads: in few coordinates where the latent has many.

    Attributes:
        surrogate: the surrogate, of latents as the proposals draw them.
        start: the distribution that the flow starts from.
        proposal: has the flow.
        span: the coordinates; None if the latents are those of the generator.
    """

    surrogate: Surrogate
    start: Proposal
    proposal: Proposal
    span: Span | None = None

    @classmethod
    def of(cls, surrogate: Surrogate, start: Proposal, proposal: Proposal) -> Prediction:
        """Return the prediction of a surrogate of the generator's own latents."""
        span = Span.of(proposal, surrogate, base_of(proposal.generator).prior.scale)
        if span is None:
            return cls(surrogate, start, proposal)
        return cls(span.surrogate(surrogate), span.proposal(start), span.proposal(proposal), span)

    def seen(self, draw: Draw) -> Draw:
        """Return samples of the generator's own latents with the base latents that the surrogate reads."""
        return draw if self.span is None else self.span.coordinates(draw)

    def energy(self, draw: Draw, objective: Objective) -> Tensor:
        """Return the energy of the mixture of the members, nats, (B,), of samples as `seen` returns them."""
        context = draw.context if self.proposal.condition else None
        energies = objective.energy(self.surrogate.members(draw.base, context))
        return math.log(len(energies)) - torch.logsumexp(-energies, dim=0)

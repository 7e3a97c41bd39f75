"""What a surrogate predicts of the samples of two proposals, without an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from promptgen.evaluations.objective import Objective
from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.evaluations.span import Span
from promptgen.evaluations.surrogate import Surrogate
from promptgen.flows.chained import base_of

OPTIMISM, LARGEST_BONUS = 2.0, 2.0
"""Standard deviations of the members' energies by which the energy to train on is below their mean, and the largest
such difference, nats. Where members disagree, the flow keeps some mass, so that few true weights are large; without a
bound, it would go wherever they disagree most."""

EQUAL = 1e-4
"""Standard deviation, nats, of members that agree; it keeps the root's gradient finite."""


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
        """Return the energy to train on, nats, (B,), of samples as `seen` returns them: a low estimate."""
        mean, deviation = self.energies(draw, objective)
        return mean - LARGEST_BONUS * torch.tanh(OPTIMISM / LARGEST_BONUS * deviation)

    def energies(self, draw: Draw, objective: Objective) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the members' energies, nats, (B,) each, of samples from `seen`."""
        context = draw.context if self.proposal.condition else None
        energies = objective.energy(self.surrogate.members(draw.base, context))
        variance, mean = torch.var_mean(energies, dim=0)
        return mean, (variance + EQUAL**2).sqrt()

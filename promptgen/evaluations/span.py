"""The few coordinates of a wide latent in which flows move and a surrogate reads.

Of a latent of thousands of dimensions, flows that are confined to some directions leave the rest as it is, and a
surrogate does not see it. Whatever makes no image can then be computed in these coordinates alone, exactly and at a
cost that does not depend on the number of dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.evaluations.surrogate import Surrogate
from promptgen.flows.chained import ChainedGenerator
from promptgen.generators.base import GaussianPrior, Generator, held_by

WIDE = 1024
"""Fewest dimensions of a latent that counts as wide: with fewer, all of them cost little."""

DISTINCT = 1e-3
"""Smallest singular value of directions that are not combinations of the others, up to rounding."""


@dataclass(frozen=True)
class Span:
    """A span of directions of the base latent.

    Attributes:
        directions: orthonormal columns, (D, S), in units of the prior.
        scale: standard deviations of the base latent's prior, (D,).
    """

    directions: Tensor
    scale: Tensor

    @classmethod
    def of(cls, proposal: Proposal, surrogate: Surrogate, scale: Tensor) -> Span | None:
        """Return the span of a proposal's flow and of what a surrogate sees; None if the latent is not wide.

        It is None as well if a flow moves all directions, or holds some.
        """
        flow = proposal.flow
        if flow is None or flow.directions is None or len(scale) < WIDE or held_by(proposal.generator):
            return None
        return cls(joint_directions([flow.directions, surrogate.directions]), scale)

    def coordinates(self, draw: Draw) -> Draw:
        """Return samples with the coordinates of their base latents, (B, S), in place of these."""
        return replace(draw, base=(draw.base / self.scale) @ self.directions)

    def proposal(self, proposal: Proposal) -> Proposal:
        """Return a proposal whose latents are coordinates; its flow has the parameters of the given one."""
        flow = None if proposal.flow is None else proposal.flow.along(self.directions)
        return replace(proposal, generator=self._generator(proposal.generator), flow=flow)

    def surrogate(self, surrogate: Surrogate) -> Surrogate:
        """Return a surrogate of coordinates."""
        return surrogate.along(self.directions, self.scale)

    def _generator(self, generator: Generator) -> Generator:
        if isinstance(generator, ChainedGenerator):
            return ChainedGenerator(self._generator(generator.base), generator.flow.along(self.directions))
        return _Coordinates(self.directions)


class _Coordinates:
    """Stands for the generator under a chain, which makes no image of coordinates."""

    image_shape = (3, 0, 0)

    def __init__(self, directions: Tensor) -> None:
        self.prior = GaussianPrior(directions.new_ones(directions.shape[1]))

    def __call__(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        return latent.new_zeros(len(latent), *self.image_shape)


def joint_directions(parts: list[Tensor]) -> Tensor:
    """Return orthonormal columns, (D, S), of the span of directions, (D, R) each."""
    left, singular, _ = torch.linalg.svd(torch.cat(parts, dim=1).double(), full_matrices=False)
    joint: Tensor = left[:, singular > DISTINCT]
    return joint.to(parts[0])


def span_of_chain(generator: Generator, directions: Tensor) -> Tensor | None:
    """Return the directions of a new flow: its own, (D, R), and those of the flows under it; None if one moves all."""
    parts = [directions]
    while isinstance(generator, ChainedGenerator):
        if generator.flow.directions is None:
            return None
        parts.append(generator.flow.directions)
        generator = generator.base
    return joint_directions(parts)

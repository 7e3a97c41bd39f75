"""What true gradients have outside a flow's directions, and with it the bound on what confining the flow gives away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from promptgen.conditions import Condition
from promptgen.evaluations.directions import enough_directions, given_away, outside
from promptgen.evaluations.objective import Objective
from promptgen.evaluations.proposal import Draw
from promptgen.evaluations.store import Evaluations
from promptgen.flows.chained import base_of
from promptgen.generators.base import Generator, condition_of, held_by
from promptgen.metrics.estimate import Estimate


@dataclass(frozen=True)
class Remainder:
    """What is left of recorded gradients outside a flow's directions, at N samples of the flow.

    Attributes:
        squares: squared lengths of recorded gradients, in units of the prior, (N,).
        features: features of the samples, (N, J).
        log_ratio: log density of the prior minus that of the flow, nats, (N,).
    """

    squares: Tensor
    features: Tensor
    log_ratio: Tensor

    @classmethod
    def of(
        cls, generator: Generator, directions: Tensor | None, draw: Draw, evaluations: Evaluations, objective: Objective
    ) -> Remainder | None:
        """Return what samples leave over, as far as they have evaluations; None if there is no gradient to tell.

        Args:
            generator: the generator of the samples, which may be a chain.
            directions: the flow's directions, (D, R), which hold those of the flows under it; None for all.
            draw: samples of the flow; they have not chosen its directions.
            evaluations: evaluations of the first of them, or of all and others after them.
            objective: what the flow is trained for.
        """
        if evaluations.gradient is None or directions is None:
            return None
        n, features = min(len(draw), len(evaluations)), objective.features(evaluations.outputs)
        rows = evaluations.gradient[:n] * base_of(generator).prior.scale
        return cls(outside(rows, directions), features[:n], (draw.log_p - draw.log_q)[:n])

    def __add__(self, other: Remainder) -> Remainder:
        """Return both together; their samples may be those of two flows with the same directions."""
        return Remainder(
            torch.cat([self.squares, other.squares]),
            torch.cat([self.features, other.features]),
            torch.cat([self.log_ratio, other.log_ratio]),
        )

    def bound(self, objective: Objective) -> Estimate:
        """Return the bound on what is given away under an objective, which may have other coefficients now."""
        squares = self.squares * objective.gradient_factor**2
        return given_away(squares, self.log_ratio - objective.energy(self.features))


def has_one_target(generator: Generator, condition: Condition) -> bool:
    """Return whether a flow has one target, so that weights compare all samples: not one per condition or class."""
    return not condition_of(generator) + condition and not held_by(generator)


def needed_directions(generator: Generator, evaluations: Evaluations, objective: Objective) -> int | None:
    """Return how many active directions give away little by samples of the generator, as `enough_directions` does.

    It is None as well if there is no gradient to tell, or if the multipliers are not known yet, but zero.
    """
    if evaluations.gradient is None or not objective.gradient_factor:
        return None
    energy = objective.energy(objective.features(evaluations.outputs))
    scale = base_of(generator).prior.scale * objective.gradient_factor
    return enough_directions(evaluations.gradient, scale, -energy)

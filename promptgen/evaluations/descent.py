"""Training a flow on a surrogate's energy, which makes no image.

The reverse KL is minimised with the path gradient. The result is the average of the flow's parameters over the last
steps, so that its shares do not depend on the noise of single steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.flows.fit import fit_statistics

BATCH, CLIP = 256, 20.0
"""Samples in a step, and the largest norm of a gradient."""

BLOCK_STEPS, FEW_BLOCKS, MOST_BLOCKS = 200, 2, 5
"""Optimiser steps in a block, and most blocks of a quick and of a thorough descent; after each block, the learning rate
starts again from half its first value."""

LEARNING_RATE = 4e-3

WARM_UP = 0.3
"""First fraction of the first block, in which the energy grows to its full size."""

TAIL = 0.3
"""Last fraction of the steps, over which the parameters are averaged."""

LARGE_GAIN, LEAST_GAIN = 0.1, 0.03
"""Fraction of the gap that a block has to close for another one to follow, in a quick and in a thorough descent."""

NEGLIGIBLE_GAP = 0.01
"""Gap, nats, below which no further block follows."""

GAP_SAMPLES = 5_120

EnergyFunction = Callable[[Draw], Tensor]
"""Maps samples to predicted energies, nats, (B,)."""


@dataclass
class Descent:
    """Trains the flow of a proposal.

    Args:
        proposal: has the flow, which is trained in place.
        energy: predicted energy.
        report: called after every step with its loss, nats, and how many of how many steps are done.
    """

    proposal: Proposal
    energy: EnergyFunction
    report: Callable[[float, int, int], None]

    def run(self, name: str, *, fresh: bool = False, thorough: bool = False) -> None:
        """Do blocks of steps until they no longer close the gap to the surrogate's density.

        Args:
            name: name of the random streams.
            fresh: whether the flow is untrained, so that the energy has to grow slowly.
            thorough: whether to go on until hardly anything is gained, for a flow that is to be used.
        """
        most, least_gain = (MOST_BLOCKS, LEAST_GAIN) if thorough else (FEW_BLOCKS, LARGE_GAIN)
        last = math.inf if fresh else self.gap()
        for block in range(most):
            first = fresh and block == 0
            rate = LEARNING_RATE if first else LEARNING_RATE / 2
            self.steps(BLOCK_STEPS, rate, name, block, warm_up=WARM_UP if first else 0.0)
            gap = self.gap()
            if gap < NEGLIGIBLE_GAP or gap > (1 - least_gain) * last:
                break
            last = gap

    def steps(self, count: int, rate: float, *names: str | int, warm_up: float = 0.0) -> None:
        """Do `count` steps of Adam, whose learning rate falls linearly from `rate`."""
        flow = self.proposal.flow
        assert flow is not None
        parameters = list(flow.parameters())
        optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, count)
        average = AveragedModel(flow)
        for step in range(count):
            draw = self.proposal.draw(BATCH, "descent", *names, step, path=True)
            heat = min(1.0, (step + 1) / max(1.0, warm_up * count))
            divergence, energy = draw.log_q - draw.log_p, self.energy(draw)
            loss = (divergence + heat * energy).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            schedule.step()
            if step >= (1 - TAIL) * count:
                average.update_parameters(flow)
            self.report(float((divergence + energy).detach().mean()), step + 1, count)
        flow.load_state_dict(average.module.state_dict())

    @torch.no_grad()
    def gap(self) -> float:
        """Return the KL of the flow to the surrogate's density, nats."""
        draw = self.proposal.draw(GAP_SAMPLES, "descent", "gap")
        return fit_statistics(draw.log_p - self.energy(draw) - draw.log_q).kl_gap

"""Training a flow on the true gradients of its own samples, where a surrogate does not get far.

From few records, a surrogate learns an energy that depends on few directions of the latent. Of one that depends on all
of them it learns too little, while the true gradients of a few samples still tell the flow where to move. The gradient
of a record is constant, so the energy is replaced by the linear function with this gradient; the path gradient of the
reverse KL is then what it would be with the image at hand, and each record is used once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from promptgen.evaluations.objective import Objective
from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.evaluations.store import Evaluations

BATCH, LEARNING_RATE, CLIP = 16, 5e-4, 50.0
"""Samples in a step, the learning rate of the first step, and the largest norm of a gradient."""

TAIL = 0.3
"""Last fraction of the steps, over which the parameters are averaged."""

COMPARED = 0.25
"""First and last fraction of the steps whose losses tell whether the flow has become better."""


@dataclass
class Polish:
    """Trains the flow of a proposal.

    Args:
        proposal: has the flow, which is trained in place.
        objective: the energy.
        evaluate: maps samples to true evaluations with the gradient of the energy.
        report: called after every step with its loss, nats, and how many of how many steps are done.

    Attributes:
        kept: whether the flow has become better; if not, it is what it was.
    """

    proposal: Proposal
    objective: Objective
    evaluate: Callable[[Draw, str], Evaluations]
    report: Callable[[float, int, int], None]
    kept: bool = False

    def run(self, images: int) -> list[Evaluations]:
        """Do as many steps of Adam as `images` allow; return their evaluations."""
        flow, count = self.proposal.flow, images // BATCH
        assert flow is not None
        before = {name: value.detach().clone() for name, value in flow.state_dict().items()}
        parameters, average = list(flow.parameters()), AveragedModel(flow)
        optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, max(1, count))
        made: list[Evaluations] = []
        losses: list[float] = []
        for step in range(count):
            draw = self.proposal.draw(BATCH, "polish", step, path=True)
            made.append(evaluations := self.evaluate(draw, f"polish {step}"))
            divergence = draw.log_q - draw.log_p
            optimiser.zero_grad()
            (divergence + self.linear_energy(draw.base, evaluations)).mean().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            schedule.step()
            if step >= (1 - TAIL) * count:
                average.update_parameters(flow)
            energy = self.objective.energy(self.objective.features(evaluations.outputs))
            losses.append(float((divergence.detach() + energy).mean()))
            self.report(losses[-1], step + 1, count)
        compared = round(COMPARED * count)
        self.kept = sum(losses[count - compared :]) < sum(losses[:compared])
        flow.load_state_dict(average.module.state_dict() if self.kept else before)
        return made

    def linear_energy(self, base: Tensor, evaluations: Evaluations) -> Tensor:
        """Return the linear function of base latents, (B, D), with the gradient of the energy, up to a constant, (B,).

        The evaluations hold the gradient of `Objective.energy_slope`.
        """
        assert evaluations.gradient is not None
        return (base * evaluations.gradient).sum(dim=1) * self.objective.size

"""Training a flow on a surrogate's energy, which makes no image.

The reverse KL, KL(q || p*) from the flow's density q to the surrogate's density p*, is minimised with the path
gradient. It hardly sees places where q is far below p*, whose few samples would have most of the weight, and it may
drop a mode that is far from the others. So a part of the forward KL, KL(p* || q), is minimised, too, on weighted
samples, half from the flow and half from the distribution that it starts from; all of it if they show a dropped mode.
The result is the average of the flow's parameters over the last steps, so that its shares do not depend on the noise of
single steps.

Vaitl, Winkler, Richter, Kessel, "Fast and unified path gradient estimators for normalizing flows", ICLR 2024,
https://arxiv.org/abs/2403.15881
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.flows.flow import Flow
from promptgen.networks.distributed import from_first, gathered, share, sum_gradients
from promptgen.seeding import stream

BATCH, CLIP = 256, 20.0
"""Samples in a step, and the largest norm of a gradient."""

QUICK_STEPS, THOROUGH_STEPS, POOL_STEPS = 400, 1200, 200
"""Optimiser steps of a quick and of a thorough descent, and those after which a new pool is drawn."""

LEARNING_RATE = 6e-3
"""Learning rate of the first step of an untrained flow; a trained one starts at half of it."""

WARM_UP = 80
"""First steps of an untrained flow, in which the energy grows to its full size."""

TAIL = 0.3
"""Last fraction of the steps, over which the parameters are averaged."""

NEGLIGIBLE_GAP = 0.01
"""Gap, nats, that needs no descent."""

POOL_SIZE = 10_240
"""Samples from the flow in a pool, and as many from the distribution that it starts from."""

LARGEST_RATIO = 50.0
"""Largest ``log p*/q`` that counts, so that a mode counts by its mass: how far below it the flow is hardly matters."""

FORWARD_WEIGHT = 0.3
"""Weight of the forward KL relative to the reverse one, unless a mode is dropped, when it is 1."""

DROPPED = 4.0
"""A mode counts as dropped if the forward KL is this many times the reverse one."""

LEAST_EFFECTIVE = 200
"""Least effective sample size of a pool for the forward KL: fewer samples would be learned by heart."""

EnergyFunction = Callable[[Draw], Tensor]
"""Maps samples to predicted energies, nats, (B,)."""


@dataclass(frozen=True)
class Pool:
    """Weighted samples of the surrogate's density.

    Attributes:
        latent: latents of the generator, (N, D).
        own: conditions of the flow, (N, C); None without any.
        weights: weights, (N,), which sum to 1.
        reverse: KL(q || p*) of the flow that the pool was drawn with, nats.
        forward: KL(p* || q), nats, with log ratios of at most `LARGEST_RATIO`.
    """

    latent: Tensor
    own: Tensor | None
    weights: Tensor
    reverse: float
    forward: float

    @property
    def effective(self) -> float:
        """Effective sample size."""
        return 1 / float(self.weights.square().sum())

    @property
    def informative(self) -> bool:
        """Whether there are enough samples to tell what the flow lacks, and to learn it from."""
        return self.effective >= LEAST_EFFECTIVE

    @property
    def missing(self) -> float:
        """By how much the forward KL is larger than that of a flow without a dropped mode, nats; else 0.

        It is 0 as well if the pool is not informative.
        """
        usual = DROPPED * (self.reverse + NEGLIGIBLE_GAP)
        return max(0.0, self.forward - usual) if self.informative else 0.0

    @property
    def gap(self) -> float:
        """How far the flow is from the density, nats: the reverse KL, and what counts of the forward one."""
        return self.reverse + (max(self.missing, FORWARD_WEIGHT * self.forward) if self.informative else 0.0)


@dataclass
class Descent:
    """Trains the flow of a proposal.

    Args:
        proposal: has the flow, which is trained in place.
        start: the distribution that the flow starts from.
        energy: predicted energy.
        report: called after every step with its loss, nats, and how many of how many steps are done.
    """

    proposal: Proposal
    start: Proposal
    energy: EnergyFunction
    report: Callable[[float, int, int], None]

    def run(self, name: str, *, fresh: bool = False, thorough: bool = False) -> None:
        """Move the flow towards the surrogate's density; keep it as it was if that was closer.

        Args:
            name: name of the random streams.
            fresh: whether the flow is untrained, so that the energy has to grow slowly.
            thorough: whether to take many steps, for a flow that is to be used.
        """
        flow = self.proposal.flow
        assert flow is not None
        self.pool, before = from_first(partial(self.new_pool, name, "first")), _copy(flow)
        gap = math.inf if fresh else self.pool.gap
        if gap < NEGLIGIBLE_GAP:
            return
        count, rate = THOROUGH_STEPS if thorough else QUICK_STEPS, LEARNING_RATE if fresh else LEARNING_RATE / 2
        self.steps(count, rate, name, warm_up=WARM_UP if fresh else 0)
        self.pool = from_first(partial(self.new_pool, name, "last"))
        if not self.pool.gap <= gap:  # a gap of NaN is undone, too
            flow.load_state_dict(before)

    def steps(self, count: int, rate: float, *names: str | int, warm_up: int = 0) -> None:
        """Do `count` steps of Adam, whose learning rate falls linearly from `rate`, beginning with the present pool."""
        flow = self.proposal.flow
        assert flow is not None
        parameters = list(flow.parameters())
        optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, count)
        average = AveragedModel(flow)
        rng = stream(self.proposal.seed, "pool", *names)
        for step in range(count):
            if step and step % POOL_STEPS == 0:
                self.pool = from_first(partial(self.new_pool, *names, step))
            pool, forward_weight = self.pool, self.forward_weight()
            draw, own = self.proposal.draw(BATCH, "descent", *names, step, path=True, divided=True), share(BATCH)
            heat = min(1.0, (step + 1) / max(1, warm_up))
            divergence, energy = draw.log_q - draw.log_p, self.energy(draw)
            loss = (divergence + heat * energy).mean()
            if forward_weight:
                chosen = torch.multinomial(pool.weights, BATCH, replacement=True, generator=rng)[own]
                condition = None if pool.own is None else pool.own[chosen]
                loss = loss - forward_weight * flow.log_prob(pool.latent[chosen], condition).mean()
            optimiser.zero_grad()
            (loss * (len(draw) / BATCH)).backward()  # type: ignore[no-untyped-call]
            sum_gradients(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            schedule.step()
            if step >= (1 - TAIL) * count:
                average.update_parameters(flow)
            self.report(float(gathered((divergence + energy).detach()).mean()), step + 1, count)
        flow.load_state_dict(average.module.state_dict())

    def forward_weight(self) -> float:
        """Return the weight of the forward KL on the present pool."""
        # Under a condition, each of its values has a normalising constant of its own, which the weights ignore.
        dropped = self.pool.missing > 0 and not self.proposal.condition
        return (1.0 if dropped else FORWARD_WEIGHT) if self.pool.informative else 0.0

    @torch.no_grad()
    def new_pool(self, *names: str | int) -> Pool:
        """Return samples of the flow and of its start, weighted to the surrogate's density."""
        draw = self.proposal.mixed(self.start, POOL_SIZE, "pool", *names)
        log_wanted = draw.log_p - self.energy(draw)
        log_weight = log_wanted - torch.logaddexp(draw.log_p, draw.log_q) + math.log(2)
        log_z = torch.logsumexp(log_weight, dim=0) - math.log(len(draw))
        weights, log_ratio = log_weight.softmax(dim=0), log_wanted - draw.log_q - log_z
        return Pool(
            draw.latent,
            self.proposal.own(draw.context),
            weights,
            -float(log_ratio[:POOL_SIZE].mean()),
            float(weights @ log_ratio.clamp(max=LARGEST_RATIO)),
        )


def _copy(flow: Flow) -> dict[str, Tensor]:
    """Return the parameters and buffers of a flow as they are now."""
    return {name: value.detach().clone() for name, value in flow.state_dict().items()}

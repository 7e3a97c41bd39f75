"""How good a sampler is at one moment: measured on fresh samples, against the truth, at no cost in units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.tasks import BYSTANDER, Task
from promptgen.energies.base import Energy, Sample
from promptgen.flows.fit import fit_statistics
from promptgen.flows.flow import Flow, standard_log_prob
from promptgen.flows.sampling import latent_blocks
from promptgen.generators.base import GaussianPrior
from promptgen.labels import features
from promptgen.metrics.distances import kl_to_target
from promptgen.metrics.shares import wilson

STREAM = "measure"


@dataclass(frozen=True)
class Draws:
    """Samples of a sampler.

    Attributes:
        latent: latents of the task's generator, (B, D).
        log_q: their log density, nats, (B,); None if it is not known.
        log_weight: log weights that the sampler gives them, nats, (B,); None means equal weights.
    """

    latent: Tensor
    log_q: Tensor | None = None
    log_weight: Tensor | None = None


class Sampler(Protocol):
    """What a method has arrived at: a distribution to draw from."""

    def draw(self, n: int, seed: int) -> Iterator[Draws]:
        """Yield `n` fresh samples in batches."""
        ...


@dataclass(frozen=True)
class FlowSampler:
    """Samples of an unconditional flow."""

    flow: Flow

    @torch.no_grad()
    def draw(self, n: int, seed: int) -> Iterator[Draws]:
        """Yield `n` samples with their densities."""
        for eps in latent_blocks(GaussianPrior.standard(self.flow.dim), n, seed, STREAM):
            latent, log_det = self.flow(eps)
            yield Draws(latent, standard_log_prob(eps) - log_det)


@dataclass(frozen=True)
class WeightedPrior:
    """Samples of the prior, weighted by ``exp(-E)``."""

    task: Task
    energy: Energy

    @torch.no_grad()
    def draw(self, n: int, seed: int) -> Iterator[Draws]:
        """Yield `n` samples with their densities and weights."""
        prior = self.task.generator.prior
        for latent in latent_blocks(prior, n, seed, STREAM):
            log_weight = -self.energy(Sample(latent, self.task.generator(latent)))
            yield Draws(latent, prior.log_prob(latent), log_weight)


@dataclass(frozen=True)
class Points:
    """Samples that are there already, without a density, (n, D)."""

    latents: Tensor

    def draw(self, n: int, seed: int) -> Iterator[Draws]:
        """Yield the first `n` of them."""
        yield Draws(self.latents[:n])


@dataclass(frozen=True)
class Measurement:
    """A sampler against the truth.

    Attributes:
        kl: KL of the shares of hard labels to the wanted ones, nats.
        ess: effective sample size, as a fraction, of the samples weighted to the wanted density; None without density.
        gap: KL of the sampler to the wanted density, nats; None without density, or with weights.
        bystander: share of the bystander minus its true share under the wanted density.
        bystander_low: lower end of the 95 % interval of that difference.
        bystander_high: upper end.
        samples: number of samples.
    """

    kl: float
    ess: float | None
    gap: float | None
    bystander: float
    bystander_low: float
    bystander_high: float
    samples: int


@torch.no_grad()
def measure(task: Task, sampler: Sampler, seed: int, n: int) -> Measurement:
    """Measure a sampler on `n` fresh samples; the task's own generator counts nothing."""
    labels, bystander, log_w, sampler_log_w = [], [], [], []
    for draws in sampler.draw(n, seed):
        image = task.generator(draws.latent)
        logits = task.classifier(image)
        labels.append(features(logits, [task.attribute], "hard").double())
        bystander.append(features(logits, [BYSTANDER], "hard")[:, 1].double())
        sampler_log_w.append(draws.latent.new_zeros(len(image)) if draws.log_weight is None else draws.log_weight)
        if draws.log_q is not None:
            log_p = task.generator.prior.log_prob(draws.latent)
            log_w.append(log_p - task.wanted(Sample(draws.latent, image)) - draws.log_q)
    weights = torch.cat(sampler_log_w).double().softmax(dim=0)
    shares, bystander_share = weights @ torch.cat(labels), float(weights @ torch.cat(bystander))
    effective = float(1 / weights.square().sum())
    interval = wilson(min(bystander_share, 1.0) * effective, effective)
    fit = fit_statistics(torch.cat(log_w)) if log_w else None
    weighted = float(weights.max() - weights.min()) > 0
    return Measurement(
        kl=float(kl_to_target(shares.numpy(), task.target)),
        ess=fit.ess_fraction if fit else None,
        gap=task.truth.log_z - fit.log_z_bound if fit and not weighted else None,
        bystander=interval.value - task.truth.bystander,
        bystander_low=interval.low - task.truth.bystander,
        bystander_high=interval.high - task.truth.bystander,
        samples=len(weights),
    )

"""Langevin dynamics on a network that reads latents: the generator is not used while sampling, and nothing is exact.

After Nie, Vahdat, Anandkumar, *Controllable and Compositional Generation with Latent-Space Energy-Based Models* (LACE),
NeurIPS 2021, arXiv 2110.10873: a classifier of latents is trained on samples of the prior, and latents are drawn from
``p(z) P(class | z)``, here with the classes in the wanted shares. For an energy, the network learns its value.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measures import Points
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.energies.base import Sample
from promptgen.flows.sampling import generate
from promptgen.generators.plain import linear
from promptgen.labels import hard_labels
from promptgen.seeding import stream

ROUNDS = (2048, 8192)
"""Numbers of images after which a network is trained and sampled."""

HIDDEN = 128
TRAINING_STEPS, BATCH, RATE, DECAY = 600, 256, 2e-3, 1e-2
CHAINS, BURN_IN, THINNING = 2048, 80, 5
STEP = 0.05

LatentEnergy = Callable[[Tensor], Tensor]
"""Maps latents, (B, D), to energies, (B,)."""


def sample_latents(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Train networks on more and more images, and sample each by Langevin dynamics."""
    latents, answers = torch.empty(0, task.dim), torch.empty(0)
    for count in ROUNDS:
        for latent, image in generate(generator, count - generator.forward, seed=seed, stream=f"latents {count}"):
            latents = torch.cat([latents, latent])
            answer = (
                task.energy(Sample(latent, image))
                if task.energy
                else hard_labels(task.classifier(image), task.attribute)
            )
            answers = torch.cat([answers, answer])
        network = fit_network(task, latents, answers, seed)
        watch(Points(langevin(latent_energy(task, network, seed), task, seed)))


def answer_of(task: Task, sample: Sample) -> Tensor:
    """Return what the network has to learn, (B,): the energy that is asked for, or labels."""
    return task.energy(sample) if task.energy else hard_labels(task.classifier(sample.image), task.attribute)


def fit_network(task: Task, latents: Tensor, answers: Tensor, seed: int) -> nn.Module:
    """Train a network on latents, (n, D), and their labels or energies, (n,)."""
    rng = stream(seed, "network", len(latents))
    outputs = 1 if task.energy else len(task.target)
    network = nn.Sequential(
        linear(task.dim, HIDDEN, rng), nn.SiLU(), linear(HIDDEN, HIDDEN, rng), nn.SiLU(), linear(HIDDEN, outputs, rng)
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=TRAINING_STEPS)
    for _ in range(TRAINING_STEPS):
        batch = torch.randint(len(latents), (BATCH,), generator=rng)
        output, answer = network(latents[batch]), answers[batch]
        loss = F.mse_loss(output[:, 0], answer) if task.energy else F.cross_entropy(output, answer.long())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
    return network.requires_grad_(False)


def latent_energy(task: Task, network: nn.Module, seed: int) -> LatentEnergy:
    """Return the energy of the chains: the network's, or minus the log-probability of the class of each chain."""
    if task.energy is not None:
        return lambda latent: network(latent)[:, 0]
    shares, rng = torch.from_numpy(task.target), stream(seed, "classes")
    wanted = torch.multinomial(shares, CHAINS, replacement=True, generator=rng)
    return lambda latent: F.cross_entropy(network(latent), wanted[: len(latent)], reduction="none")


def langevin(energy: LatentEnergy, task: Task, seed: int) -> Tensor:
    """Return samples, (n, D), of ``N(z; 0, I) exp(-E(z))``, by a scheme that is exact without the energy."""
    rng, drawn = stream(seed, "langevin"), list[Tensor]()
    latent = torch.randn(min(CHAINS, task.samples), task.dim, generator=rng)
    for step in range(BURN_IN + THINNING * -(-task.samples // len(latent))):
        latent = latent.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(latent).sum(), latent)
        noise = torch.randn(latent.shape, generator=rng)
        latent = (1 - STEP) ** 0.5 * latent.detach() - STEP / 2 * gradient + STEP**0.5 * noise
        if step >= BURN_IN and (step + 1) % THINNING == 0:
            drawn.append(latent)
    return torch.cat(drawn)

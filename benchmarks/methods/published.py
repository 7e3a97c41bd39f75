"""The published recipe: soft moments by 500 squared-error steps, a factor of 2, and the plain reverse KL.

Wu, Motamed, Srivastava, De la Torre, *Generative Visual Prompt*, NeurIPS 2022, arXiv 2209.06970: 500 x 1,024 images for
the multipliers, 2,000 x 256 with gradient for the flow; 1,280 x 8 with gradient for an energy. Each image is used once.
"""

from __future__ import annotations

import torch

from benchmarks.methods.training import train_watched
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.energies.moment import MomentEnergy
from promptgen.flows.flow import FlowConfig
from promptgen.flows.sampling import latent_blocks
from promptgen.flows.training import TrainingConfig
from promptgen.labels import features
from promptgen.metrics.estimate import Vector

MOMENT_STEPS, MOMENT_BATCH, MOMENT_RATE = 500, 1024, 0.05
FACTOR = 2.0
CLIP = 1.0
FLOW = FlowConfig(blocks=8, hidden=256, log_scale_bound=2.0)
CONTROL = TrainingConfig(steps=1280, batch=8, learning_rate=1e-3, clip=CLIP, method="plain", validate_every=1280)
DEBIAS = TrainingConfig(steps=2000, batch=256, learning_rate=1e-3, clip=CLIP, method="plain", validate_every=2000)


def train_as_published(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Fit multipliers, if shares are asked for, and train a flow."""
    if task.energy is not None:
        train_watched(task, generator, task.energy, CONTROL, seed, watch, flow_config=FLOW)
        return
    beta = soft_multipliers(task, generator, seed)
    energy = MomentEnergy(task.classifier, task.attribute, beta, weight=FACTOR, kind="soft")
    train_watched(task, generator, energy, DEBIAS, seed, watch, flow_config=FLOW)


def soft_multipliers(task: Task, generator: CountedGenerator, seed: int) -> Vector:
    """Fit the multipliers, (K,), of mean probabilities: minimise the squared error of the weighted means by Adam."""
    target = torch.as_tensor(task.target, dtype=torch.float32)
    beta = torch.zeros_like(target, requires_grad=True)
    optimiser = torch.optim.Adam([beta], lr=MOMENT_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=MOMENT_STEPS)
    blocks = latent_blocks(generator.prior, MOMENT_STEPS * MOMENT_BATCH, seed, "published moments", block=MOMENT_BATCH)
    for latent in blocks:
        gamma = features(task.classifier(generator(latent)), [task.attribute], "soft")
        error = (gamma @ beta).softmax(dim=0) @ gamma - target
        optimiser.zero_grad()
        error.square().sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([beta], CLIP)
        optimiser.step()
        decay.step()
    fitted: Vector = beta.detach().double().numpy()
    return fitted

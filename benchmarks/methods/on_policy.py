"""The path gradient on the flow's own samples, each used once; multipliers from one draw, moved by dual ascent.

These are the settings that the default experiment had before evaluations were kept.
"""

from __future__ import annotations

import torch

from benchmarks.methods.training import train_watched
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.energies.moment import MomentEnergy
from promptgen.flows.sampling import generate
from promptgen.flows.training import TrainingConfig
from promptgen.labels import features
from promptgen.moments.ascent import MomentAscent
from promptgen.moments.config import DualConfig
from promptgen.moments.multipliers import fit_moments

LABELS = 4096
CONTROL = TrainingConfig(steps=250, batch=64, learning_rate=0.002, clip=50.0, validation_samples=128)
DEBIAS = TrainingConfig(steps=200, batch=64, learning_rate=0.002, clip=50.0, validation_samples=128)
DUAL = DualConfig(rate=0.025, warm_up=0.2, average_last=0.3, hold=0.1)


def train_on_policy(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Fit multipliers to labels of the prior, if shares are asked for, and train a flow."""
    if task.energy is not None:
        train_watched(task, generator, task.energy, CONTROL, seed, watch)
        return
    images = generate(generator, LABELS, seed=seed, stream="moments", batch=256)
    labels = torch.cat([features(task.classifier(image), [task.attribute], "hard") for _, image in images])
    energy = MomentEnergy(task.classifier, task.attribute)
    energy.set_beta(fit_moments(labels, task.target, names=energy.names).beta)
    ascent = MomentAscent(energy, task.target, steps=DEBIAS.steps, config=DUAL)
    train_watched(task, generator, energy, DEBIAS, seed, watch, ascent)

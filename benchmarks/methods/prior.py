"""The prior weighted: no training at all, but every image drawn afterwards counts only with its weight."""

from __future__ import annotations

import torch

from benchmarks.measures import WeightedPrior
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from benchmarks.truth import both_features, multipliers
from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.flows.sampling import generate

ROUNDS = tuple(2**power for power in range(9, 17))
"""Numbers of images after which there is something to measure."""


def weigh_prior(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Fit the multipliers to more and more images, if all classes occur; an energy that is asked for needs no fit."""
    soft = hard = torch.empty(0, len(task.target), dtype=torch.float64)
    for count in ROUNDS:
        for latent, image in generate(generator, count - generator.forward, seed=seed, stream=f"prior {count}"):
            if task.energy is None:
                parts = both_features(task.classifier(image), task.attribute)
                soft, hard = torch.cat([soft, parts[0]]), torch.cat([hard, parts[1]])
            else:
                task.energy(Sample(latent, image))
        tilt = MomentEnergy(task.classifier, task.attribute, multipliers(soft, hard, task.target))
        watch(WeightedPrior(task, task.energy or tilt))

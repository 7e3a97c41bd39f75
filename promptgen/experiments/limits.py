"""Whether an experiment fits on this machine, by the memory that its numbers need in any case."""

from __future__ import annotations

import os
from collections.abc import Iterator

from promptgen.config.params import Params
from promptgen.errors import ConfigError
from promptgen.evaluations.config import GRADIENT_UNITS, SHARD_SIZE, ReuseConfig
from promptgen.experiments.plan import FLOW_BYTES
from promptgen.flows.config import LARGEST_DENSE, TrainingConfig

NUMBER = 4
"""Bytes of a number in single precision."""

ROW = 100
"""Bytes of a training step's row in the history, or of a block of samples in a list of them, at least."""


def require_memory(params: Params, dim: int, pixels: int, held: int = 0) -> None:
    """Check that each key that sets a size needs less memory than this machine has.

    Only what is certainly held at once counts, so a refused experiment cannot run; an accepted one may still be too
    large. `promptgen.experiments.plan` estimates what it takes.

    Args:
        params: the experiment.
        dim: coordinates of the generator's latent.
        pixels: numbers in one of its images.
        held: number of the latent's last coordinates, such as that of a class, that flows leave as they are.

    Raises:
        ConfigError: a key needs more; the message names all such keys.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    faults = [
        f"{key} takes at least {needed / 1e9:,.0f} GB of memory, and this machine has {memory / 1e9:,.0f} GB"
        for key, needed in _needs(params, dim, pixels, held)
        if needed > memory
    ]
    if faults:
        raise ConfigError(f"{'; '.join(faults)}: reduce {'it' if len(faults) == 1 else 'them'} in params.yaml")


def _needs(params: Params, dim: int, pixels: int, held: int) -> Iterator[tuple[str, int]]:
    """Yield what the key of each size needs, bytes."""
    debias, evaluation, classes = params.debias, params.evaluation, len(params.debias.target or (0, 1))
    # beyond the largest dense flow, one that is confined to directions has at least two of them
    moved = dim if dim - held <= LARGEST_DENSE or params.moves_all_directions else held + 2
    flow = params.flow.parameters(moved, len(params.condition), held) * FLOW_BYTES
    yield f"flow with {params.flow.blocks} blocks and hidden: {params.flow.hidden}", flow
    yield f"debias.samples: {debias.samples}", debias.samples * classes * 2 * NUMBER
    yield f"debias.bootstrap: {debias.bootstrap}", debias.bootstrap * classes * 2 * NUMBER
    yield f"evaluation.samples: {evaluation.samples}", evaluation.samples // SHARD_SIZE * ROW  # a list of blocks
    yield f"evaluation.bootstrap: {evaluation.bootstrap}", evaluation.bootstrap * classes * 2 * NUMBER
    yield f"evaluation.fit_samples: {evaluation.fit_samples}", evaluation.fit_samples * NUMBER
    largest = max(evaluation.samples, debias.samples, evaluation.grid)
    yield f"evaluation.batch: {evaluation.batch}", min(evaluation.batch, largest) * pixels * NUMBER
    trainings = {"control": params.control and params.control.training, "debias": debias.training}
    for section, training in trainings.items():
        for key, needed in _training_needs(training, dim, pixels) if training else ():
            yield f"{section}.training.{key}", needed


def _training_needs(training: ReuseConfig | TrainingConfig, dim: int, pixels: int) -> Iterator[tuple[str, int]]:
    at_once, name = training.at_once, "micro_batch" if training.micro_batch else "batch"
    yield f"{name}: {at_once}", at_once * (dim + pixels) * NUMBER
    if isinstance(training, TrainingConfig):
        yield f"steps: {training.steps}", training.steps * ROW
        yield f"batch: {training.batch}", training.batch * NUMBER
        yield f"validation_samples: {training.validation_samples}", training.validation_samples * NUMBER
    elif training.budget.images is not None:  # those with gradients are kept
        yield f"budget.images: {training.budget.images}", training.budget.images // GRADIENT_UNITS * dim * NUMBER

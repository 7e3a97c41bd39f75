"""How many images the steps of a pass draw without a gradient, and which models see them.

The steps draw by these figures, and plans count by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from promptgen.config.params import Params
from promptgen.config.spec import Spec
from promptgen.evaluations.config import ReuseConfig, fit_images, shared_records
from promptgen.metrics.sizes import PAIRS

SWEEP_ROWS, SWEEP_STEPS = 6, 7
"""Latents in a sweep, and conditions per coordinate."""


@dataclass(frozen=True)
class Draw:
    """Images that a generator makes without a gradient.

    Attributes:
        images: their number.
        readers: the models that see each of them.
    """

    images: int
    readers: tuple[Spec, ...] = ()


def fitting(params: Params, number: int) -> Draw:
    """Return the samples that the multipliers of pass `number` are fitted on.

    Where the flow before was trained on evaluations, its final fit has made the first ones.
    """
    samples, before, existing = params.debias.samples, params.training_of(number - 1), 0
    if isinstance(before, ReuseConfig) and params.reuses(number):
        fit = params.evaluation.fit_samples
        existing = shared_records(samples, fit_images(before.budget.images, fit) if before.budget.images else fit)
    return Draw(samples - existing, (params.debias.classifier,))


def measuring(params: Params, number: int) -> dict[str, Draw]:
    """Return what pass `number` is measured by: `samples`, a `grid`, and under a condition a `sweep` and `pairs`."""
    debias, evaluation = params.debias, params.evaluation
    pose = params.control.pose if params.control else None
    networks = (evaluation.identity, evaluation.features, pose.estimator if pose else None)
    readers = (debias.classifier, debias.judge, *(spec for spec in networks if spec))
    draws = {"samples": Draw(evaluation.samples, readers), "grid": Draw(evaluation.grid)}
    if number > 0 and params.condition:  # the generator alone is unconditional
        draws["sweep"] = Draw(SWEEP_ROWS * SWEEP_STEPS * len(params.condition))
        if evaluation.identity:
            draws["pairs"] = Draw(min(PAIRS, evaluation.samples), (evaluation.identity,))
    return draws


def confirming(params: Params) -> Draw:
    """Return the fresh samples that the last pass is counted on again."""
    return Draw(params.evaluation.samples, (params.debias.classifier, params.debias.judge))

"""The true evaluations of a training: images of the samples of a stage, and what the models read from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from promptgen.evaluations.config import Stage
from promptgen.evaluations.evaluator import Slope
from promptgen.evaluations.objective import Objective
from promptgen.evaluations.proposal import Draw
from promptgen.evaluations.store import Evaluations, EvaluationStore
from promptgen.networks.devices import torch_threads
from promptgen.networks.distributed import from_first
from promptgen.seeding import stream
from promptgen.tracking import NullTracker, Tracker


@dataclass
class Oracle:
    """Evaluates samples.

    Args:
        store: evaluates latents of the generator under the chain, and keeps what it has.
        seed: seed of the directions that are differentiated.
        tracker: receives the progress.
        threads: threads that make images.
    """

    store: EvaluationStore
    seed: int
    tracker: Tracker = field(default_factory=NullTracker)
    threads: int = field(default_factory=torch.get_num_threads)

    def evaluate(self, draw: Draw, name: str, slope: Slope | None = None) -> Evaluations:
        """Return the evaluations of samples, with gradients if there is something to differentiate."""
        total = len(draw)

        def evaluate() -> Evaluations:
            return self.store.evaluate(
                draw.base.detach(),
                draw.context,
                slope=slope,
                progress=lambda done: self.tracker.progress(done, total, f"images, {name}"),
            )

        with torch_threads(self.threads):
            return from_first(evaluate)

    def evaluate_stage(self, draw: Draw, name: str, stage: Stage, objective: Objective) -> list[Evaluations]:
        """Return the evaluations of samples to fit a surrogate to: first those with a gradient, then the others."""
        cut, evaluated = stage.gradients, []
        if cut:
            slope = objective.slope(cut, stream(self.seed, "slope", name))
            evaluated.append(self.evaluate(draw[:cut], f"{name}, gradients", slope))
        if stage.values:
            evaluated.append(self.evaluate(draw[cut:], name))
        return evaluated

    def evaluate_energy(self, draw: Draw, name: str, objective: Objective) -> Evaluations:
        """Return the evaluations of samples, with the gradient of the energy."""
        return self.evaluate(draw, name, objective.energy_slope(len(draw)))

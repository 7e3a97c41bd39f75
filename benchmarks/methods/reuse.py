"""Every evaluation is kept and used again, as the library does by default."""

from __future__ import annotations

from benchmarks.measures import FlowSampler
from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.energies.base import Term, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.landing import Target
from promptgen.evaluations.objective import control_objective, moment_objective
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.flows.flow import FlowConfig

UNITS = 4096
"""Budget of the training."""

FIT = 256
"""Images of the final fit; the comparison measures the fit at no cost, but the budget holds them, as in real use."""

BATCH = 256


def train_on_records(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Train a flow on evaluations, and show it to `watch` after every descent."""
    if task.energy is not None:
        objective, outputs = control_objective(WeightedSum({"energy": Term(task.energy)}), {"energy": "energy"})
        target = None
    else:
        objective, outputs = moment_objective(MomentEnergy(task.classifier, task.attribute), "classifier")
        target = Target(task.target)
    store = EvaluationStore(generator, outputs, batch=BATCH, seed=seed)
    trainer = Trainer(
        generator, store, objective, FlowConfig(), seed, target=target, observe=lambda flow: watch(FlowSampler(flow))
    )
    training = trainer.train(UNITS, fit_samples=FIT)
    watch(FlowSampler(training.flow))

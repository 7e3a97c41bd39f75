"""Every evaluation is kept and used again."""

from __future__ import annotations

from benchmarks.run import Watch
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task


def train_on_records(task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
    """Train a flow on a store of evaluations.

    What is asked for is `task.energy`, or `task.target` shares of `task.attribute` as `task.classifier` reads it. Call
    ``watch(FlowSampler(flow))`` after each round, whose units `generator` has counted.
    """
    raise NotImplementedError("promptgen.evaluations is not there yet")

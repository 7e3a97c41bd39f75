"""One run: a method on a task under a seed, measured at several points of its budget.

A method is a function that calls `watch` with what it has arrived at, as often as it likes; what is measured when, and
when the budget is spent, is decided here. The time that measuring takes is not counted, and neither are its images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.measures import SAMPLES, Sampler, measure
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task

Watch = Callable[[Sampler], None]
"""Takes what a method has arrived at; raises `BudgetSpent` when it is time to stop."""

Row = dict[str, Any]
"""A measurement: units, seconds, and the numbers of `benchmarks.measures.Measurement`."""


class BudgetSpent(Exception):  # noqa: N818
    """The units of a run are spent; no method catches it."""


class Method(Protocol):
    """A way to sample what a task asks for."""

    def __call__(self, task: Task, generator: CountedGenerator, seed: int, watch: Watch) -> None:
        """Do the task.

        Args:
            task: the task; `task.wanted` and `task.truth` are for measuring only.
            generator: the only generator that may be used.
            seed: seed of all randomness.
            watch: is called with a sampler at every point that may be worth measuring. It measures if the units have
                grown enough since the last time, so it may be called at every step.
        """
        ...


@dataclass
class _Watcher:
    """Measures where the units have grown by `growth` since the last measurement, and when the budget is spent."""

    task: Task
    generator: CountedGenerator
    seed: int
    budget: int
    growth: float
    samples: int
    rows: list[Row] = field(default_factory=list)
    last: Sampler | None = None
    measuring: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def __call__(self, sampler: Sampler) -> None:
        self.last, units = sampler, self.generator.units
        spent = units >= self.budget
        if spent or not self.rows or units >= self.rows[-1]["units"] * self.growth:
            self.measure(sampler)
        if spent:
            raise BudgetSpent

    def measure(self, sampler: Sampler) -> None:
        begun = time.perf_counter()
        seconds = begun - self.started - self.measuring
        measurement = measure(self.task, sampler, self.seed, self.samples)
        self.rows.append({"units": self.generator.units, "seconds": round(seconds, 3), **asdict(measurement)})
        self.measuring += time.perf_counter() - begun


def run(
    method: Method, task: Task, budget: int, seed: int, *, growth: float = 1.4, samples: int = SAMPLES
) -> list[Row]:
    """Run a method on a task and return its measurements, in the order of units.

    Args:
        method: the method.
        task: the task.
        budget: units after which the method is stopped; a unit is an image forward, one with gradient counts 3.
        seed: seed of the run.
        growth: factor between the units of two measurements.
        samples: number of samples per measurement.
    """
    generator = CountedGenerator(task.generator)
    watcher = _Watcher(task, generator, seed, budget, growth, samples)
    try:
        method(task, generator, seed, watcher)
    except BudgetSpent:
        return watcher.rows
    if watcher.last is not None:  # the method may have gone on without images
        watcher.rows = [row for row in watcher.rows if row["units"] < generator.units]
        watcher.measure(watcher.last)
    return watcher.rows

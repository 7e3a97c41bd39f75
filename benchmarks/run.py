"""One run: a method on a task under a seed, measured at several points of its budget.

A method is a function that calls `watch` with what it has arrived at, as often as it likes; what is measured when, and
when the budget is spent, is decided here. The time that measuring takes is not counted, and neither are its images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.measures import Sampler, measure
from benchmarks.scene import CountedGenerator
from benchmarks.tasks import Task
from promptgen.errors import PromptGenError

FIRST = 512
"""Units before which nothing is measured."""

GROWTH = 1.5
"""Factor between the units of two measurements."""

Watch = Callable[[Sampler], None]
"""Takes what a method has arrived at; raises `BudgetSpent` when it is time to stop."""

Row = dict[str, Any]
"""Units, seconds, and the numbers of a `benchmarks.measures.Measurement` or the `error` that ended a run."""


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


class _Watcher:
    """Measures when the units have grown enough since the last measurement, and when the budget is spent."""

    def __init__(self, task: Task, generator: CountedGenerator, budget: int, seed: int, samples: int) -> None:
        self.task, self.generator, self.budget, self.seed, self.samples = task, generator, budget, seed, samples
        self.rows: list[Row] = []
        self.last: Sampler | None = None
        self.next: float = FIRST
        self.measuring = 0.0
        self.started = time.perf_counter()

    def __call__(self, sampler: Sampler) -> None:
        """Take what the method has arrived at."""
        self.last, units = sampler, self.generator.units
        spent = units >= self.budget
        if spent or units >= self.next:
            self.measure(sampler)
            self.next = units * GROWTH
        if spent:
            raise BudgetSpent

    def measure(self, sampler: Sampler) -> None:
        """Add a measurement."""
        begun = time.perf_counter()
        measurement = asdict(measure(self.task, sampler, self.seed, self.samples))
        self.measuring += time.perf_counter() - begun
        self.rows.append(self.row(**measurement))

    def row(self, **numbers: Any) -> Row:
        """Return a row with the units and seconds of the method so far."""
        seconds = time.perf_counter() - self.started - self.measuring
        return {"units": self.generator.units, "seconds": round(seconds, 3), **numbers}


def run(method: Method, task: Task, budget: int, seed: int, *, samples: int | None = None) -> list[Row]:
    """Run a method on a task and return its measurements, in the order of units.

    An error of the library ends a run; its last row then says so.

    Args:
        method: the method.
        task: the task.
        budget: units after which the method is stopped; a unit is an image forward, one with gradient counts 3.
        seed: seed of the run.
        samples: number of samples per measurement; None means as many as the task says.
    """
    generator = CountedGenerator(task.generator)
    watcher = _Watcher(task, generator, budget, seed, samples or task.samples)
    try:
        method(task, generator, seed, watcher)
    except BudgetSpent:
        return watcher.rows
    except PromptGenError as error:
        return [*watcher.rows, watcher.row(error=str(error))]
    if watcher.last is not None:  # the method may have gone on without images
        watcher.rows = [row for row in watcher.rows if row["units"] < generator.units]
        watcher.measure(watcher.last)
    return watcher.rows

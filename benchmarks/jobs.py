"""The runs of a comparison, in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import torch

from benchmarks.registry import METHODS
from benchmarks.results import Key, Results, code_of
from benchmarks.run import Row, run
from benchmarks.tasks import TASKS, dim_of, make_task, seeds_of

QUICK_BUDGET, QUICK_SAMPLES = 8192, 4000


@dataclass(frozen=True)
class Job:
    """A run to be done.

    Attributes:
        task: name of the task.
        method: name of the method.
        seed: seed of the run.
        budget: units after which it is stopped.
        samples: samples per measurement; None means as many as the task says.
    """

    task: str
    method: str
    seed: int
    budget: int
    samples: int | None

    @property
    def key(self) -> Key:
        """What the results keep it by."""
        return self.task, self.method, self.seed

    @property
    def code(self) -> str:
        """Fingerprint of all that its rows depend on."""
        return code_of(METHODS[self.method].method.__module__, self.budget, self.samples)

    def rows(self) -> list[Row]:
        """Do it, and return its measurements."""
        method = METHODS[self.method].method
        return run(method, make_task(self.task), self.budget, self.seed, samples=self.samples)


def make_jobs(tasks: Iterable[str], methods: Iterable[str], seeds: int, quick: bool = False) -> list[Job]:
    """Return the runs of all tasks, methods and seeds, those with the most dimensions first.

    Args:
        tasks: names of tasks.
        methods: names of methods.
        seeds: number of seeds; a method or task may have fewer.
        quick: make them small, to try the program.
    """
    chosen = []
    for task in sorted(tasks, key=lambda name: (-dim_of(name), list(TASKS).index(name))):
        for method in methods:
            entry = METHODS[method]
            budget, samples = entry.budgets.get(dim_of(task)), None
            if budget is None:
                continue
            if quick:
                budget, samples = min(budget, QUICK_BUDGET), QUICK_SAMPLES
            numbers = range(min(seeds, entry.seeds, seeds_of(task)))
            chosen += [Job(task, method, seed, budget, samples) for seed in numbers]
    return chosen


def run_jobs(jobs: Sequence[Job], results: Results, processes: int) -> Iterator[Job]:
    """Do the jobs, each process with one thread, keep their rows in `results`, and yield each job when it is done."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start) as pool:
        futures = {pool.submit(Job.rows, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                results.replace(job.key, job.code, future.result())
                yield job
        finally:
            pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepare a process, so that no run pays for what is loaded once."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])

"""The steps as Prefect tasks: named, timed, their progress shown. The steps know themselves what is done already."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from uuid import UUID

import httpx
from prefect import Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from pipelines.loop import PassTracker
from pipelines.summary import artifact_key
from promptgen.errors import PromptGenError
from promptgen.progress import Bar
from promptgen.tracking import Tracker
from steps import confirm as _confirm
from steps import estimate_bias as _estimate_bias
from steps import evaluate as _evaluate
from steps import fit_moments as _fit_moments
from steps import sample as _sample
from steps import train_flow as _train_flow
from steps.shared.common import Pass, Result

logger = logging.getLogger("promptgen")

ARTIFACT_SECONDS = 5.0


class Progress:
    """Shows how far a task is, in the terminal and as an artifact of its task run; passes numbers on to a tracker."""

    def __init__(self, tracker: Tracker, bar: Bar, experiment: str) -> None:
        self._tracker, self._bar = tracker, bar
        self._key = artifact_key(experiment, bar.title)
        self._artifact: UUID | None = None
        self._shown = -math.inf

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Pass the numbers on."""
        self._tracker.metrics(values, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show how far the task is; the artifact follows every few seconds."""
        self._bar.progress(done, total, note)
        if done < total and time.monotonic() - self._shown < ARTIFACT_SECONDS:
            return
        self._shown = time.monotonic()
        try:
            self._show(100 * done / total)
        except (httpx.HTTPError, RuntimeError) as error:
            logger.debug("Prefect did not take the progress: %s", error)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            made = create_progress_artifact(percent, key=self._key, description=self._bar.title)
            self._artifact = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self._artifact, percent)


def as_task(name: str, run: Callable[[Pass, Tracker], Result]) -> Task[[Pass, PassTracker], Result]:
    """Return a step as a task."""

    @task(name=name, task_run_name=f"{name} {{this.number}}", cache_policy=NO_CACHE)
    def work(this: Pass, tracker: PassTracker) -> Result:
        started = time.perf_counter()
        with Bar(f"pass {this.number} {name}") as bar:
            result = run(this, Progress(tracker, bar, this.params.experiment))
        tracker.spent += time.perf_counter() - started
        return result

    return work


fit_moments = as_task("fit-moments", _fit_moments.run)
train_flow = as_task("train-flow", _train_flow.run)
sample = as_task("sample", _sample.run)
evaluate = as_task("evaluate", _evaluate.run)
estimate_bias = as_task("estimate-bias", _estimate_bias.run)
confirm = as_task("confirm", _confirm.run)


def quiet_errors() -> None:
    """Leave the traceback out of Prefect's log where an error of this project says in one line what to do."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], PromptGenError):
        record.exc_info = None
    return True

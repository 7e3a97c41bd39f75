"""The steps as Prefect tasks, with names, times and progress. The steps themselves skip work that is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

import pipelines
from pipelines.loop import PassRun
from pipelines.summary import artifact_key, in_flow_run, show
from promptgen.progress import Bar
from promptgen.tracking import Tracker
from steps import confirm as _confirm
from steps import estimate_bias as _estimate_bias
from steps import evaluate as _evaluate
from steps import fit_moments as _fit_moments
from steps import sample as _sample
from steps import train_flow as _train_flow
from steps.recording.events import Metrics
from steps.shared.common import Pass, Result

ARTIFACT_SECONDS = 5.0


class StepTracker(Bar):
    """The tracker of a step: writes its numbers to the journal and shows its progress in the terminal and in Prefect.

    Args:
        run: the pass that the step belongs to.
        title: of the bar, and of the progress artifact of the task run.
        experiment: name of the experiment.
    """

    def __init__(self, run: PassRun, title: str, experiment: str) -> None:
        super().__init__(title)
        self._run, self._key = run, artifact_key(experiment, title)
        self._artifact: UUID | None = None
        self._updated = -math.inf

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._run.journal.write(Metrics(run=self._run.name, values=dict(values), step=step))

    def progress(self, done: int, total: int | None, note: str = "") -> None:
        """Show the progress of the step; the artifact is updated every few seconds."""
        super().progress(done, total, note)
        if total is None or (done < total and time.monotonic() - self._updated < ARTIFACT_SECONDS):
            return
        self._updated = time.monotonic()
        percent = 100 * done / total
        if self._artifact is None:
            artifact = show(lambda: create_progress_artifact(percent, key=self._key, description=self.title))
            self._artifact = artifact if isinstance(artifact, UUID) else None
        else:
            artifact_id = self._artifact
            show(lambda: update_progress_artifact(artifact_id, percent))


def as_task(name: str, step: Callable[[Pass, Tracker], Result]) -> Callable[[Pass, PassRun], Result]:
    """Return a step as a task; outside of a flow run, it is the step alone."""

    def work(run_pass: Pass, run: PassRun) -> Result:
        started = time.perf_counter()
        with StepTracker(run, f"pass {run_pass.number} {name}", run_pass.params.experiment) as tracker:
            result = step(run_pass, tracker)
        pipelines.STEP_SECONDS.append(time.perf_counter() - started)
        return result

    in_prefect = task(name=name, task_run_name=f"{name} {{run_pass.number}}", cache_policy=NO_CACHE)(work)
    return lambda run_pass, run: (in_prefect if in_flow_run() else work)(run_pass, run)


fit_moments = as_task("fit-moments", _fit_moments.run)
train_flow = as_task("train-flow", _train_flow.run)
sample = as_task("sample", _sample.run)
evaluate = as_task("evaluate", _evaluate.run)
estimate_bias = as_task("estimate-bias", _estimate_bias.run)
confirm = as_task("confirm", _confirm.run)

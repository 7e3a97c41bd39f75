"""What the loop keeps while its passes run: the lock, the recorder, the records, the clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from prefect.runtime import flow_run

from pipelines.summary import show_grid, show_summary
from promptgen.files import folder_lock
from promptgen.records import Confirmation, PassRecord
from steps.measuring.records import pass_record, write_metrics
from steps.recording.recorder import MlflowTracker, Recorder
from steps.sample import GRID_NAME, SWEEP_NAME
from steps.shared.common import Pass, Project

logger = logging.getLogger("promptgen")


class PassTracker:
    """The tracker of one pass: hands numbers to MLflow, and sums the time that its steps take.

    Attributes:
        run: the pass's run in MLflow.
        spent: seconds in steps.
        confirmation: what the pass showed when it was counted once more; None while it was not.
    """

    def __init__(self, run: MlflowTracker) -> None:
        self.run = run
        self.spent = 0.0
        self.confirmation: Confirmation | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Hand the numbers on."""
        self.run.metrics(values, step)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Ignore the progress; the task that works shows it."""


class Loop:
    """One run of an experiment. Its folder is held as long as the loop is open.

    Args:
        project: the experiment.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._spent = 0.0
        self._records: list[PassRecord] = []
        self._confirmation: Confirmation | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        project, tracking = self.project, self.project.params.tracking
        with ExitStack() as stack:
            stack.enter_context(folder_lock(project.artifacts))
            recorder = Recorder(
                project.root,
                project.params.experiment,
                project.fingerprint,
                tracking_experiment=tracking.experiment,
                registered_model=tracking.registered_model,
            )
            self._recorder = stack.enter_context(recorder)
            tags = {"prefect.flow_run.id": str(flow_run.id)}
            if str(flow_run.ui_url).startswith("http"):  # without a server it has an address without a host
                tags["prefect.flow_run.url"] = str(flow_run.ui_url)
            recorder.start(project.params.model_dump(mode="json", exclude={"world"}), tags)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def passes(self) -> Iterator[Pass]:
        """Yield the passes that may be measured, in order."""
        for number in range(self.project.params.last_measured_pass + 1):
            yield Pass(self.project, number)

    @contextmanager
    def tracked(self, this: Pass) -> Iterator[PassTracker]:
        """Give the tracker of a pass; when its steps are done, record and show what came of them."""
        with self._recorder.run_pass(this.number, this.kind) as run:
            tracker = PassTracker(run)
            yield tracker
            self._spent += tracker.spent
            record = pass_record(this, confirmed=tracker.confirmation is not None)
            self._records.append(record)
            run.record(record)
            if tracker.confirmation is not None:
                run.confirm(tracker.confirmation)
                self._confirmation = tracker.confirmation
            for name in (GRID_NAME, SWEEP_NAME):
                if (picture := this.folder("sample") / name).exists():
                    run.artifact(picture)
            if this.number > 0:
                run.checkpoint(this.chain, this.project.weights)
            show_grid(this)

    def finish(self, last: Pass, stopped: str) -> dict[str, Any]:
        """Write reports/metrics.json and show the summary.

        Args:
            last: the pass after which the loop stops.
            stopped: why it stops.

        Returns:
            `stopped`, `passes` (how many), `metrics` (the file), `spent` (seconds in steps).

        Raises:
            StorageError: something cannot be written or removed.
        """
        metrics = write_metrics(self.project, self._records, stopped, self._confirmation)
        self.project.discard_passes_after(last.number + self.project.params.only_fits)
        self._recorder.finish(stopped, [metrics])
        logger.info("stopped after pass %d: %s", last.number, stopped)
        show_summary(self.project, metrics)
        place = metrics.relative_to(self.project.root).as_posix()
        return {"stopped": stopped, "passes": len(self._records), "metrics": place, "spent": self._spent}

"""The state of a running loop: its lock, journal, records and clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from prefect.runtime import flow_run

from pipelines.connection import is_temporary
from pipelines.summary import in_flow_run, show_grid, show_summary
from promptgen.files import folder_lock
from promptgen.records import Confirmation, PassRecord
from steps.measuring.records import pass_record, write_metrics
from steps.recording.journal import Journal
from steps.recording.replay import published
from steps.sample import GRID_NAME, SWEEP_NAME
from steps.shared.common import Pass, Project

logger = logging.getLogger("promptgen")


class PassRun:
    """The state shared by the tasks of one pass.

    Attributes:
        journal: their journal.
        name: of the pass's run in the journal.
        confirmation: the confirming count of the pass; None if there is none yet.
    """

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal, self.name = journal, name
        self.confirmation: Confirmation | None = None


class Loop:
    """One run of an experiment. It locks its folder while the loop is open."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._records: list[PassRecord] = []
        self._confirmation: Confirmation | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        project = self.project
        tags = {"prefect.flow_run.id": str(flow_run.id)} if in_flow_run() else {}
        if tags and not is_temporary():
            tags["prefect.flow_run.url"] = str(flow_run.ui_url)
        with ExitStack() as stack:
            stack.enter_context(folder_lock(project.artifacts))
            self._journal = Journal(project)
            stack.enter_context(published(self._journal.path.parent, project.root))
            stack.enter_context(self._journal.run_loop(tags))
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
    def tracked(self, run_pass: Pass) -> Iterator[PassRun]:
        """Yield the shared state of the tasks of a pass; afterwards record and show their results."""
        journal, number = self._journal, run_pass.number
        with journal.run_pass(number, run_pass.kind) as name:
            run = PassRun(journal, name)
            yield run
            self._confirmation = run.confirmation or self._confirmation
            record = pass_record(run_pass, confirmed=run.confirmation is not None)
            self._records.append(record)
            journal.record(record, run.confirmation)
            for picture in (GRID_NAME, SWEEP_NAME):
                if (path := run_pass.folder("sample") / picture).exists():
                    journal.artifact(name, path)
            if number > 0:
                journal.checkpoint(number, run_pass.chain)
            show_grid(run_pass)

    def finish(self, last: Pass, stopped: str) -> dict[str, Any]:
        """Write reports/metrics.json and show the summary.

        Args:
            last: the pass after which the loop stops.
            stopped: why it stops.

        Returns:
            `stopped`, `passes` (how many), `metrics` (the file).

        Raises:
            StorageError: something cannot be written or removed.
        """
        metrics = write_metrics(self.project, self._records, stopped, self._confirmation)
        self.project.discard_passes_after(last.number + self.project.params.only_fits)
        self._journal.finish(stopped, metrics)
        logger.info("stopped after pass %d: %s", last.number, stopped)
        show_summary(self.project, metrics)
        place = metrics.relative_to(self.project.root).as_posix()
        return {"stopped": stopped, "passes": len(self._records), "metrics": place}

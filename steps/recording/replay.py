"""Copies a loop's journal to MLflow: in the background of a run, and by `promptgen sync` afterwards.

A replay is idempotent: how much of the journal MLflow has is kept beside it, runs are found again by a tag, and a
number that is sent twice with the same step and time stays one number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
from pydantic import BaseModel, ValidationError

from promptgen.errors import PromptGenError, first_line
from promptgen.files import read_json, write_json
from steps.recording.events import EVENT, Event, MlflowRun, Start
from steps.recording.journal import JOURNAL_NAME, LOOP_RUN, Journal, journal_folder
from steps.recording.mlflow_store import TrackingError, connect, experiment_id, tracking_uri

if TYPE_CHECKING:
    from steps.shared.common import Project

logger = logging.getLogger("promptgen.tracking")

STATE_NAME = "mlflow.json"
PARENT_TAG = "mlflow.parentRunId"
RUN_TAG = "promptgen.run"
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}


@contextmanager
def published(folder: Path, root: Path, *, interval: float = 5.0, patience: float = 15.0) -> Iterator[None]:
    """Copy the journal in `folder` to MLflow, in a thread, while the block runs and once more at its end.

    The thread looks every `interval` seconds; the end of the block waits `patience` seconds for MLflow at most.
    """
    closing = threading.Event()

    def copy() -> None:
        closed = warned = False
        while not closed:
            closed = closing.wait(interval)
            try:
                if _is_behind(folder, root):
                    push(folder, root)
            except PromptGenError as error:
                logger.log(logging.DEBUG if warned else logging.WARNING, "%s", error)
                warned = True

    thread = threading.Thread(target=copy, name="mlflow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(patience)
        if _is_behind(folder, root):
            logger.warning("MLflow has not received everything; `promptgen sync` sends the rest")


def attach(project: Project, page: Path) -> None:
    """Record the report on the parent run of the project's loop, and send it; do nothing without a journal.

    Raises:
        StorageError: the journal cannot be written.
    """
    folder = journal_folder(project)
    if (folder / JOURNAL_NAME).exists():
        Journal(project).artifact(LOOP_RUN, page, "report")
        with published(folder, project.root):
            pass


def runs_in_mlflow(project: Project) -> dict[str, str]:
    """Return the ids that MLflow gave the runs of the project's loop, by their names in the journal."""
    return _State.read(journal_folder(project), project.root).runs


def push(folder: Path, root: Path) -> int:
    """Send MLflow what it lacks of the journal in `folder`; return the number of events sent.

    Raises:
        TrackingError: MLflow does not answer, or another process is sending the same journal.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with filelock.FileLock(folder / ".push.lock", timeout=60):
            return _Replay(folder, root).push()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(root, error) from error


def _is_behind(folder: Path, root: Path) -> bool:
    return _State.read(folder, root).offset < (folder / JOURNAL_NAME).stat().st_size


class _State(BaseModel):
    """State of a replay: MLflow has the first `offset` bytes of the journal, under these ids of experiment and runs."""

    offset: int = 0
    experiment: str | None = None
    runs: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path, root: Path) -> _State:
        path = folder / STATE_NAME
        return cls.model_validate(read_json(path).get(tracking_uri(root), {}) if path.exists() else {})

    def write(self, folder: Path, root: Path) -> None:
        path = folder / STATE_NAME
        write_json(path, (read_json(path) if path.exists() else {}) | {tracking_uri(root): self.model_dump()})


class _Replay:
    """One round of copying a journal to MLflow."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root, self.client = folder, root, connect(root)
        self.state = _State.read(folder, root)
        queries = [f"attributes.run_id = '{run_id}'" for run_id in self.state.runs.values()][:1]
        if not all(self.client.search_runs([self.state.experiment], query) for query in queries):  # another database
            self.state = _State()

    def push(self) -> int:
        """Send the new events; warn of those that MLflow can never accept, and skip them."""
        from mlflow.exceptions import MlflowException

        lines = list(self._lines())
        starts = [event for event, _ in lines if isinstance(event, Start)]
        # A parent before its children, wherever they are: a restart repeats a line that was damaged.
        for start in sorted(starts, key=lambda event: event.parent is not None):
            self._open(start)
        try:
            for (kind, run), group in groupby(lines, key=lambda line: (type(line[0]), line[0] and line[0].run)):
                batch = list(group)
                try:
                    self._send([event for event, _ in batch])
                except MlflowException as error:
                    if error.error_code not in REFUSALS:
                        raise
                    logger.warning("MLflow refuses %s of run %s: %s", kind.__name__, run, first_line(error))
                self.state.offset = batch[-1][1]
        finally:
            self.state.write(self.folder, self.root)
        return len(lines)

    def _lines(self) -> Iterator[tuple[Event | None, int]]:
        """Yield the events that MLflow lacks (None for a damaged line), each with the offset behind it."""
        offset = self.state.offset
        with (self.folder / JOURNAL_NAME).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                offset += len(line)
                try:
                    yield EVENT.validate_json(line), offset
                except ValidationError:
                    yield None, offset

    def _open(self, start: Start) -> None:
        """Find a run again by its tag, or create it."""
        state, place = self.state, f"{self.folder.parents[1].name}/{self.folder.name}"
        if start.run in state.runs:
            return
        state.experiment = experiment_id(self.client, self.root, start.experiment)
        tags = {RUN_TAG: f"{place}/{start.run}/{start.time}"}
        runs = self.client.search_runs([state.experiment], f"tags.`{RUN_TAG}` = '{tags[RUN_TAG]}'", max_results=1)
        if start.parent in state.runs:
            tags[PARENT_TAG] = state.runs[start.parent]
        run = runs[0] if runs else self.client.create_run(state.experiment, start.time, tags, start.title)
        state.runs[start.run] = run.info.run_id

    def _send(self, events: Sequence[Event | None]) -> None:
        """Send events of one kind and run."""
        first = events[0]
        if first is not None and (run_id := self.state.runs.get(first.run)):
            type(first).send_all(events, MlflowRun(self.client, run_id, self.root))
            return
        what = f"events of run {first.run}, whose start is missing" if first else "damaged lines"
        logger.warning("%s: skipped %d %s", self.folder / JOURNAL_NAME, len(events), what)

"""Copies a loop's journal to MLflow: in the background of a run, and by `promptgen sync` afterwards.

A replay is idempotent: how much of the journal MLflow has is kept beside it, runs are found again by a tag, and a
number that is sent twice with the same step and time stays one number.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

import filelock

from promptgen.errors import PromptGenError, first_line
from promptgen.files import read_json, sha256_of, write_json
from steps.recording import registry
from steps.recording.facts import tracked_name
from steps.recording.journal import JOURNAL_NAME, LOOP_RUN, Journal, journal_folder
from steps.recording.links import PARENT_TAG
from steps.recording.mlflow_store import TrackingError, connect, experiment_id, tracking_uri

if TYPE_CHECKING:
    from steps.shared.common import Project

logger = logging.getLogger("promptgen.tracking")

STATE_NAME = "mlflow.json"
RUN_TAG = "promptgen.run"
CALL_LIMITS = {"metrics": 1000, "params": 100, "tags": 100}  # of MLflow's log_batch
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}

CONTENT: dict[str, dict[str, type | UnionType]] = {
    "run": {"title": str, "experiment": str, "parent": str | None},
    "metrics": {"values": dict, "step": int},
    "params": {"values": dict},
    "tags": {"values": dict},
    "artifact": {"path": str, "sha256": str, "folder": str},
    "model": {"name": str, "checkpoint": str, "sha256": str, "weights": dict, "tags": dict},
    "alias": {"name": str, "alias": str},
    "status": {"status": str},
}
"""What an event has beside its kind, run and time."""

Event = dict[str, Any]


def _is_whole(event: Any) -> bool:
    """Return whether a line of a journal is an event with all that its kind has."""
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str) or event["kind"] not in CONTENT:
        return False
    wanted = {"run": str, "time": int, **CONTENT[event["kind"]]}
    return all(key in event and isinstance(event[key], kind) for key, kind in wanted.items())


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
    return dict(_state(journal_folder(project), project.root)["runs"])


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


def _state(folder: Path, root: Path) -> dict[str, Any]:
    """Return the bytes of the journal that MLflow has, and the ids of the experiment and the runs there."""
    path = folder / STATE_NAME
    states = read_json(path) if path.exists() else {}
    return dict(states.get(tracking_uri(root)) or {"offset": 0, "experiment": None, "runs": {}})


def _is_behind(folder: Path, root: Path) -> bool:
    return bool(_state(folder, root)["offset"] < (folder / JOURNAL_NAME).stat().st_size)


class _Replay:
    """One round of copying a journal to MLflow."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root, self.client = folder, root, connect(root)
        state = _state(folder, root)
        self.offset, self.experiment, self.runs = state["offset"], state["experiment"], state["runs"]
        queries = [f"attributes.run_id = '{run_id}'" for run_id in self.runs.values()][:1]
        if not all(self.client.search_runs([self.experiment], query) for query in queries):  # another database
            self.offset, self.runs = 0, {}

    def push(self) -> int:
        """Send what is new; warn of what can never be sent, and leave it out."""
        from mlflow.exceptions import MlflowException

        lines = list(self._lines())
        # A parent before its children, wherever they are: a restart repeats a line that was damaged.
        for event in sorted((e for e, _ in lines if e["kind"] == "run"), key=lambda e: e["parent"] is not None):
            self._open(event)
        try:
            for (kind, run), group in groupby(lines, key=lambda line: (line[0]["kind"], line[0]["run"])):
                batch = list(group)
                try:
                    self._send(kind, run, [event for event, _ in batch])
                except MlflowException as error:
                    if error.error_code not in REFUSALS:
                        raise
                    logger.warning("MLflow refuses the %s of %s: %s", kind, run, first_line(error))
                self.offset = batch[-1][1]
        finally:
            path = self.folder / STATE_NAME
            state = {"offset": self.offset, "experiment": self.experiment, "runs": self.runs}
            write_json(path, (read_json(path) if path.exists() else {}) | {tracking_uri(self.root): state})
        return len(lines)

    def _lines(self) -> Iterator[tuple[Event, int]]:
        """Yield the events that MLflow lacks, each with the offset behind it; half a line at the end has to wait."""
        offset = self.offset
        with (self.folder / JOURNAL_NAME).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    event = None
                yield event if _is_whole(event) else {"kind": "unreadable", "run": None}, offset

    def _open(self, event: Event) -> None:
        """Find a run again by its tag, or create it."""
        if event["run"] in self.runs:
            return
        self.experiment = experiment_id(self.client, self.root, event["experiment"])
        tags = {RUN_TAG: f"{self.folder.parents[1].name}/{self.folder.name}/{event['run']}/{event['time']}"}
        runs = self.client.search_runs([self.experiment], f"tags.`{RUN_TAG}` = '{tags[RUN_TAG]}'", max_results=1)
        if event["parent"] in self.runs:
            tags[PARENT_TAG] = self.runs[event["parent"]]
        run = runs[0] if runs else self.client.create_run(self.experiment, event["time"], tags, event["title"])
        self.runs[event["run"]] = run.info.run_id

    def _send(self, kind: str, run: str | None, events: list[Event]) -> None:
        """Send events of one kind and run."""
        if run not in self.runs:
            what = "damaged lines" if run is None else f"{kind} of run {run}, which no line opens"
            logger.warning("%s: skipped %d %s", self.folder / JOURNAL_NAME, len(events), what)
            return
        run_id = self.runs[run]
        if kind in CALL_LIMITS:
            self._log(kind, run_id, events)
            return
        for event in events:
            if kind == "artifact" and (path := self._unchanged(event["path"], event["sha256"])):
                self.client.log_artifact(run_id, str(path), event["folder"] or None)
            elif kind == "model" and (checkpoint := self._unchanged(event["checkpoint"], event["sha256"])):
                weights = [self._unchanged(name, sha256) for name, sha256 in event["weights"].items()]
                files = [path for path in weights if path]
                if len(files) == len(weights):
                    registry.register(self.client, run_id, event["name"], checkpoint, files, event["tags"], self.root)
            elif kind == "alias":
                registry.set_alias(self.client, run_id, event["name"], event["alias"])
            elif kind == "status" and event["status"] == "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            elif kind == "status":
                self.client.set_terminated(run_id, event["status"], event["time"])

    def _log(self, kind: str, run_id: str, events: list[Event]) -> None:
        """Send the values of many events in few calls."""
        from mlflow.entities import Metric, Param, RunTag

        entities: list[Any] = [
            Metric(tracked_name(name), value, event["time"], event["step"])
            if kind == "metrics"
            else {"params": Param, "tags": RunTag}[kind](tracked_name(name), value)
            for event in events
            for name, value in event["values"].items()
        ]
        for start in range(0, len(entities), CALL_LIMITS[kind]):
            few: dict[str, Any] = {kind: entities[start : start + CALL_LIMITS[kind]]}
            self.client.log_batch(run_id, **few)

    def _unchanged(self, name: str, sha256: str) -> Path | None:
        """Return the path of a recorded file; None, with a warning, when it has gone or changed since."""
        path = self.root / name
        if path.is_file() and sha256_of(path) == sha256:
            return path
        logger.warning("%s has changed since it was recorded; MLflow does not get it", name)
        return None

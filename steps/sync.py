"""Tells MLflow what the journals say: `python -m steps.sync` after a server was away, or its database was deleted.

Replaying is idempotent: what MLflow has heard is remembered beside the journal, runs are found again by a tag, and a
number told twice under the same step and time stays one number.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from promptgen.files import read_json, sha256_of, write_json
from steps.recording import journal
from steps.recording.facts import metric_name
from steps.recording.journal import Event
from steps.recording.mlflow_store import (
    ROOT,
    TrackingError,
    connect,
    experiment_id,
    first_line,
    tracking_error,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("promptgen.tracking")

JOURNAL_NAME = "journal.jsonl"
STATE_NAME = "mlflow.json"
RUN_TAG = "promptgen.run"
MAX_METRICS, MAX_PARAMS = 1000, 100  # that MLflow takes in one call
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}


class Replay:
    """Brings the MLflow copy of one loop's journal up to date."""

    def __init__(self, folder: Path, root: Path, client: MlflowClient) -> None:
        """Read how far MLflow has been told, and start again from nothing when it no longer knows the runs."""
        self.folder, self.root, self.client = folder, root, client
        self.uri = tracking_uri(root)
        self.state: dict[str, Any] = self._read_state()
        if self.state["runs"] and not self._is_known(next(iter(self.state["runs"].values()))):
            self.state = {"offset": 0, "experiment": None, "runs": {}}

    def push(self) -> int:
        """Send everything that is new; return the number of events sent."""
        sent, start = 0, self.state["offset"]
        try:
            for events, offset in _batches(self.folder / JOURNAL_NAME, start):
                self._send(events)
                self.state["offset"] = offset
                sent += len(events)
        finally:
            if self.state["offset"] != start:
                self._write_state()
        return sent

    def _send(self, events: list[Event]) -> None:
        """Send events of one kind and run; what MLflow refuses for good is reported and left out, other than a run."""
        from mlflow.exceptions import MlflowException

        kind, run = _topic(events[0])
        senders: dict[str, Callable[[list[Event]], None]] = {
            "run": self._send_run,
            "metrics": self._send_metrics,
            "params": self._send_params,
            "tags": self._send_tags,
            "artifact": self._send_artifacts,
            "model": self._send_models,
            "alias": self._send_alias,
            "status": self._send_status,
        }
        try:
            senders[kind](events)
        except MlflowException as error:
            if kind == "run" or error.error_code not in _REFUSALS:
                raise
            logger.warning("MLflow refuses the %s of %s: %s", kind, run, first_line(error))

    def _send_run(self, events: list[Event]) -> None:
        event = events[0]
        if event["run"] in self.state["runs"]:
            return
        experiment = experiment_id(self.client, self.root, event["experiment"])
        key = f"{self.folder.parents[1].name}/{self.folder.name}/{event['run']}/{event['time']}"
        found = self.client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{key}'", max_results=1)
        tags = {RUN_TAG: key}
        if event["parent"]:
            tags["mlflow.parentRunId"] = self.state["runs"][event["parent"]]
        run = found[0] if found else self.client.create_run(experiment, event["time"], tags, event["title"])
        self.state["experiment"] = experiment
        self.state["runs"][event["run"]] = run.info.run_id

    def _send_metrics(self, events: list[Event]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(metric_name(name), value, event["time"], event["step"])
            for event in events
            for name, value in event["values"].items()
        ]
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(self._run(events[0]), metrics=metrics[start : start + MAX_METRICS])

    def _send_params(self, events: list[Event]) -> None:
        from mlflow.entities import Param

        values = [Param(name, value) for event in events for name, value in event["values"].items()]
        for start in range(0, len(values), MAX_PARAMS):
            self.client.log_batch(self._run(events[0]), params=values[start : start + MAX_PARAMS])

    def _send_tags(self, events: list[Event]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for event in events for name, value in event["values"].items()]
        self.client.log_batch(self._run(events[0]), tags=tags)

    def _send_status(self, events: list[Event]) -> None:
        event = events[-1]
        if event["status"] == "RUNNING":
            self.client.update_run(self._run(event), status="RUNNING")
        else:
            self.client.set_terminated(self._run(event), event["status"], event["time"])

    def _send_artifacts(self, events: list[Event]) -> None:
        for event in events:
            path = self._present(event["path"], event["sha256"])
            if path:
                self.client.log_artifact(self._run(event), str(path), event["folder"] or None)

    def _send_models(self, events: list[Event]) -> None:
        from steps.recording.registry import register

        for event in events:
            checkpoint = self._present(event["checkpoint"], event["sha256"])
            weights = [self._present(name, sha256) for name, sha256 in event["weights"].items()]
            if checkpoint and all(weights):
                files = [path for path in weights if path]
                register(self.client, self._run(event), event["name"], checkpoint, files, event["tags"], self.root)

    def _send_alias(self, events: list[Event]) -> None:
        event = events[-1]
        versions = self.client.search_model_versions(f"name = '{event['name']}' and run_id = '{self._run(event)}'")
        if versions:
            newest = max(versions, key=lambda version: int(version.version))
            self.client.set_registered_model_alias(event["name"], event["alias"], newest.version)

    def _present(self, name: str, sha256: str) -> Path | None:
        """Return the path of a recorded file, or None when it has gone or changed since it was recorded."""
        path = self.root / name
        if path.is_file() and sha256_of(path) == sha256:
            return path
        logger.warning("%s is no longer what was recorded; MLflow does not get it", name)
        return None

    def _run(self, event: Event) -> str:
        return str(self.state["runs"][event["run"]])

    def _is_known(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _read_state(self) -> dict[str, Any]:
        path = self.folder / STATE_NAME
        states = read_json(path) if path.exists() else {}
        return states.get(self.uri) or {"offset": 0, "experiment": None, "runs": {}}

    def _write_state(self) -> None:
        path = self.folder / STATE_NAME
        states = read_json(path) if path.exists() else {}
        write_json(path, {**states, self.uri: self.state})


def push(folder: Path, root: Path) -> int:
    """Bring MLflow up to date with the journal in `folder`; return how many events were sent.

    Raises:
        TrackingError: MLflow does not answer, or another process is telling it the same journal.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with filelock.FileLock(folder / ".push.lock", timeout=60):
            return Replay(folder, root, connect(root)).push()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise tracking_error(root, error) from error


def journals(root: Path) -> list[Path]:
    """Return the folders of all journals of a project, in the order of their names."""
    return sorted(path.parent for path in root.glob(f"artifacts/*/tracking/*/{JOURNAL_NAME}"))


def _batches(path: Path, offset: int) -> Iterator[tuple[list[Event], int]]:
    """Yield runs of consecutive events of the same kind and run, each with the offset behind it."""
    events: list[Event] = []
    behind = offset
    for event, after in journal.read(path, offset):
        if events and _topic(event) != _topic(events[0]):
            yield events, behind
            events = []
        events.append(event)
        behind = after
    if events:
        yield events, behind


def _topic(event: Event) -> tuple[str, str]:
    return event["kind"], event["run"]


def main(arguments: list[str] | None = None) -> int:
    """Replay every journal of the project; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m steps.sync", description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's folder (default: this one)")
    root = parser.parse_args(arguments).root.resolve()
    failed = 0
    for folder in journals(root):
        try:
            print(f"{folder.parents[1].name}/{folder.name}: {push(folder, root)} events sent")
        except TrackingError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

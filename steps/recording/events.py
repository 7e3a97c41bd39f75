"""What a journal consists of: each kind of event is a class that says what a line holds and how MLflow gets it."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from promptgen.files import sha256_of
from steps.recording.facts import tracked_name
from steps.serving import registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("promptgen.tracking")

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A whole number that fits into a column of MLflow's database."""


@dataclass(frozen=True)
class MlflowRun:
    """A run in MLflow, and the root of the project whose files it gets."""

    client: MlflowClient
    run_id: str
    root: Path

    def log(self, kind: str, entities: Sequence[Any], limit: int = 100) -> None:
        """Send metrics, params or tags in as few calls as MLflow's `limit` per call allows."""
        for start in range(0, len(entities), limit):
            batch: dict[str, Any] = {kind: entities[start : start + limit]}
            self.client.log_batch(self.run_id, **batch)

    def unchanged(self, name: str, sha256: str) -> Path | None:
        """Return the path of a recorded file; None, with a warning, if it is missing or has changed since."""
        path = self.root / name
        if path.is_file() and sha256_of(path) == sha256:
            return path
        logger.warning("%s has changed since it was recorded; MLflow does not get it", name)
        return None


class Event(BaseModel):
    """A line of a journal. Paths in it are relative to the project's root if they lie there, so a checkout may move.

    Attributes:
        recurs: whether it may be repeated; any other event is a fact, which a journal holds once.
        time: milliseconds since 1970. It comes first in the line; MLflow tells the points of a curve apart by it.
        run: the run's name in the journal.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    recurs: ClassVar[bool] = False

    time: Count = Field(default_factory=lambda: clock.time_ns() // 1_000_000)
    run: str

    @classmethod
    def send_all(cls, events: Sequence[Self], run: MlflowRun) -> None:
        """Send events of this class to their run."""
        for event in events:
            event.send(run)

    def send(self, run: MlflowRun) -> None:
        """Send the event to its run."""
        raise NotImplementedError


class Start(Event):
    """A run starts or is resumed. `steps.recording.replay` creates it in MLflow if necessary."""

    recurs: ClassVar[bool] = True
    kind: Literal["start"] = "start"
    title: str
    experiment: str
    parent: str | None
    params: dict[str, str]

    def send(self, run: MlflowRun) -> None:
        from mlflow.entities import Param

        run.client.update_run(run.run_id, status="RUNNING")
        run.log("params", [Param(tracked_name(name), value) for name, value in self.params.items()])


class Metrics(Event):
    """Numbers at a step of their curves."""

    kind: Literal["metrics"] = "metrics"
    values: dict[str, float]
    step: Count

    @classmethod
    def send_all(cls, events: Sequence[Self], run: MlflowRun) -> None:
        from mlflow.entities import Metric

        points = [(name, value, event) for event in events for name, value in event.values.items()]
        run.log("metrics", [Metric(tracked_name(name), value, e.time, e.step) for name, value, e in points], limit=1000)


class Tags(Event):
    """Tags of a run; a later value replaces an earlier one."""

    recurs: ClassVar[bool] = True
    kind: Literal["tags"] = "tags"
    values: dict[str, str]

    def send(self, run: MlflowRun) -> None:
        from mlflow.entities import RunTag

        run.log("tags", [RunTag(tracked_name(name), value) for name, value in self.values.items()])


class Artifact(Event):
    """A file, which goes to a folder of the run's artifacts."""

    kind: Literal["artifact"] = "artifact"
    path: str
    sha256: str
    folder: str

    def send(self, run: MlflowRun) -> None:
        if path := run.unchanged(self.path, self.sha256):
            run.client.log_artifact(run.run_id, str(path), self.folder or None)


class ModelVersion(Event):
    """A version of a registered model: the sha256 of its checkpoint, which comes first, and of its weights, by path."""

    kind: Literal["model"] = "model"
    name: str
    files: dict[str, str]
    tags: dict[str, str]

    def send(self, run: MlflowRun) -> None:
        paths = [path for name, sha256 in self.files.items() if (path := run.unchanged(name, sha256))]
        if len(paths) == len(self.files):
            registry.register(run.client, run.run_id, self.name, paths[0], paths[1:], self.tags, run.root)


class Alias(Event):
    """An alias of the run's version of a registered model."""

    recurs: ClassVar[bool] = True
    kind: Literal["alias"] = "alias"
    name: str
    alias: str

    def send(self, run: MlflowRun) -> None:
        registry.set_alias(run.client, run.run_id, self.name, self.alias)


class End(Event):
    """A run ends."""

    recurs: ClassVar[bool] = True
    kind: Literal["end"] = "end"
    status: Literal["FINISHED", "FAILED", "KILLED"]

    def send(self, run: MlflowRun) -> None:
        run.client.set_terminated(run.run_id, self.status, self.time)


EVENT: TypeAdapter[Event] = TypeAdapter(
    Annotated[Start | Metrics | Tags | Artifact | ModelVersion | Alias | End, Field(discriminator="kind")]
)

"""What a loop records: lines of a file, of which MLflow holds a copy.

A run writes here and nowhere else, so a dead or slow server can neither stop nor slow it; `steps.recording.replay`
copies the lines. The files that steps leave cannot take the journal's place: the history of a training is whole only
when the training ends, and has no times, by which MLflow tells points apart. Each line has a "time", in milliseconds
since 1970, and is one of

    {"kind": "run",      "run": name, "title": str, "experiment": str, "parent": name | null}
    {"kind": "metrics",  "run": name, "values": {name: number}, "step": int}
    {"kind": "params",   "run": name, "values": {name: str}}
    {"kind": "tags",     "run": name, "values": {name: str}}
    {"kind": "artifact", "run": name, "path": str, "sha256": str, "folder": str}
    {"kind": "model",    "run": name, "name": str, "checkpoint": str, "sha256": str,
     "weights": {path: sha256}, "tags": {name: str}}
    {"kind": "alias",    "run": name, "name": str, "alias": str}
    {"kind": "status",   "run": name, "status": "RUNNING" | "FINISHED" | "FAILED" | "KILLED"}

with paths relative to the project's root where they lie in it, so that a moved checkout still has them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgen.files import sha256_of, storage_error
from promptgen.records import Confirmation, PassRecord
from steps.recording.facts import HEADLINE, counted, figures, flatten, provenance

if TYPE_CHECKING:
    from steps.shared.common import Project

JOURNAL_NAME = "journal.jsonl"
LOOP_RUN = "loop"
ALIAS = "least-biased"
MAY_RECUR = {"tags", "alias", "status"}
"""Kinds whose newest line counts; a line of any other kind is a fact, and is written once."""

TIME_END = b", "
"""What divides the time of a line from the rest, by which a fact is known."""


class Journal:
    """The journal of one loop: a parent run, and a child run per pass.

    A loop that is started again with the same fingerprint continues the same journal, and so the same runs.

    Raises:
        StorageError: the file cannot be written; of every method, too.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.path = journal_folder(project) / JOURNAL_NAME
        self._lock = threading.Lock()
        self._bias: dict[int, float] = {}
        self._checkpoints: set[int] = set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            _drop_half_line(self.path)
            self._facts = {line.partition(TIME_END)[2] for line in self.path.read_bytes().splitlines()}
        except OSError as error:
            raise storage_error(self.path, error) from error

    def write(self, kind: str, run: str, **content: Any) -> None:
        """Append an event of a run, unless it is a fact that the journal holds; after a failure, no half line stays."""
        fact = json.dumps({"kind": kind, "run": run, **content}, ensure_ascii=False)[1:].encode()
        with self._lock:
            if fact in self._facts and kind not in MAY_RECUR:
                return
            try:
                with self.path.open("ab") as file:
                    file.write(b'{"time": %d%s%s\n' % (time.time_ns() // 1_000_000, TIME_END, fact))
            except OSError as error:
                with suppress(OSError):
                    _drop_half_line(self.path)
                raise storage_error(self.path, error) from error
            self._facts.add(fact)

    @contextmanager
    def run_loop(self, tags: Mapping[str, str]) -> Iterator[None]:
        """Open the parent run, with the parameters of the project and with tags that say where it comes from."""
        params = self._project.params.model_dump(mode="json", exclude={"world"})
        with self._run(LOOP_RUN, self._project.params.experiment, None, params):
            self.write("tags", LOOP_RUN, values={**provenance(self._project.root), **tags})
            yield

    @contextmanager
    def run_pass(self, number: int, kind: str) -> Iterator[str]:
        """Open the child run of a pass and give its name; it ends with the block, as failed when the block raises.

        The headline metric comes first, with the bias that the pass starts from, because MLflow's compare page shows
        the first metric of a run. The pass's only parameters are its number and kind, since that page shows the first
        three; all others are on the parent.
        """
        run = f"pass-{number}"
        with self._run(run, f"{number} {kind}", LOOP_RUN, {"pass": number, "kind": kind}):
            if number - 1 in self._bias:
                self.write("metrics", run, values={HEADLINE: self._bias[number - 1]}, step=number - 1)
            yield run

    def record(self, record: PassRecord, confirmation: Confirmation | None = None) -> None:
        """Record the figures of a finished pass, on its own run and, with step = pass, on the parent."""
        number, values = record.number, figures(record)
        self._bias[number] = values[HEADLINE]
        shared = {name: value for name, value in values.items() if not name.startswith("train/")}
        for run, figures_of_run in ((f"pass-{number}", values), (LOOP_RUN, shared)):
            self.write("metrics", run, values=figures_of_run, step=number)
            if confirmation is not None:
                self.write("metrics", run, values=counted("confirmed", confirmation), step=number)

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Record a file as an artifact of a run."""
        self.write("artifact", run, path=self._place(path), sha256=sha256_of(path), folder=folder)

    def checkpoint(self, number: int, path: Path) -> None:
        """Record the checkpoint of a pass, and that it is to be registered as a version of the project's model."""
        self.artifact(f"pass-{number}", path, "checkpoint")
        self._checkpoints.add(number)
        if name := self._project.params.tracking.registered_model:
            weights = {self._place(weight): sha256_of(weight) for weight in self._project.weights}
            tags = {"experiment": self._project.params.experiment, "pass": str(number), "sha256": sha256_of(path)}
            file = {"checkpoint": self._place(path), "sha256": tags["sha256"], "weights": weights}
            self.write("model", f"pass-{number}", name=name, tags=tags, **file)

    def finish(self, stopped: str, metrics: Path) -> None:
        """Record why the loop stopped and the file of its metrics, and give the least biased checkpoint its alias."""
        self.write("tags", LOOP_RUN, values={"promptgen.stopped": stopped})
        self.artifact(LOOP_RUN, metrics)
        name, judged = self._project.params.tracking.registered_model, self._checkpoints & self._bias.keys()
        if name and judged:
            best = min(judged, key=lambda number: self._bias[number])
            self.write("alias", f"pass-{best}", name=name, alias=ALIAS)

    @contextmanager
    def _run(self, run: str, title: str, parent: str | None, params: Mapping[str, Any]) -> Iterator[None]:
        experiment = self._project.params.tracking.experiment
        self.write("run", run, title=title, experiment=experiment, parent=parent)
        self.write("status", run, status="RUNNING")
        self.write("params", run, values=flatten(params))
        try:
            yield
        except BaseException as error:
            self.write("status", run, status="FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.write("status", run, status="FINISHED")

    def _place(self, path: Path) -> str:
        path, root = path.resolve(), self._project.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def journal_folder(project: Project) -> Path:
    """Return the folder of a loop's journal, and of the file that says how much of it MLflow has."""
    return project.artifacts / "tracking" / project.fingerprint[:16]


def _drop_half_line(path: Path) -> None:
    """Cut the file behind its last line end."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)

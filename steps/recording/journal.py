"""What a loop records: lines of a file, of which MLflow gets a copy.

A run writes here and nowhere else, so a dead or slow server can neither stop nor slow it; `steps.recording.replay`
copies the lines. The files that steps leave cannot take the journal's place: the history of a training is complete only
when the training ends, and has no times, by which MLflow tells points apart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgen.files import sha256_of, storage_error
from promptgen.records import Confirmation, PassRecord
from steps.recording.events import Alias, Artifact, End, Event, Metrics, ModelVersion, Start, Tags
from steps.recording.facts import HEADLINE, counted, figures, flatten, provenance

if TYPE_CHECKING:
    from steps.shared.common import Project

JOURNAL_NAME = "journal.jsonl"
LOOP_RUN = "loop"
ALIAS = "least-biased"


class Journal:
    """The journal of one loop: a parent run, and a child run per pass.

    A loop that is started again with the same fingerprint continues the same journal, and so the same runs.

    Raises:
        StorageError: the file cannot be written; every method may raise it.
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
            self._facts = {_fact(line) for line in self.path.read_bytes().splitlines()}
        except OSError as error:
            raise storage_error(self.path, error) from error

    def write(self, event: Event) -> None:
        """Append an event, unless it is a fact that the journal holds; a failure leaves no half line behind."""
        line = event.model_dump_json().encode()
        with self._lock:
            if _fact(line) in self._facts and not event.recurs:
                return
            try:
                with self.path.open("ab") as file:
                    file.write(line + b"\n")
            except OSError as error:
                with suppress(OSError):
                    _drop_half_line(self.path)
                raise storage_error(self.path, error) from error
            self._facts.add(_fact(line))

    @contextmanager
    def run_loop(self, tags: Mapping[str, str]) -> Iterator[None]:
        """Open the parent run, with the parameters of the project and tags for its provenance."""
        params = self._project.params.model_dump(mode="json", exclude={"world"})
        with self._run(LOOP_RUN, self._project.params.experiment, None, params):
            self.write(Tags(run=LOOP_RUN, values={**provenance(self._project.root), **tags}))
            yield

    @contextmanager
    def run_pass(self, number: int, kind: str) -> Iterator[str]:
        """Open the child run of a pass and yield its name; it ends with the block, as failed if the block raises.

        The headline metric comes first, with the bias that the pass starts from, because MLflow's compare page shows
        the first metric of a run. The pass's only parameters are its number and kind, since that page shows the first
        three; all others are on the parent.
        """
        run = f"pass-{number}"
        with self._run(run, f"{number} {kind}", LOOP_RUN, {"pass": number, "kind": kind}):
            if number - 1 in self._bias:
                self.write(Metrics(run=run, values={HEADLINE: self._bias[number - 1]}, step=number - 1))
            yield run

    def record(self, record: PassRecord, confirmation: Confirmation | None = None) -> None:
        """Record the figures of a finished pass, on its own run and, with step = pass, on the parent."""
        number, values = record.number, figures(record)
        self._bias[number] = values[HEADLINE]
        shared = {name: value for name, value in values.items() if not name.startswith("train/")}
        for run, figures_of_run in ((f"pass-{number}", values), (LOOP_RUN, shared)):
            self.write(Metrics(run=run, values=figures_of_run, step=number))
            if confirmation is not None:
                self.write(Metrics(run=run, values=counted("confirmed", confirmation), step=number))

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Record a file as an artifact of a run."""
        self.write(Artifact(run=run, path=self._place(path), sha256=sha256_of(path), folder=folder))

    def checkpoint(self, number: int, path: Path) -> None:
        """Record the checkpoint of a pass, and that it is to be registered as a version of the project's model."""
        run, params = f"pass-{number}", self._project.params
        self.artifact(run, path, "checkpoint")
        self._checkpoints.add(number)
        if name := params.tracking.registered_model:
            files = {self._place(file): sha256_of(file) for file in (path, *self._project.weights)}
            tags = {"experiment": params.experiment, "pass": str(number), "sha256": files[self._place(path)]}
            self.write(ModelVersion(run=run, name=name, files=files, tags=tags))

    def finish(self, stopped: str, metrics: Path) -> None:
        """Record why the loop stopped and the file of its metrics, and give the least biased checkpoint its alias."""
        self.write(Tags(run=LOOP_RUN, values={"promptgen.stopped": stopped}))
        self.artifact(LOOP_RUN, metrics)
        name, judged = self._project.params.tracking.registered_model, self._checkpoints & self._bias.keys()
        if name and judged:
            best = min(judged, key=lambda number: self._bias[number])
            self.write(Alias(run=f"pass-{best}", name=name, alias=ALIAS))

    @contextmanager
    def _run(self, run: str, title: str, parent: str | None, params: Mapping[str, Any]) -> Iterator[None]:
        experiment = self._project.params.tracking.experiment
        self.write(Start(run=run, title=title, experiment=experiment, parent=parent, params=flatten(params)))
        try:
            yield
        except BaseException as error:
            self.write(End(run=run, status="FAILED" if isinstance(error, Exception) else "KILLED"))
            raise
        self.write(End(run=run, status="FINISHED"))

    def _place(self, path: Path) -> str:
        path, root = path.resolve(), self._project.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def journal_folder(project: Project) -> Path:
    """Return the folder of a loop's journal and of the state of its replay."""
    return project.artifacts / "tracking" / project.fingerprint[:16]


def _fact(line: bytes) -> bytes:
    """Return a line without its time."""
    return line.partition(b",")[2]


def _drop_half_line(path: Path) -> None:
    """Cut the file off after its last line end."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)

"""What a loop tells MLflow: one parent run per loop, one child run per pass.

    with Recorder(root, experiment, loop, tracking_experiment="promptgen", registered_model="...") as recorder:
        recorder.start(params, tags)
        with recorder.run_pass(1, "control") as tracker:
            train(..., tracker=tracker)
            tracker.record(pass_record)

Everything goes to a journal (`steps.recording.journal`), and a thread of its own passes it on
(`steps.recording.courier`), so the work never waits for MLflow. A loop that is started again with the same fingerprint
continues the same journal, and so the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from promptgen.files import sha256_of
from promptgen.records import Confirmation, PassRecord
from steps.recording.courier import Courier
from steps.recording.facts import HEADLINE, confirmed_figures, figures, flatten, provenance
from steps.recording.journal import Journal
from steps.sync import JOURNAL_NAME

PARENT = "loop"
ALIAS = "least-biased"
PATIENCE = 15.0  # seconds that the end of a run waits for MLflow
PREFIXES = ("bias/", "control/", "fit/", "quality/", "train/")


class Recorder:
    """Records one loop: holds its journal, and the thread that passes the journal on to MLflow."""

    def __init__(
        self,
        root: Path,
        experiment: str,
        loop: str,
        *,
        tracking_experiment: str,
        registered_model: str | None = None,
        interval: float = 5.0,
        patience: float = PATIENCE,
    ) -> None:
        """Open the loop's journal.

        Args:
            root: the project's folder.
            experiment: the name in params.yaml; the journal lies in its folder under artifacts/.
            loop: fingerprint of all that the loop depends on; the same loop continues the same runs.
            tracking_experiment: the MLflow experiment.
            registered_model: under which checkpoints are registered; None registers none.
            interval: seconds between two rounds of the thread.
            patience: seconds that the end of the loop waits for MLflow at most.

        Raises:
            StorageError: the journal cannot be written.
        """
        self.root = root.resolve()
        self.experiment, self.tracking_experiment = experiment, tracking_experiment
        self.registered_model = registered_model
        self.folder = journal_folder(self.root, experiment, loop)
        self.journal = Journal(self.folder / JOURNAL_NAME)
        self._records: dict[int, PassRecord] = {}
        self._checkpoints: set[int] = set()
        self._courier = Courier(self.folder, self.root, interval)
        self._patience = patience

    def __enter__(self) -> Self:
        self._courier.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status(PARENT, _outcome(kind))
        self._courier.close(self._patience)

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the parent run with the resolved parameters of the loop and with tags that say where it comes from."""
        self._open(PARENT, self.experiment, None, params, {**provenance(self.root), **tags})

    @contextmanager
    def run_pass(self, number: int, kind: str) -> Iterator[MlflowTracker]:
        """Give the tracker of one pass; its child run ends with the block, as failed when the block raises.

        The headline metric is told first, with the bias that the pass starts from, because MLflow's compare page shows
        the first metric it was told. The pass's only parameters are its number and kind, since that page shows the
        first three; all others are on the parent.
        """
        name = f"pass-{number}"
        title = f"{number} {kind}"
        self._open(name, title, PARENT, {"pass": number, "kind": kind}, {})
        tracker = MlflowTracker(self, name, number)
        before = self._records.get(number - 1)
        if before is not None:
            headline = {f"{HEADLINE}/value": before.trusted.kl.value}
            self.write("metrics", name, step=number - 1, values=headline)
        try:
            yield tracker
        except BaseException as error:
            self._status(name, _outcome(type(error)))
            raise
        self._status(name, "FINISHED")

    def finish(self, stopped: str, files: Sequence[Path] = ()) -> None:
        """Say why the loop stopped, log its last files, and give the least biased checkpoint its alias."""
        self.write("tags", PARENT, values={"promptgen.stopped": stopped})
        for path in files:
            self.artifact(PARENT, path)
        judged = {number: self._records[number].trusted.kl.value for number in self._checkpoints & set(self._records)}
        if self.registered_model and judged:
            best = min(judged, key=lambda number: judged[number])
            self.write("alias", f"pass-{best}", name=self.registered_model, alias=ALIAS)

    def record(self, number: int, record: PassRecord) -> None:
        """Log the figures of a finished pass, on its own run and, with step = pass, on the parent."""
        self._records[number] = record
        values = figures(record)
        self.write("metrics", f"pass-{number}", step=number, values=values)
        shared = {name: value for name, value in values.items() if not name.startswith("train/")}
        self.write("metrics", PARENT, step=number, values=shared)

    def confirm(self, number: int, confirmation: Confirmation) -> None:
        """Log what a pass showed when it was counted once more, on its own run and, with step = pass, on the parent."""
        for run in (f"pass-{number}", PARENT):
            self.write("metrics", run, step=number, values=confirmed_figures(confirmation))

    def checkpoint(self, number: int, path: Path, weights: Sequence[Path]) -> None:
        """Log a pass's checkpoint and register it as a model version; `weights` are the base generator's files."""
        name = f"pass-{number}"
        self.artifact(name, path, "checkpoint")
        self._checkpoints.add(number)
        if self.registered_model:
            place, sha256 = self._place(path), sha256_of(path)
            model = {
                "name": self.registered_model,
                "weights": {self._place(weight): sha256_of(weight) for weight in weights},
                "tags": {"experiment": self.experiment, "pass": str(number), "sha256": sha256},
            }
            self.write("model", name, checkpoint=place, sha256=sha256, **model)

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Log a file of the project as an artifact of a run."""
        self.write("artifact", run, path=self._place(path), sha256=sha256_of(path), folder=folder)

    def write(self, kind: str, run: str, **content: Any) -> None:
        """Write one event of a run to the journal."""
        self.journal.write({"kind": kind, "run": run, **content})

    def _open(
        self, run: str, title: str, parent: str | None, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        self.write("run", run, title=title, experiment=self.tracking_experiment, parent=parent)
        self._status(run, "RUNNING")
        self.write("params", run, values=flatten(params))
        if tags:
            self.write("tags", run, values=dict(tags))

    def _status(self, run: str, status: str) -> None:
        self.write("status", run, status=status)

    def _place(self, path: Path) -> str:
        """Return a path relative to the project's root where it lies in it, so that a moved checkout still finds it."""
        path = path.resolve()
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


class MlflowTracker:
    """The run of one pass, as the library's `Tracker` and with what only a finished pass has."""

    def __init__(self, recorder: Recorder, run: str, number: int) -> None:
        """Bind a pass's run."""
        self._recorder, self.run, self.number = recorder, run, number

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of the training step `step`; a name without one of the known prefixes becomes train/NAME."""
        named = {name if name.startswith(PREFIXES) else f"train/{name}": float(value) for name, value in values.items()}
        self._recorder.write("metrics", self.run, step=step, values=named)

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Ignore the progress: MLflow has no place for it."""

    def record(self, record: PassRecord) -> None:
        """Log the figures of this pass."""
        self._recorder.record(self.number, record)

    def confirm(self, confirmation: Confirmation) -> None:
        """Log what this pass showed when it was counted once more."""
        self._recorder.confirm(self.number, confirmation)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a file."""
        self._recorder.artifact(self.run, path, folder)

    def checkpoint(self, path: Path, weights: Sequence[Path]) -> None:
        """Log the checkpoint of this pass and register it; `weights` are the base generator's files."""
        self._recorder.checkpoint(self.number, path, weights)


def journal_folder(root: Path, experiment: str, loop: str) -> Path:
    """Return the folder in which a loop keeps its journal, and what MLflow has heard of it."""
    return root / "artifacts" / experiment / "tracking" / loop[:16]


def attach(root: Path, experiment: str, loop: str, path: Path) -> None:
    """Log a file, as the report, on the parent run of a loop that has ended; MLflow is told now or by the next sync.

    Raises:
        StorageError: the journal cannot be written.
    """
    folder, place = journal_folder(root, experiment, loop), path.resolve().relative_to(root)
    event = {"kind": "artifact", "run": PARENT, "path": str(place), "sha256": sha256_of(path), "folder": "report"}
    Journal(folder / JOURNAL_NAME).write(event)
    courier = Courier(folder, root, interval=0)
    courier.start()
    courier.close(PATIENCE)


def _outcome(error: type[BaseException] | None) -> str:
    """Return the MLflow status of a block that ended so."""
    if error is None:
        return "FINISHED"
    return "FAILED" if issubclass(error, Exception) else "KILLED"

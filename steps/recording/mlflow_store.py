"""Where MLflow keeps its runs: a database in the project's mlruns/, or the server that MLFLOW_TRACKING_URI names.

MLflow is imported only inside functions: it takes seconds, and a step that records nothing need not pay them.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import filelock

from promptgen.errors import PromptGenError, StorageError, first_line
from promptgen.files import TEMPORARY_SUFFIX, atomic_path, storage_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parents[2]

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The journal is the retry: a call that fails is made again in the next round, or by `promptgen sync`.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


class TrackingError(PromptGenError):
    """MLflow cannot be reached; the journal keeps what it lacks.

    Args:
        root: folder of the project.
        error: error of the failed call; the message contains its first line, without the password of a URI.
    """

    def __init__(self, root: Path, error: Exception) -> None:
        problem = f"MLflow at {tracking_uri(root)} does not accept the runs ({first_line(error)})"
        super().__init__(re.sub(r"//[^/@\s]+@", "//", problem) + ": start or repair it, then run `promptgen sync`")


def tracking_uri(root: Path) -> str:
    """Return the URI of the tracking store: MLFLOW_TRACKING_URI, or the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _database_uri(_own_database(root))


def artifact_location(root: Path) -> str:
    """Return the URI of the folder that holds the artifacts of the project's own database."""
    return (root / "mlruns" / "artifacts").as_uri()


def connect(root: Path) -> MlflowClient:
    """Return a client with short timeouts; create the project's own database if it is the store.

    Raises:
        StorageError: mlruns/ cannot be written.
        TrackingError: the database is of another version of MLflow.
    """
    uri, path = tracking_uri(root), _own_database(root)
    if uri == _database_uri(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(".lock"), timeout=120):
                make_database(path)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        _follow_move(path, artifact_location(root))
    try:
        return _client(uri)
    except Exception as error:  # of MLflow, SQLAlchemy or Alembic, which differ from version to version
        raise TrackingError(root, error) from error


def make_database(path: Path) -> None:
    """Create an empty MLflow database atomically if there is none; MLflow cannot repair a half-made one.

    No other process may create it at the same time.

    Raises:
        StorageError: the file cannot be written.
    """
    if path.exists():
        return
    for left in path.parent.glob(f".{path.stem}.*{TEMPORARY_SUFFIX}{path.suffix}*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        _client(_database_uri(temporary))


def experiment_id(client: MlflowClient, root: Path, name: str) -> str:
    """Return the id of the MLflow experiment called `name`, which is created if it is new."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    location = artifact_location(root) if tracking_uri(root) == _database_uri(_own_database(root)) else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)  # another process has just made it


def _own_database(root: Path) -> Path:
    return root / "mlruns" / "mlflow.db"


def _database_uri(path: Path) -> str:
    """Return the URI of a SQLite file; a path with a question mark, which would start options, is quoted.

    Only SQLite's own URIs can be quoted. Without the driver's name, MLflow would create a folder called ``file:``.
    """
    return f"sqlite+pysqlite:///file:{quote(str(path))}?uri=true" if "?" in str(path) else f"sqlite:///{path}"


def _client(uri: str) -> MlflowClient:
    """Import MLflow with its settings and without its chatter, and return a client."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("mlflow.store.db.utils", "alembic"):  # after the import, which sets up its own logging
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # MLflow says this of type hints of its own.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    return MlflowClient(uri)


def _follow_move(path: Path, location: str) -> None:
    """Correct the absolute paths of artifacts in the project's own database after the checkout was moved or copied."""
    places = "select artifact_location from experiments where artifact_location like '%/mlruns/artifacts'"
    try:
        with closing(sqlite3.connect(path)) as database, database:
            for (old,) in database.execute(f"{places} and artifact_location != ? limit 1", [location]).fetchall():
                for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                    database.execute(f"update {table} set {column} = replace({column}, ?, ?)", [old, location])
    except sqlite3.Error as error:
        raise StorageError(f"cannot read {path} ({error}): move it away, then run `promptgen sync`") from error

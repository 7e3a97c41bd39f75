"""What tests of several folders share."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.quick import COUNTS, shortened
from tests.shared import made_once
from tests.web import LOCAL, web_server

# One thread per process, children included: tests run side by side. Set before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Move the files with servers, and then those with other slow tests, to the front.

    `make test` gives a whole file to a process, so that its fixtures are made once, and the quick files come last, so
    that no process ends long after the others.
    """
    ranks = {}
    for item in items:
        rank = next((rank for rank, name in enumerate(("server", "slow")) if item.get_closest_marker(name)), 2)
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running


@pytest.fixture
def few_steps():
    """Let trainings on evaluations take few steps: for tests of what they count or keep, not of what they learn."""
    with shortened(COUNTS):
        yield


@pytest.fixture(scope="module")
def fewer_steps():
    """Let trainings on evaluations take as many steps as a small problem needs."""
    with shortened():
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Return an empty MLflow database to copy: making one takes seconds."""

    def make(folder):
        from steps.recording.mlflow_store import make_database

        make_database(folder / "mlflow.db")

    return made_once(tmp_path_factory, "mlflow", make) / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory):
    """Return what gives a folder, as PREFECT_HOME, an empty database of Prefect: making one takes seconds."""

    def make(folder):
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env={**os.environ, "PREFECT_HOME": str(folder)}, check=True, stdout=subprocess.DEVNULL)

    made = made_once(tmp_path_factory, "prefect-home", make)
    return lambda folder: shutil.copytree(made, folder, dirs_exist_ok=True)

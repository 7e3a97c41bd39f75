"""A Prefect server that runs talk to, and the folders of finished runs."""

from __future__ import annotations

import shutil
import signal

import pytest

from pipelines.servers import temporary_prefect
from steps.recording.mlflow_store import ROOT
from tests import tiny
from tests.faults import unused_port
from tests.loop.runs import FORKS, RUNS, fork, two_passes


@pytest.fixture(scope="module")
def server(tmp_path_factory, prefect_home):
    """The address of a Prefect server, which forks talk to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(prefect_home(tmp_path_factory.mktemp("prefect"))))
        port = unused_port()
        with temporary_prefect(port).running():
            address = f"http://127.0.0.1:{port}/api"
            patch.setenv("PREFECT_API_URL", address)
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            FORKS.set_forkserver_preload(["tests.loop.preloaded"])
            first = FORKS.Process(target=int)  # starts the process that forks come from, with this environment
            first.start()
            first.join()
            yield address


@pytest.fixture
def project_folder(tmp_path, empty_database):
    """The folder of a project, with an MLflow database in which nothing is recorded."""
    return _with_database(tmp_path, empty_database)


def _with_database(folder, database):
    (folder / "mlruns").mkdir()
    shutil.copy(database, folder / "mlruns" / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def finished(server, empty_database, tmp_path_factory):
    """The folder of a project whose loop has run to its end, by the default method, and what the run said."""
    folder = _with_database(tmp_path_factory.mktemp("finished"), empty_database)
    tiny.write_params(folder, tiny.reuse_params())
    return folder, fork(folder).end()


@pytest.fixture(scope="module")
def measured(server, empty_database, tmp_path_factory):
    """The same where only measuring is wanted, by on-policy training."""
    folder = _with_database(tmp_path_factory.mktemp("measured"), empty_database)
    tiny.write_params(folder, two_passes())
    return folder, fork(folder).end()


@pytest.fixture(autouse=True)
def _leave_nothing_running():
    """Kill what a failed test has left."""
    yield
    while RUNS:
        run = RUNS.pop()
        if run.status is None:
            run.signal(signal.SIGKILL)
            run.wait()

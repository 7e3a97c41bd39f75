"""Servers that a run starts: they end with it whatever happens, start one after the other, and may fail to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from pipelines import connection, servers
from pipelines.connection import Connection, connected, is_temporary
from pipelines.servers import Server
from promptgen.errors import PromptGenError
from steps.recording.mlflow_store import ROOT
from tests.faults import dead_server, silent_server, unused_port
from tests.web import Answer, web_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SERVING = """
import http.server, os, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
PARENT = """
import os, signal, sys
from pipelines.servers import Server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with Ctrl-C ignored
with Server("tiny", int(sys.argv[1]), [sys.executable, "-c", sys.argv[2], sys.argv[1], sys.argv[3]], "/").running():
    os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    signal.pause()
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_server_and_its_children_end_with_the_process_that_started_it(tmp_path, name):
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT, str(unused_port()), SERVING, str(pids), name]
    parent = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, timeout=90)
    assert parent.returncode == -signal.Signals[name]
    processes = [int(pid) for pid in pids.read_text().split()]
    deadline = time.monotonic() + 30
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "the server is left"
        time.sleep(0.05)


def server_of(code):
    return Server("tiny", unused_port(), [sys.executable, "-c", code], "/")


def test_a_server_that_fails_is_told_by_the_last_error_in_its_log(tmp_path):
    code = (
        "import sys; print('starting'); print('a.b.SomeError: no such table', file=sys.stderr); print('x'); sys.exit(3)"
    )
    with (
        pytest.raises(PromptGenError, match=r"tiny ended with status 3: a.b.SomeError: no such table"),
        server_of(code).running(tmp_path / "log"),
    ):
        pass


def test_a_server_that_does_not_come_up_is_given_up_and_ended(monkeypatch, tmp_path):
    monkeypatch.setenv(servers.STARTUP_VARIABLE, "0.5")
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(PromptGenError, match="did not answer at http"), server_of(code).running(tmp_path / "log"):
        pass
    assert not pid.exists() or not is_alive(int(pid.read_text()))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for name in (connection.ADDRESS, connection.TEMPORARY):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return tmp_path / "home"


class Starting:
    """A server that takes a while to start, and fails where another one starts at the same time."""

    url = "http://127.0.0.1:1"

    def __init__(self, under_way):
        self.under_way = under_way

    @contextmanager
    def running(self, log):
        assert not self.under_way
        self.under_way.append(log)
        time.sleep(0.3)
        self.under_way.clear()
        yield


def test_two_runs_start_their_servers_one_after_the_other(home, monkeypatch):
    under_way, urls = [], []
    monkeypatch.setattr(connection, "temporary_prefect", lambda port: Starting(under_way))

    def run():
        with connected() as connection_of_run:
            urls.append(connection_of_run.url)

    threads = [threading.Thread(target=run) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", {**os.environ})  # each run is a process of its own
        for thread in threads:
            os.environ.pop(connection.ADDRESS, None)
            thread.start()
        for thread in threads:
            thread.join()
    assert urls == [f"{Starting.url}/api"] * 3


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import time; time.sleep(600)"])
def test_a_run_without_a_server_is_one_warning(home, monkeypatch, caplog, code):
    monkeypatch.setenv(servers.STARTUP_VARIABLE, "1")
    monkeypatch.setattr(connection, "temporary_prefect", lambda port: server_of(code))
    with connected() as without:
        assert without.url is None
        assert not is_temporary()
    (line,) = caplog.messages
    assert line.startswith("tiny ")
    assert f"move {home / 'prefect.db'} away" in line
    assert line.endswith("the run continues without Prefect, which will not show it")


def test_a_home_that_cannot_be_made_is_one_warning(home, caplog):
    home.write_text("a file")
    with connected() as without:
        assert without.url is None
    (line,) = caplog.messages
    assert "a file is in the place of a folder" in line


def test_a_named_server_that_does_not_answer_is_one_warning(home, monkeypatch, caplog):
    for address in (dead_server(), "nonsense", ""):
        caplog.clear()
        monkeypatch.setenv(connection.ADDRESS, address)
        with connected() as without:
            assert without.url is None
        (line,) = caplog.messages
        assert "does not answer" in line


def test_errors_are_the_servers_only_if_it_has_gone():
    import httpx

    with web_server() as web:
        web.serve("/health", Answer(b"true"))
        alive = Connection(web.url)
        assert not alive.is_lost(ValueError("of the user's own code"))
        assert alive.is_lost(httpx.ReadTimeout("too slow"))
        assert not Connection(web.url + "/other").is_lost(ValueError())  # a refusal is an answer
    assert Connection(dead_server()).is_lost(RuntimeError("Failed to reach API"))
    with silent_server() as address:
        assert Connection(address).is_lost(RuntimeError())


CONNECTING = """
import logging
from pipelines.connection import connected
logging.basicConfig()
with connected() as found:
    assert found.url
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("name", ["is it?mode=ro", "50% of #1 ü"])
def test_the_database_of_prefect_lies_in_its_home_whatever_its_name(tmp_path, name):
    work = tmp_path / "work"
    work.mkdir()
    absent = ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    environment = {key: value for key, value in os.environ.items() if key not in absent}
    environment |= {"PREFECT_HOME": str(tmp_path / name), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", CONNECTING], cwd=work, env=environment, check=True, timeout=110)
    assert (tmp_path / name / "prefect.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "work"])
    assert list(work.iterdir()) == []

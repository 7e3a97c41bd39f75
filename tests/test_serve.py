"""Schedules and pages: a real Prefect server sees a scheduled run fire and finish; ports in use are said so."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
import yaml

from pipelines import serve, ui
from pipelines.servers import prefect_server
from promptgen.config.params import load_params
from promptgen.errors import PromptGenError
from steps.recording.mlflow_store import ROOT
from steps.shared.common import Project
from tests import tiny
from tests.commands import typed
from tests.faults import unused_port

EVERY_MINUTE = {"cron": "* * * * *", "timezone": "UTC"}
SOON = """
import sys
from datetime import datetime, timedelta, timezone
from pipelines import serve
from promptgen.command_line import main

def soon(params, schedule_of=serve.schedule_of):
    from prefect.schedules import Interval

    assert schedule_of(params).cron == params.schedule.cron
    return Interval(timedelta(seconds=5), anchor_date=datetime.now(timezone.utc))

serve.schedule_of = soon
sys.exit(main(["serve", *sys.argv[1:]]))
"""
"""`pipelines.serve`, whose runs are due every five seconds instead of at the next full minute."""

QUICK = {
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
}
"""How often Prefect looks for what is due, in seconds."""


def write_experiment(folder, **changes):
    return tiny.write_params(folder, tiny.lean({**tiny.params(), **changes}))


@contextmanager
def started(folder, *command):
    """Run Python in the background, with Prefect's files and the output in `folder`."""
    environment = {**os.environ, **QUICK, "PREFECT_HOME": str(folder / "prefect")}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    with (folder / "output.txt").open("w") as output:
        command = [sys.executable, *command]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


def wait_for(condition, seconds, folder):
    """Return the first true value of a condition; show the output when it stays false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s:\n{(folder / 'output.txt').read_text()[-4000:]}")


def finished_runs(port):
    """Return the scheduled runs that the server knows as completed."""
    question = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/flow_runs/filter",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [run for run in json.load(answer) if run["auto_scheduled"]]
    except OSError:
        return []


@pytest.mark.long
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scheduled_run_fires_and_finishes(tmp_path, prefect_home):
    debias = {**tiny.params()["debias"], "max_passes": 0}  # a run of one pass shows as much
    params = write_experiment(tmp_path, schedule=EVERY_MINUTE, control=None, debias=debias)
    prefect_home(tmp_path / "prefect")
    port = unused_port()
    with started(tmp_path, "-c", SOON, "--params", str(params), "--prefect-port", str(port)):
        (run, *_) = wait_for(lambda: finished_runs(port), 500, tmp_path)
    assert run["name"] == "tiny"
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert metrics["experiment"] == "tiny"
    assert not prefect_server(port).answers()  # it ends with the process that started it


@pytest.mark.long
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pages_start_and_end_together(tmp_path, prefect_home, empty_database):
    params = write_experiment(tmp_path)
    prefect_home(tmp_path / "prefect")
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_database, tmp_path / "mlruns" / "mlflow.db")
    mlflow, prefect = unused_port(), unused_port()
    arguments = ["--params", str(params), "--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    output = tmp_path / "output.txt"
    with started(tmp_path, "-m", "pipelines.ui", *arguments):
        wait_for(lambda: "Ctrl-C stops them" in output.read_text(), 500, tmp_path)
        for port in (mlflow, prefect):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                assert b"<html" in page.read().lower()
    assert "recorded yet" in output.read_text()
    for port in (mlflow, prefect):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


@pytest.mark.parametrize("module", [serve, ui])
def test_a_port_in_use_is_one_clear_line(tmp_path, monkeypatch, capsys, module):
    params = write_experiment(tmp_path, schedule=EVERY_MINUTE)
    monkeypatch.setattr(module, "end_on_sigterm", lambda: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--params", str(params), "--prefect-port", str(port)]
        if module is ui:
            arguments += ["--mlflow-port", str(port)]
        assert typed(module.__name__.removeprefix("pipelines."), *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"error: port {port} is in use, .* ARGS='--(prefect|mlflow)-port NUMBER'", line)


def test_the_schedule_is_that_of_the_params(tmp_path):
    schedule = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}
    made = serve.schedule_of(Project.load(write_experiment(tmp_path, schedule=schedule)).params)
    assert (made.cron, made.timezone) == ("0 3 * * 1", "Europe/Berlin")


def test_without_a_schedule_nothing_is_served(tmp_path):
    project = Project.load(write_experiment(tmp_path, schedule=None))
    with pytest.raises(PromptGenError, match="schedule is null"):
        serve.schedule_of(project.params)


def test_words_of_cron_that_are_not_prefects_are_rejected(tmp_path):
    project = Project.load(write_experiment(tmp_path, schedule={"cron": "0 3 * * 5L", "timezone": "UTC"}))
    with pytest.raises(PromptGenError, match=r"schedule.cron, got '0 3 \* \* 5L'"):
        serve.schedule_of(project.params)


def test_the_pool_has_the_schedule_and_the_prefect_of_the_project():
    pool = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (deployment,) = pool["deployments"]
    (schedule,) = deployment["schedules"]
    wanted = load_params(ROOT / "params.yaml").schedule
    assert (schedule["cron"], schedule["timezone"]) == (wanted.cron, wanted.timezone)
    path, _, flow = deployment["entrypoint"].partition(":")
    assert f"def {flow}(" in (ROOT / path).read_text()
    assert f"prefect=={pool['prefect-version']}\n" in (ROOT / "requirements.txt").read_text()

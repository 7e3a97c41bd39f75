"""Schedules and pages: a real Prefect server sees a scheduled run fire and finish; ports in use are said so."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
import yaml

from pipelines.servers import prefect_server
from promptgen.config.params import load_params
from promptgen.errors import PromptGenError
from steps.recording.mlflow_store import ROOT
from steps.shared.common import Project
from tests import tiny


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_experiment(folder, **changes):
    return tiny.write_params(folder, {**tiny.params(), **changes})


@contextmanager
def started(module, folder, *arguments):
    """Run a command of the project in the background, with Prefect's files and the output in `folder`."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "OMP_NUM_THREADS": "1"}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    with (folder / "output.txt").open("w") as output:
        command = [sys.executable, "-m", module, *arguments]
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
        time.sleep(1)
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


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scheduled_run_fires_and_finishes(tmp_path):
    params = write_experiment(tmp_path, schedule={"cron": "* * * * *", "timezone": "UTC"})
    port = free_port()
    with started("pipelines.serve", tmp_path, "--params", str(params), "--prefect-port", str(port)):
        (run, *_) = wait_for(lambda: finished_runs(port), 500, tmp_path)
    assert run["name"] == "tiny"
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert metrics["experiment"] == "tiny"
    assert not prefect_server(port).answers()  # it ends with the process that started it


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pages_start_and_end_together(tmp_path):
    params = write_experiment(tmp_path)
    mlflow, prefect = free_port(), free_port()
    arguments = ["--params", str(params), "--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    output = tmp_path / "output.txt"
    with started("pipelines.ui", tmp_path, *arguments):
        wait_for(lambda: "Ctrl-C ends them" in output.read_text(), 500, tmp_path)
        for port in (mlflow, prefect):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                assert b"<html" in page.read().lower()
    assert "no run is recorded yet" in output.read_text()
    for port in (mlflow, prefect):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


@pytest.mark.parametrize("module", ["pipelines.serve", "pipelines.ui"])
def test_a_port_in_use_is_one_clear_line(tmp_path, module):
    params = write_experiment(tmp_path, schedule={"cron": "* * * * *", "timezone": "UTC"})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--params", str(params), "--prefect-port", str(port)]
        if module == "pipelines.ui":
            arguments += ["--mlflow-port", str(port)]
        with started(module, tmp_path, *arguments) as process:
            assert process.wait(120) == 2
    last = (tmp_path / "output.txt").read_text().splitlines()[-1]
    assert re.fullmatch(rf"error: port {port} is in use, .* ARGS='--(prefect|mlflow)-port NUMBER'", last)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (None, "schedule is null"),
        ({"cron": "61 * * * *", "timezone": "UTC"}, "61"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Base"}, "Mars/Base"),
    ],
)
def test_a_schedule_that_means_no_time_is_rejected(tmp_path, schedule, message):
    from pipelines.serve import schedule_of

    project = Project.load(write_experiment(tmp_path, schedule=schedule))
    with pytest.raises(PromptGenError, match=message):
        schedule_of(project.params)


def test_the_pool_has_the_schedule_and_the_prefect_of_the_project():
    pool = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (deployment,) = pool["deployments"]
    (schedule,) = deployment["schedules"]
    wanted = load_params(ROOT / "params.yaml").schedule
    assert (schedule["cron"], schedule["timezone"]) == (wanted.cron, wanted.timezone)
    path, _, flow = deployment["entrypoint"].partition(":")
    assert f"def {flow}(" in (ROOT / path).read_text()
    assert f"prefect=={pool['prefect-version']}\n" in (ROOT / "requirements.txt").read_text()

"""Runs of the loop as users start them: fresh processes, and forks of one that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from multiprocessing.process import BaseProcess
from pathlib import Path

from promptgen.command_line import main
from steps.recording.mlflow_store import ROOT
from tests import tiny
from tests.faults import HOLD, RUN_SECONDS, wait_for, with_ctrl_c
from tests.quick import shortened

FORKS = multiprocessing.get_context("forkserver")
STATE = Path("artifacts/tiny/pass-1/train_flow/state")


class Run:
    """A running command, in a session of its own, so that it is killed with its children."""

    def __init__(self, process: subprocess.Popen[bytes] | BaseProcess, output: Path) -> None:
        self.process, self.output = process, output
        RUNS.append(self)

    @property
    def status(self) -> int | None:
        """Exit status, minus a signal's number where one ended it; None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def wait_for(self, path: Path) -> None:
        """Wait until it has written a path of its project."""
        wait_for(self.output.parent / path, lambda: self.status is None)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        os.killpg(self.process.pid, number)

    def wait(self) -> str:
        """Wait for its end and return what it said."""
        deadline = time.monotonic() + RUN_SECONDS
        while self.status is None:
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)
        return self.output.read_text()

    def end(self, status: int = 0) -> str:
        """Wait for its end, check it, and return what it said."""
        said = self.wait()
        assert self.status == status, said
        assert "Traceback" not in said
        return said


RUNS: list[Run] = []


def start(folder: Path, hold: Path | None = None) -> Run:
    """Start the loop of the project in `folder` without a server.

    It stands still in its next energy once the path `hold` exists.
    """
    without = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")
    variables = {name: value for name, value in os.environ.items() if name not in without}
    variables |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / ".prefect")}
    if hold:
        variables[HOLD] = str(folder / hold)
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            with_ctrl_c("-m", "pipelines.debias"),
            cwd=folder,
            env=variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Run(process, output)


def fork(folder: Path, *arguments: str, command: str = "run", hold: Path | None = None) -> Run:
    """Start a command of the project in `folder` in a fork, with short trainings; `hold` as in `start`."""
    output = folder / f"output-{len(list(folder.iterdir()))}.txt"
    process = FORKS.Process(target=_work, args=(folder, output, command, arguments, hold))
    process.start()
    return Run(process, output)


def _work(folder: Path, output: Path, command: str, arguments: tuple[str, ...], hold: Path | None) -> None:
    """Do what ``promptgen command arguments`` does in `folder`."""
    os.setsid()
    os.chdir(folder)
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hold:
        os.environ[HOLD] = str(folder / hold)
    with shortened():
        sys.exit(main([command, *arguments]))


def error_of(output: str) -> str:
    """Return the one line that says what is wrong."""
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return line


def metrics_without_seconds(folder: Path) -> dict:
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    for record in metrics["passes"]:
        assert all(seconds >= 0 for seconds in record.pop("seconds").values())
    return metrics


def confirmation_in(folder: Path) -> dict | None:
    return json.loads((folder / "reports/metrics.json").read_text())["confirmation"]


def ask(server: str, what: str) -> list[dict]:
    """Return everything of a kind that the Prefect server knows."""
    request = urllib.request.Request(f"{server}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def two_passes() -> dict:
    """Return the content of an experiment of two passes, which show as much as a whole loop."""
    content = tiny.params()
    content["debias"]["max_passes"] = 0
    return content


def one_pass() -> dict:
    """Return the content of an experiment that measures the generator and trains nothing."""
    return two_passes() | {"control": None}


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for child in map(int, text.split()) for each in (child, *children_of(child))]

"""The servers that show and schedule runs, on this machine only: MLflow's and Prefect's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import guard
from promptgen.errors import PromptGenError
from steps.recording.mlflow_store import artifact_location, tracking_uri

HOST = "127.0.0.1"
STARTUP_SECONDS = 180.0
STOP_SECONDS = 15.0
STARTUP_VARIABLE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
ERROR_LINE = re.compile(r"[\w.]+(Error|Exception): ")
"""Last line of a traceback of Python."""


@dataclass(frozen=True)
class Server:
    """How to start a server, and how to check that it answers.

    Attributes:
        name: its name in messages.
        port: on the loopback address.
        command: what starts it.
        health: path that answers with status 200 when it runs.
        environment: added to that of this process.
    """

    name: str
    port: int
    command: list[str]
    health: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of its pages."""
        return f"http://{HOST}:{self.port}"

    def answers(self) -> bool:
        """Return whether it runs."""
        try:
            with urllib.request.urlopen(self.url + self.health, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def require_port(self) -> None:
        """Raise PromptGenError when something else listens on the server's port."""
        if port_in_use(self.port):
            raise PromptGenError(
                f"port {self.port} is in use, so {self.name} cannot start: stop the program that uses it, or choose "
                f"another port with ARGS='--{self.name.lower()}-port NUMBER'"
            )

    @contextmanager
    def running(self, log: Path | None = None) -> Iterator[None]:
        """Start the server for the length of a block. It also ends when this process is killed.

        Args:
            log: file for the output of the server; None leaves it on the terminal.

        Raises:
            PromptGenError: the port is in use, or the server does not start.
            OSError: the log cannot be written.
        """
        self.require_port()
        with ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            process = subprocess.Popen(
                [sys.executable, guard.__file__, *self.command],
                env={**os.environ, **self.environment},
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
            stack.callback(stop, process)
            self._wait(process, log)
            yield

    def _wait(self, process: subprocess.Popen[bytes], log: Path | None) -> None:
        seconds = float(os.environ.get(STARTUP_VARIABLE) or STARTUP_SECONDS)
        deadline = time.monotonic() + seconds
        while not self.answers():
            if process.poll() is not None:
                reason = last_line(log) if log else "see its output above"
                raise PromptGenError(f"{self.name} ended with status {process.returncode}: {reason}")
            if time.monotonic() > deadline:
                raise PromptGenError(f"{self.name} did not answer at {self.url} within {seconds:.0f} s")
            time.sleep(0.2)


def temporary_prefect(port: int) -> Server:
    """Return Prefect's server of a single run: without pages, as Prefect itself would start it."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    environment = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    return Server("Prefect's server", port, command, "/api/health", environment)


def prefect_server(port: int) -> Server:
    """Return Prefect's server, which keeps its database in the project."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    environment = {"PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api", "PREFECT_LOGGING_SERVER_LEVEL": "WARNING"}
    return Server("Prefect", port, command, "/api/health", environment)


def mlflow_server(port: int, root: Path) -> Server:
    """Return MLflow's server on the project's own database, which `steps.recording.mlflow_store.connect` makes."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", tracking_uri(root), "--artifacts-destination", artifact_location(root)]
    command += ["--uvicorn-opts", "--log-level warning"]
    environment = {
        # Its jobs, which nothing here uses, would take another 1.5 GB of memory.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    return Server("MLflow", port, command, "/health", environment)


def use_prefect(server: Server) -> None:
    """Let Prefect use a server, in this process and its children; call it before Prefect is imported."""
    os.environ["PREFECT_API_URL"] = f"{server.url}/api"
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
    os.environ.pop("PREFECT_CLIENT_MAX_RETRIES", None)


def port_in_use(port: int) -> bool:
    """Return whether something listens on a port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """Return a port of the loopback address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """Return the last error message in a server's log, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    return (errors or lines or ["it printed nothing"])[-1][:300]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, with all of its children."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that its servers end, too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

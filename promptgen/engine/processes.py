"""Workers that are processes of this machine.

They are started as commands, since `multiprocessing` would import the driver's main module, with Prefect and MLflow, in
each; and its pools, as those of `concurrent.futures`, cannot replace the one worker that hangs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from promptgen.engine.dispatch import WorkerLostError

END_SECONDS = 10.0


class ProcessWorker:
    """A process with a connection to it."""

    def __init__(self) -> None:
        self.connection: Connection[Any, Any]
        self.connection, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "promptgen.engine.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=2,  # what models print is not the driver's answer
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": python_path()},
            )

    def send(self, kind: str, payload: bytes) -> None:
        """Send a message."""
        try:
            self.connection.send((kind, payload))
        except OSError as error:
            raise WorkerLostError(self._end()) from error

    def receive(self) -> tuple[str, bytes]:
        """Return the answer."""
        try:
            answer: tuple[str, bytes] = self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError(self._end()) from error
        return answer

    def stop(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        if self.process.stdin:
            self.process.stdin.close()

    def _end(self) -> str:
        """Return how the process ended."""
        try:
            code = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return "hung up"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


class ProcessCrew:
    """Starts processes and waits for them."""

    def hire(self) -> ProcessWorker:
        """Return a new worker."""
        return ProcessWorker()

    def wait(self, workers: Sequence[ProcessWorker], seconds: float) -> list[ProcessWorker]:
        """Return the workers that have answered or ended, after at most so many seconds."""
        ready = wait([worker.connection for worker in workers], seconds)
        return [worker for worker in workers if worker.connection in ready]

    def recover(self) -> None:
        """Do nothing: this machine is never lost."""

    def close(self) -> None:
        """Do nothing: all workers have been stopped."""


def python_path() -> str:
    """Return where this process looks for modules, so that a worker finds the user's own."""
    return os.pathsep.join(dict.fromkeys(os.path.abspath(path) for path in sys.path))

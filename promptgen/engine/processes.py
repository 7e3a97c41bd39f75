"""Workers that are processes of this machine.

They are started as commands, since `multiprocessing` would import the driver's main module, with Prefect and MLflow, in
each; and its pools, as those of `concurrent.futures`, cannot replace the one worker that hangs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from promptgen.engine.dispatch import WorkerLostError

END_SECONDS = 10.0


GPUS = "CUDA_VISIBLE_DEVICES"
"""Variable that lists the GPUs that a process sees."""


class ProcessWorker:
    """A process with a connection to it.

    Args:
        gpu: name of the GPU that it sees, as in `GPUS`; None for all.
    """

    def __init__(self, gpu: str | None = None) -> None:
        self.gpu = gpu
        self.connection: Connection[Any, Any]
        self.connection, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "promptgen.engine.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=2,  # what models print is not the driver's answer
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": python_path()} | ({} if gpu is None else {GPUS: gpu}),
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
    """Starts processes and waits for them.

    Args:
        gpus: names of the GPUs of this machine, as in `GPUS`; each worker sees one, unless there are fewer than two.
    """

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self.gpus = list(gpus)
        self.workers: list[ProcessWorker] = []

    def hire(self) -> ProcessWorker:
        """Return a new worker, on the GPU with the fewest workers."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        taken = Counter(worker.gpu for worker in self.workers)
        gpu = min(self.gpus, key=lambda name: taken[name]) if len(self.gpus) > 1 else None
        self.workers.append(worker := ProcessWorker(gpu))
        return worker

    def wait(self, workers: Sequence[ProcessWorker], seconds: float) -> list[ProcessWorker]:
        """Return the workers that have answered or ended, after at most so many seconds."""
        ready = wait([worker.connection for worker in workers], seconds)
        return [worker for worker in workers if worker.connection in ready]

    def recover(self) -> None:
        """Do nothing: this machine is never lost."""

    def close(self) -> None:
        """Do nothing: all workers have been stopped."""


def gpu_names(count: int) -> list[str]:
    """Return the names of the GPUs that this process sees, as in `GPUS`, if it sees `count` of them.

    Example:
        >>> import unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, {GPUS: "2,5"}):
        ...     gpu_names(2)
        ['2', '5']
    """
    named = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return named if len(named) == count else [str(number) for number in range(count)]


def python_path() -> str:
    """Return where this process looks for modules, so that a worker finds the user's own."""
    return os.pathsep.join(dict.fromkeys(os.path.abspath(path) for path in sys.path))

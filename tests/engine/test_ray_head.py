"""A Ray cluster that `ray start` has started, joined directly or through Ray's client; its head dies and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults import unused_port

pytest.importorskip("ray")

pytestmark = pytest.mark.long

NUMBERS = 6
DRIVER = f"""
import logging, sys
from promptgen.engine.config import RayConfig
from promptgen.engine.dispatch import Dispatcher
from promptgen.engine import ray_cluster
from tests.engine.recipes import Squares
logging.basicConfig(stream=sys.stderr)
ray_cluster.PROBE_SECONDS = 1.0
config = RayConfig(type="ray", address=sys.argv[1], workers=1, gpus_per_worker=0.0)
engine = Dispatcher(1, lambda: ray_cluster.RayCrew(config))
for number, square in engine.map(Squares(seconds=0.5), list(range({NUMBERS}))):
    print(number, square, flush=True)
engine.close()
"""


NOTED = "shards are made again"
"""What the driver's log says when the head is gone."""


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Head:
    """A head with one core at fixed ports, which can be started again after it was killed."""

    def __init__(self, folder: str) -> None:
        self.folder, self.port, self.client_port = folder, unused_port(), unused_port()
        self.start()

    def start(self) -> None:
        from promptgen.engine.ray_cluster import SETTINGS

        options = {
            "port": self.port,
            "ray-client-server-port": self.client_port,
            "num-cpus": 1,
            "include-dashboard": "false",
            "object-store-memory": 80 << 20,
            "temp-dir": self.folder,
        }
        command = [shutil.which("ray", path=Path(sys.executable).parent), "start", "--head", "--block"]
        command += [f"--{name}={value}" for name, value in options.items()]
        # gRPC's own handling of forks ends the server of Ray's client in a head that is started with --block.
        environment = os.environ | SETTINGS | {"GRPC_ENABLE_FORK_SUPPORT": "0", "PYTHONPATH": str(Path.cwd())}
        with (Path(self.folder) / "head.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until both ports answer."""
        for port in (self.port, self.client_port):
            wait_until(partial(answers, port))

    def kill(self) -> None:
        """Kill it with everything that it has started, which the system does once it is gone."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def head():
    folder = tempfile.mkdtemp(prefix="ray")  # a short one, since the path of a socket has at most 107 bytes
    head = Head(folder)
    yield head
    head.kill()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def driver(address, log):
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, address], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with process:
        yield process
        process.kill()


@pytest.mark.parametrize("through", ["client", "port"])
def test_a_run_outlives_the_head_of_its_cluster(head, tmp_path, through):
    """What was evaluated is kept, and the rest is evaluated when the head is back."""
    address = f"ray://127.0.0.1:{head.client_port}" if through == "client" else f"127.0.0.1:{head.port}"
    log = tmp_path / "driver.log"
    head.wait()
    with driver(address, log) as process:
        lines = [process.stdout.readline()]
        assert lines != [""], log.read_text()
        head.kill()
        # If it came back before the driver has noticed, Ray itself would end the driver's process.
        wait_until(lambda: NOTED in log.read_text())
        head.start()
        rest, _ = process.communicate(timeout=120)
    lines += rest.splitlines(keepends=True)
    assert process.returncode == 0, log.read_text()
    assert sorted(lines) == [f"{number} {number**2}\n" for number in range(NUMBERS)]
    assert log.read_text().count(NOTED) == 1

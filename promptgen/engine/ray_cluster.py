"""Workers that are actors of a Ray cluster. Ray is imported here alone, and only when a shard is evaluated."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from promptgen.engine.config import RayConfig
from promptgen.engine.dispatch import CrewLostError, WorkerLostError
from promptgen.engine.processes import python_path
from promptgen.engine.worker import Bench
from promptgen.errors import EngineError, one_line

ANSWER_SECONDS, JOIN_SECONDS = 10.0, 60.0
"""Seconds in which a cluster has to take a connection, and to let this process join."""

PROBE_SECONDS = 5.0
"""Seconds without an answer of any worker after which the head is probed."""

RETURN_SECONDS = 300.0
"""Seconds that a lost head may take to return."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    "RAY_TQDM_PATCH_PRINT": "0",
}

INSTALL = "pip install -r requirements-ray.txt"


class RayWorker:
    """An actor and its last request."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self.pending: Any = None

    def send(self, kind: str, payload: bytes) -> None:
        """Send a message."""
        with _lost_connection():
            self.pending = self.actor.answer.remote(kind, payload)

    def receive(self) -> tuple[str, bytes]:
        """Return the answer."""
        try:
            with _lost_connection():
                answer: tuple[str, bytes] = self.ray.get(self.pending)
        except self.ray.exceptions.RayError as error:
            raise WorkerLostError(f"is gone ({one_line(error).partition(' class_name:')[0]})") from error
        return answer

    def stop(self) -> None:
        """End the actor at once."""
        with contextlib.suppress(Exception):  # it may be gone, and the whole cluster, too
            if self.ray.is_initialized():
                self.ray.kill(self.actor)


class RayCrew:
    """Joins a cluster, starts actors on it and waits for them.

    Raises:
        EngineError: Ray is not installed, the cluster does not answer, or it is too small.
    """

    def __init__(self, config: RayConfig) -> None:
        self.config, self.ray = config, import_ray()
        self.joined = not self.ray.is_initialized()
        if self.joined:
            self._join()
        self._require_room()
        self.probed = time.monotonic()

    def hire(self) -> RayWorker:
        """Return a new worker."""
        options = {
            "num_cpus": 1,
            "num_gpus": self.config.gpus_per_worker,
            "max_restarts": 0,
            "runtime_env": {"env_vars": {"PYTHONPATH": python_path()}},
        }
        with _lost_connection():
            return RayWorker(self.ray, self.ray.remote(**options)(Bench).remote())

    def wait(self, workers: Sequence[RayWorker], seconds: float) -> list[RayWorker]:
        """Return the workers that have answered or ended, after at most so many seconds."""
        with _lost_connection():  # Ray's client asks the cluster for the number of a reference
            pending = {worker.pending: worker for worker in workers}
            done, _ = self.ray.wait(list(pending), num_returns=1, timeout=seconds)
        now = time.monotonic()
        if done:
            self.probed = now
        elif now - self.probed > PROBE_SECONDS:
            self._require_head()
            self.probed = time.monotonic()
        return [pending[reference] for reference in done]

    def recover(self) -> None:
        """Join the cluster again after its head was lost."""
        last = time.monotonic() + RETURN_SECONDS
        while True:
            try:
                self.close()
                self._join()
                self._require_room()
                return
            except EngineError as error:
                if time.monotonic() > last or not self.joined:
                    raise EngineError(
                        f"the head of the cluster did not come back within {RETURN_SECONDS:.0f} s ({error})"
                    ) from error
                time.sleep(PROBE_SECONDS)

    def close(self) -> None:
        """Leave the cluster; one that was started for this process ends."""
        if self.joined:
            with contextlib.suppress(EngineError):
                _within(JOIN_SECONDS, self.ray.shutdown, "leaving the cluster")

    def _join(self) -> None:
        address = self.config.address
        local = {"num_cpus": self.config.workers, "include_dashboard": False} if address == "local" else {}
        if address not in ("auto", "local"):
            _require_answer(address.removeprefix("ray://"))
        options = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR", **local}
        _within(JOIN_SECONDS, lambda: self.ray.init(address=address, **options), f"joining the cluster {address}")

    def _require_room(self) -> None:
        """Refuse a cluster without room for all workers, which would wait forever."""
        has, config = self.ray.cluster_resources(), self.config
        wanted = {"GPU": config.workers * config.gpus_per_worker, "CPU": float(config.workers)}
        for kind, count in wanted.items():
            if has.get(kind, 0.0) < count:
                way_out = "lower engine.workers or engine.gpus_per_worker" if kind == "GPU" else "lower engine.workers"
                raise EngineError(
                    f"the Ray cluster has {has.get(kind, 0.0):g} {kind}s, but {config.workers} workers need "
                    f"{count:g}: {way_out}, or add nodes"
                )

    def _require_head(self) -> None:
        client, address = self.config.address.startswith("ray://"), self.config.address.removeprefix("ray://")
        try:
            _require_answer(address if client else self.ray.get_runtime_context().gcs_address)
        except EngineError as error:
            raise CrewLostError(f"the head of the Ray cluster is gone ({error})") from error


@contextlib.contextmanager
def _lost_connection() -> Any:
    """Convert errors of the connection to the cluster into CrewLostError."""
    try:
        yield
    except Exception as error:
        # Ray's client lets some errors of gRPC through as they are.
        if not isinstance(error, ConnectionError) and "grpc" not in {
            kind.__module__.partition(".")[0] for kind in type(error).__mro__
        }:
            raise
        raise CrewLostError(f"the connection to the Ray cluster is lost ({one_line(error)})") from error


def import_ray() -> Any:
    """Return the package; raise EngineError with the command that installs it if it is missing."""
    # Before the import: Ray reports nothing to anybody, starts no cluster that was not requested, does not end this
    # process when its head is away for a minute, and leaves the print of this process alone.
    settings = SETTINGS | ({"RAY_AUTH_MODE": "token"} if _has_token() else {})  # `ray start` uses the token, too
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f"engine: {{type: ray}} needs the package ray ({error}): install it with `{INSTALL}`"
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # what matters is logged here, in one line
    return ray


def _has_token() -> bool:
    """Return whether a token protects the Ray clusters of this user."""
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({error}): start its head with `ray start --head`, or correct "
            "engine.address"
        ) from error


def _within(seconds: float, work: Callable[[], object], what: str) -> None:
    """Run a function of Ray that may wait forever.

    Raises:
        EngineError: it fails, or takes too long.
    """
    outcome: queue.Queue[BaseException | None] = queue.Queue()

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(None)
            threading.Event().wait()  # the processes of a local cluster end with the thread that has started them

    threading.Thread(target=guarded, daemon=True).start()
    try:
        error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise EngineError(
            f"{what} took longer than {seconds:.0f} s: is there a head of this version of Ray, with this user's token?"
        ) from None
    if error:
        raise EngineError(f"{what} failed: {one_line(error)}") from error

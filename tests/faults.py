"""Faults on demand: a process that is killed at a named event, a disk that is full, a server that is dead.

Tests that use them carry the marker `faults`, and `python -m pytest -m faults` runs these alone. Servers that break
off, stall or lie are those of `tests.web`.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = "TESTS_HOLD"
"""Environment variable of a path; once it exists, `hold_point` holds the process."""

RUN_SECONDS = 300


def hold_point() -> None:
    """Stand still once the path in `HOLD` exists, until a signal ends the process."""
    while (path := os.environ.get(HOLD)) and Path(path).exists():
        time.sleep(0.02)


def wait_for(path: Path, runs: Callable[[], bool]) -> None:
    """Wait until a process, as long as it runs, has written `path`."""
    deadline = time.monotonic() + RUN_SECONDS
    while not path.exists():
        assert runs(), f"the process ended before it wrote {path}"
        assert time.monotonic() < deadline, f"{path} was not written within {RUN_SECONDS} s"
        time.sleep(0.02)


def with_ctrl_c(*command: str) -> list[str]:
    """Return a command of Python that Ctrl-C ends, even where this process ignores it, as background jobs do.

    A child inherits an ignored SIGINT, and Python then installs no handler of its own.
    """
    code = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", code, sys.executable, *command]


def die() -> None:
    """Kill this process; nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed(work: Callable[[], object]) -> bool:
    """Work in a fork of this process, and return whether it was killed; its memory does not come back.

    A process with other threads must not fork.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child process ended with status {status}"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def die_when_replacing(name: str, number: int, moment: str) -> None:
    """From now on, kill this process "before" or "after" a file `name` is put in its place a `number`-th time."""
    numbers, replace = iter(range(1, 1000)), os.replace

    def deadly_replace(source: Path, target: Path) -> None:
        fatal = Path(target).name == name and next(numbers) == number
        if fatal and moment == "before":
            die()
        replace(source, target)
        if fatal:
            die()

    os.replace = deadly_replace


class _File:
    """A file opened for writing on a disk that fills up."""

    def __init__(self, file: io.IOBase, disk: dict[str, int]) -> None:
        self._file, self._disk = file, disk

    def write(self, content: bytes | str) -> int:
        fits = content[: self._disk["room"]]
        self._disk["room"] -= len(fits)
        self._file.write(fits)
        if len(fits) < len(content):
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(content)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")  # whoever asks would write past `write`

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@contextmanager
def full_disk(folder: Path, room: int = 0, suffix: str = "") -> Iterator[None]:
    """Let writes fail as on a full disk, for the length of a block.

    Args:
        folder: where the disk is.
        room: bytes (characters, of text) that it takes before it is full.
        suffix: what the names of the files end in that it refuses; any by default.
    """
    real, disk = io.open, {"room": room}

    def opened(file: object, mode: str = "r", *arguments: object, **options: object) -> object:
        handle = real(file, mode, *arguments, **options)
        if isinstance(file, int) or set(mode) <= set("rbtU"):
            return handle
        path = Path(os.fsdecode(file)).resolve()
        return _File(handle, disk) if folder.resolve() in path.parents and path.name.endswith(suffix) else handle

    try:
        io.open = builtins.open = opened
        yield
    finally:
        io.open = builtins.open = real


def unused_port() -> int:
    """Return a port of the loopback address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dead_server() -> str:
    """Return the address of a server that refuses connections."""
    return f"http://127.0.0.1:{unused_port()}"


@contextmanager
def silent_server() -> Iterator[str]:
    """Give the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"

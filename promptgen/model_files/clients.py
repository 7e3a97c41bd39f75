"""Run the user's own package clients, pip and npm, in a folder of their own, and stop one that falls silent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promptgen.errors import ModelFileError, UnreachableError

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0

_LONGEST_OUTPUT = 1 << 22
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """How a client ended.

    Attributes:
        status: its exit status.
        output: what it wrote to the standard output.
        complaints: what it wrote to the standard error.
    """

    status: int
    output: str
    complaints: str


@contextmanager
def client_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder`, which is removed at the end; one that a killed run left is emptied."""
    work = folder.absolute() / "client"  # the client runs in another folder than this process
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_client(name: str, command: Sequence[str], work: Path, silence: float) -> Outcome:
    """Run a client in ``work/archives``, where it writes what it gets, with ``work`` for its temporary files.

    Args:
        name: name of the client in errors.
        command: the program and its arguments.
        work: an empty folder. Growth of the files in it, which include the client's output, is the sign of life.
        silence: seconds without a sign of life after which the client is stopped.

    Raises:
        ModelFileError: the client cannot be started.
        UnreachableError: the client fell silent.
    """
    (archives := work / "archives").mkdir()
    output, complaints = work / "output.txt", work / "complaints.txt"
    with output.open("wb") as out, complaints.open("wb") as err:
        try:
            process = subprocess.Popen(
                command,
                cwd=archives,
                env={**os.environ, "TMPDIR": str(work)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        except OSError as error:
            raise ModelFileError(f"{name} cannot be started ({error}); repair it") from error
        try:
            status = _wait(name, process, work, silence)
        finally:
            _stop(process)
    return Outcome(status, _text(output), _text(complaints))


def plain(text: str) -> str:
    """Return a client's sentence for an error: one line, not long, and without names and passwords in addresses."""
    line = re.sub(r"(?<=://)[^/@\s]*@", "", " ".join(text.split()))
    return "".join(letter for letter in line if letter.isprintable())[:_LONGEST_REASON]


def _wait(name: str, process: subprocess.Popen[bytes], work: Path, silence: float) -> int:
    """Return the exit status of a client, or stop waiting for one that shows no sign of life."""
    life, since = 0, time.monotonic()
    while True:
        try:
            return process.wait(min(POLL_SECONDS, silence))
        except subprocess.TimeoutExpired as error:
            if (now := _bytes_in(work)) != life:
                life, since = now, time.monotonic()
            elif time.monotonic() - since >= silence:
                raise UnreachableError(
                    f"{name} did not respond for {silence:g} s and was stopped; try again"
                ) from error


def _bytes_in(folder: Path) -> int:
    """Return the size of all files below a folder, which changes meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(place, name)).st_size
            except FileNotFoundError:
                continue  # a temporary file that has been moved or removed
    return total


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST_OUTPUT).decode(errors="replace")

"""The worker's side: make the function of a recipe once, then evaluate shard after shard with it.

`python -m promptgen.engine.worker DESCRIPTOR` is a worker of `promptgen.engine.processes`. Messages are pickles, as
between all processes of Python and of Ray: both ends are the same user's, and none is read from a file.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from promptgen.engine.base import Recipe
from promptgen.errors import EngineError, PromptGenError, one_line

Kind = Literal["ready", "refused", "done", "failed"]


@dataclass(frozen=True)
class Opening:
    """The work that a worker prepares for.

    Attributes:
        recipe: makes the function that evaluates a shard.
        identity: what results depend on, as the driver finds it.
        threads: CPU threads, on which the rounding of results depends.
    """

    recipe: Recipe[Any, Any]
    identity: Mapping[str, str]
    threads: int


class Bench:
    """Answers the messages of a driver: `open` with a pickled `Opening`, then `shard` with pickled shards."""

    def __init__(self) -> None:
        self._evaluate: Callable[[Any], Any] | None = None
        self._threads = 1

    def answer(self, kind: str, payload: bytes) -> tuple[Kind, bytes]:
        """Return the answer to a message: ready, refused (an error), done (a result), or failed (an error)."""
        try:
            if kind == "open":
                self._open(payload)
                return "ready", pickle.dumps(f"{socket.gethostname()}, process {os.getpid()}")
            assert self._evaluate is not None, "a shard came before the recipe"
            self._use_threads()
            return "done", pickle.dumps(self._evaluate(pickle.loads(payload)))
        except Exception as error:
            return "refused" if kind == "open" else "failed", pickle.dumps(_portable(error))

    def _open(self, payload: bytes) -> None:
        self._evaluate = None  # its networks make room for the next ones
        opening: Opening = pickle.loads(payload)
        self._threads = opening.threads
        opening.recipe.prepare()
        own, expected = full_identity(opening.recipe), opening.identity
        if different := sorted(name for name in {*own, *expected} if own.get(name) != expected.get(name)):
            raise EngineError(f"it differs from the driver in {', '.join(different)}: install the same there")
        self._evaluate = opening.recipe.build()

    def _use_threads(self) -> None:
        """Let torch compute with as many threads as the driver, if the recipe has imported it."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


def full_identity(recipe: Recipe[Any, Any]) -> dict[str, str]:
    """Return the identity of a recipe, and of everything that all results depend on."""
    torch = metadata.version("torch").partition("+")[0]
    return {**recipe.identity(), "version of Python": platform.python_version(), "version of torch": torch}


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled; one of the user's code says where it was raised."""
    if not isinstance(error, PromptGenError):
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # a class of the user's may raise anything
        pass
    return EngineError(f"a shard raised {type(error).__name__}: {one_line(error)}")


def _end_with_driver() -> None:
    """End this process when the other end of its standard input is closed: the driver is gone, even if killed."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(descriptor: int) -> None:
    """Answer messages until the driver disconnects."""
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the driver decides
    threading.Thread(target=_end_with_driver, daemon=True).start()
    bench = Bench()
    with Connection(descriptor) as connection:
        try:
            while True:
                connection.send(bench.answer(*connection.recv()))
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))

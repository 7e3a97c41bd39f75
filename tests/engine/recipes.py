"""Recipes that workers of the tests receive: a square, and the ways in which it can go wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptgen.engine.base import Recipe
from promptgen.errors import ConfigError

BUILDS = ".builds"
"""Ending of the file with a letter for each function that a process has made."""


class OwnError(Exception):
    """An error of the user's code that cannot be unpickled, since its class takes two arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@dataclass(frozen=True)
class Sight(Recipe[float, tuple[int, str]]):
    """Sleeps for so many seconds, and tells which process it is and which GPUs it sees."""

    def build(self) -> Callable[[float], tuple[int, str]]:
        return lambda seconds: (time.sleep(seconds), (os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")))[1]


@dataclass(frozen=True)
class Squares(Recipe[int, int]):
    """Squares a number.

    Attributes:
        fault: what goes wrong with `number`.
        number: the shard of the fault.
        folder: where processes leave a file with their number, and one for what they build; a fault that happens `once`
            leaves one, too.
        once: whether the fault happens once only.
        seconds: how long a shard takes.
        secret: what the driver and its workers have to agree upon, read from a file.
    """

    fault: str = ""
    number: int = 2
    folder: Path | None = None
    once: bool = False
    seconds: float = 0.0
    secret: Path | None = None

    def identity(self) -> Mapping[str, str]:
        # A worker finds another file than the driver, as on another machine.
        return {"weights": self.secret.read_text() + str(os.environ.get("PROMPTGEN_TEST", ""))} if self.secret else {}

    def build(self) -> Callable[[int], int]:
        if self.fault == "build":
            raise ConfigError("there is no such label")
        if self.folder:
            with (self.folder / f"{os.getpid()}{BUILDS}").open("a") as file:
                file.write("x")
        return self._square

    def _square(self, number: int) -> int:
        if self.folder:
            (self.folder / f"{os.getpid()}").touch()
        time.sleep(self.seconds)
        if number == self.number and not (self.once and self._happened()):
            self._go_wrong()
        return number * number

    def _happened(self) -> bool:
        assert self.folder is not None
        mark = self.folder / "happened"
        return mark.exists() or bool(mark.touch())

    def _go_wrong(self) -> Any:
        match self.fault:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)
            case "exit":
                os._exit(3)
            case "config":
                raise ConfigError("the label is unknown")
            case "error":
                raise ZeroDivisionError("of the user's model")
            case "own error":
                raise OwnError("first", "second")

"""How far a transfer is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("promptgen")

LINE_SECONDS = 15.0


@contextmanager
def meter(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Give a function that is told of every number of bytes that has come.

    Args:
        title: what is transferred.
        total: bytes of the whole; None where nobody knows.
        done: bytes that are there already.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=title, total=total, initial=done, unit="B", unit_scale=True, dynamic_ncols=True) as bar:
            yield bar.update
    else:
        yield _Lines(title, total, done).update


class _Lines:
    """Logs how far a transfer is, every `LINE_SECONDS`."""

    def __init__(self, title: str, total: int | None, done: int) -> None:
        self._title, self._total = title, total
        self._first = self._done = done
        self._began = self._told = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        speed = (self._done - self._first) / (now - self._began)
        whole = f" of {megabytes(self._total)}, {(self._total - self._done) / speed:.0f} s left" if self._total else ""
        logger.info("%s: %s%s, %s/s", self._title, megabytes(self._done), whole, megabytes(speed))


def megabytes(count: float) -> str:
    """Return a number of bytes as text, in MB."""
    return f"{count / 1e6:.1f} MB"

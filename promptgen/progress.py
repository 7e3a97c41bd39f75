"""Progress on stderr: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

logger = logging.getLogger("promptgen")

LINE_SECONDS = 15.0


class Bar:
    """Shows the progress of a task; use it in a `with` block, so that the last line is ended. It is a `Tracker`.

    Args:
        title: what is shown before the figures.
        unit: what is counted: `B` shows bytes with a prefix such as M.

    Example:
        >>> with Bar("copy", unit="B") as bar:
        ...     for done in range(0, 5000, 1000):
        ...         bar.progress(done, 5000)
    """

    def __init__(self, title: str = "", unit: str = "it") -> None:
        self.title = title
        self._unit = unit
        self._meter: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def progress(self, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` parts are done, of `total` where that is known; fewer than before start a new count."""
        if self._meter is not None and done < self._meter.n:
            self._close()
        if self._meter is None:
            self._meter = self._open(done, total)
        self._meter.set_postfix_str(note, refresh=False)
        self._meter.update(done - self._meter.n)
        if done == total:
            self._close()

    def _open(self, done: int, total: int | None) -> Any:
        options = {"desc": self.title or None, "unit": self._unit, "unit_scale": self._unit == "B", "initial": done}
        if sys.stderr.isatty():
            return tqdm(total=total, dynamic_ncols=True, **options)
        return _Lines(total=total, ncols=0, mininterval=LINE_SECONDS, delay=LINE_SECONDS, leave=False, **options)

    def _close(self) -> None:
        if self._meter is not None:
            self._meter.close()
        self._meter = None


class _Lines(tqdm):  # type: ignore[misc]
    """Logs the figures of a bar, for a stderr that is not a terminal."""

    monitor_interval = 0  # starts no thread

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Log the figures unless they are as they were; tqdm calls this also when it closes a bar that was shown."""
        if self.n != self.last_print_n:
            logger.info("%s", self)

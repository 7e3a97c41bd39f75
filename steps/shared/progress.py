"""How far a step is, in the terminal: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

WIDTH = 30
REDRAW_SECONDS = 0.1
LINE_SECONDS = 15.0


class Bar:
    """Shows progress on stderr; use it as a context, so that the last line is ended.

    Attributes:
        title: what is shown before the bar.
    """

    def __init__(self, title: str = "", stream: TextIO | None = None) -> None:
        self.title = title
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._shown = self._began = time.monotonic()
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_line()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` parts are done, unless something was shown just before."""
        now = time.monotonic()
        if now - self._shown < (REDRAW_SECONDS if self._is_terminal else LINE_SECONDS) and done < total:
            return
        self._shown = now
        left = (now - self._began) / max(done, 1) * (total - done)
        text = f"{self.title} {done}/{total}, {left:.0f} s left, {note}".strip()
        if not self._is_terminal:
            print(text, file=self._stream, flush=True)
            return
        filled = round(WIDTH * done / total)
        print(f"\r\x1b[K[{'#' * filled}{'.' * (WIDTH - filled)}] {text}", end="", file=self._stream, flush=True)
        self._open = True
        if done >= total:
            self._end_line()

    def _end_line(self) -> None:
        if self._open:
            print(file=self._stream, flush=True)
        self._open = False
        self._began = time.monotonic()

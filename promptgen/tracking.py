"""The protocol through which the library reports progress; it depends on no tracking tool."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

logger = logging.getLogger("promptgen")


class Tracker(Protocol):
    """Receives metrics and progress from a long computation.

    Example:
        >>> class Printer:
        ...     def metrics(self, values, step):
        ...         print(step, dict(values))
        ...     def progress(self, done, total, note=""):
        ...         print(f"{done} of {total}", note)
        >>> tracker: Tracker = Printer()
        >>> tracker.metrics({"train/loss": 0.5}, step=3)
        3 {'train/loss': 0.5}
        >>> tracker.progress(3, 10, "loss 0.500")
        3 of 10 loss 0.500
    """

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Receive the numbers of `step`, by name."""
        ...

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Receive the progress; called at every step, so it must be cheap."""
        ...


class NullTracker:
    """Ignores everything; the default."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""

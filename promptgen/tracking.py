"""Where progress goes: the library reports through this protocol and knows no tracker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

logger = logging.getLogger("promptgen")


class Tracker(Protocol):
    """Receives numbers while something long is running."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take a set of named numbers that belong to `step`."""
        ...

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Take how far the work is; cheap enough to call at every step."""
        ...


class NullTracker:
    """Forgets everything: the default."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore the numbers."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""

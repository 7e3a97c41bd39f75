"""The thread that carries a journal to MLflow, so that the work itself never waits for MLflow."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from promptgen.errors import PromptGenError
from steps import sync

logger = logging.getLogger("promptgen.tracking")


class Courier(threading.Thread):
    """Carries a journal to MLflow in the background; rests longer each time that MLflow does not answer."""

    LONGEST_REST = 60.0

    def __init__(self, folder: Path, root: Path, interval: float) -> None:
        """Prepare the thread; nothing runs before `start`.

        Args:
            folder: of the journal.
            root: of the project.
            interval: seconds between two looks at the journal.
        """
        super().__init__(name="mlflow-courier", daemon=True)
        self._folder, self._root, self._interval = folder, root, interval
        self._closing = threading.Event()
        self._told = 0  # size of the journal that MLflow has heard, in bytes
        self._warned = False

    def run(self) -> None:
        """Look until the recorder closes, and once more then."""
        rest = self._interval
        while not self._closing.wait(rest):
            rest = self._interval if self._look() else min(2 * rest, self.LONGEST_REST)
        self._look()

    def close(self, patience: float) -> None:
        """Look once more, for `patience` seconds at most; say so when MLflow has not heard everything."""
        self._closing.set()
        self.join(patience)
        if self._told < self._size():
            logger.warning("MLflow has not heard everything; `python -m steps.sync` tells it the rest")

    def _look(self) -> bool:
        """Send what is new; a failure is said once, and is no reason to stop."""
        size = self._size()
        if size == self._told:
            return True
        try:
            sync.push(self._folder, self._root)
        except PromptGenError as error:
            if not self._warned:
                logger.warning("%s", error)
            self._warned = True
            return False
        self._told = size
        return True

    def _size(self) -> int:
        return (self._folder / sync.JOURNAL_NAME).stat().st_size

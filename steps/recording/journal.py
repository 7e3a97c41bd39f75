"""What a loop has to tell a tracking server, kept as lines in a file until the server has heard it.

The file is the truth and the server a copy of it: a run writes here and nowhere else, so a dead or slow server can
neither stop nor slow it. Every line carries its own time. A fact that is already in the file is not written again, so a
loop that was killed and started again adds only what is new.

A line is one of

    {"kind": "run",      "run": name, "title": str, "experiment": str, "parent": name | null}
    {"kind": "metrics",  "run": name, "step": int, "values": {name: number}}
    {"kind": "params",   "run": name, "values": {name: str}}
    {"kind": "tags",     "run": name, "values": {name: str}}
    {"kind": "artifact", "run": name, "path": str, "sha256": str, "folder": str}
    {"kind": "model",    "run": name, "name": str, "checkpoint": str, "sha256": str,
     "weights": {path: sha256}, "tags": {name: str}}
    {"kind": "alias",    "run": name, "name": str, "alias": str}
    {"kind": "status",   "run": name, "status": "RUNNING" | "FINISHED" | "FAILED" | "KILLED"}

each with "time", in milliseconds since 1970. Paths are relative to the project's root.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptgen.files import storage_error

Event = dict[str, Any]


class Journal:
    """An append-only file of events; safe to write from several threads of one process."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal; half a line left by a kill is dropped.

        Raises:
            StorageError: the file cannot be written.
        """
        self.path = path
        self._lock = threading.Lock()
        self._latest: dict[bytes | tuple[str, ...], bytes] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            _drop_half_line(path)
        except OSError as error:
            raise storage_error(path, error) from error
        for event, _ in read(path):
            self._is_news(event)

    def write(self, event: Event) -> bool:
        """Append an event with the present time, unless the journal says it already; return whether it was news.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._lock:
            if not self._is_news(event):
                return False
            line = json.dumps({"time": time.time_ns() // 1_000_000, **event}, ensure_ascii=False) + "\n"
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise storage_error(self.path, error) from error
            return True

    def _is_news(self, event: Event) -> bool:
        """Remember an event, and say whether it adds anything to what the journal holds."""
        content = json.dumps({key: value for key, value in event.items() if key != "time"}, sort_keys=True)
        digest = hashlib.sha256(content.encode()).digest()
        slot = _slot(event) or digest
        news = self._latest.get(slot) != digest
        self._latest[slot] = digest
        return news


def _slot(event: Event) -> tuple[str, ...] | None:
    """Name the place whose last value counts, as of a run's status; None for a fact, which is told once."""
    if event["kind"] == "status":
        return ("status", event["run"])
    if event["kind"] == "alias":
        return ("alias", event["name"], event["alias"])
    return None


def read(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield the events from byte `offset` on, each with the offset behind it; half a line at the end waits."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def _drop_half_line(path: Path) -> None:
    """Cut the file behind its last line end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)

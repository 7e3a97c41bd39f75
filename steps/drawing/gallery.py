"""A folder of images, NUMBER.png, with a table that has a row for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptgen.errors import StorageError
from promptgen.files import atomic_write, storage_error, write_json

SAMPLES_NAME = "samples.csv"
SUMMARY_NAME = "summary.json"
DIGITS = 6
"""Least number of digits in the name of an image."""


class Gallery:
    """Writes images in batches, in any order. Each file is written atomically, and the table last.

    Args:
        folder: the folder; created if it does not exist. The table of an earlier run in it is removed.
        n: number of images to come.

    Raises:
        StorageError: the folder holds files that do not belong to such a gallery, or cannot be written.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self.folder = folder
        self.digits = max(DIGITS, len(str(n - 1)))
        self.rows: dict[int, dict[str, Any]] = {}
        expected = {self._name(number) for number in range(n)} | {SAMPLES_NAME, SUMMARY_NAME}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if others := sorted(path.name for path in folder.iterdir() if path.name not in expected):
                raise StorageError(f"{folder} holds other files, such as {others[0]}: choose an empty or a new folder")
            (folder / SAMPLES_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error

    def add(self, first: int, files: Sequence[bytes], columns: Mapping[str, Sequence[Any]]) -> None:
        """Write images, and keep their rows of the table.

        Args:
            first: number of the first image.
            files: content of the PNG file of each.
            columns: the table's columns by name, a value per image.

        Raises:
            StorageError: a file cannot be written.
        """
        for position, content in enumerate(files):
            file = self._name(first + position)
            atomic_write(self.folder / file, content)
            row = {name: values[position] for name, values in columns.items()}
            self.rows[first + position] = {"file": file, **row}

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, and then the table.

        Raises:
            StorageError: a file cannot be written.
        """
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[number] for number in sorted(self.rows))
        write_json(self.folder / SUMMARY_NAME, summary)
        atomic_write(self.folder / SAMPLES_NAME, buffer.getvalue())

    def _name(self, number: int) -> str:
        return f"{number:0{self.digits}d}.png"

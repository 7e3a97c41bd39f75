"""The samples of a pass on disk: their labels and features in shards, so that memory does not grow with their number.

A shard holds one block of samples and is named after the number of the first. `samples.json` is written last and lists
the shards with their sha256: it exists only if they do, and its own sha256 stands for all of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from promptgen.errors import DataError
from promptgen.files import atomic_write, read_json, write_json
from promptgen.metrics.rows import chunks
from promptgen.records import Source

SAMPLES_NAME = "samples.json"
SHARDS_NAME = "samples"
PICTURES_NAME = "pictures.safetensors"


class SampleWriter:
    """Writes samples in blocks, in any order.

    Args:
        folder: folder of the step that reads them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: dict[int, dict[str, Any]] = {}
        self._columns: Counter[str] = Counter()

    def add(self, start: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write a block of samples.

        Args:
            start: number of the first one.
            columns: what was read of them by name, (B, ...); one that ends early has fewer rows, or is left out.

        Raises:
            StorageError: the shard cannot be written.
        """
        name, content = f"{SHARDS_NAME}/{start:08d}.safetensors", _file_of(columns)
        atomic_write(self.folder / name, content)
        self._shards[start] = {"file": name, "start": start, "sha256": hashlib.sha256(content).hexdigest()}
        self._columns.update({column: len(rows) for column, rows in columns.items()})

    def finish(
        self, labels: Mapping[str, Mapping[str, list[str]]], pictures: Mapping[str, NDArray[Any]] | None = None
    ) -> Samples:
        """Write the pictures, then the list of all shards, and return the samples.

        Args:
            labels: labels of each attribute, by reader.
            pictures: sheets of pictures by name, (..., H, W, 3) uint8, in any order.

        Raises:
            StorageError: a file cannot be written.
        """
        if pictures:
            atomic_write(self.folder / PICTURES_NAME, _file_of(pictures))
        shards = [self._shards[start] for start in sorted(self._shards)]
        readers = [{"reader": reader, "attributes": list(attributes.items())} for reader, attributes in labels.items()]
        content = {"columns": self._columns, "labels": readers, "shards": shards, "pictures": sorted(pictures or {})}
        write_json(self.folder / SAMPLES_NAME, content)
        return Samples(self.folder)


class Samples:
    """Samples that a `SampleWriter` has written, as columns by name.

    Args:
        folder: its folder.

    Raises:
        DataError: they are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = read_json(folder / SAMPLES_NAME)
        try:
            self.columns = {str(name): int(n) for name, n in content["columns"].items()}
            self.labels: dict[Source, dict[str, list[str]]] = {
                entry["reader"]: dict(entry["attributes"]) for entry in content["labels"]
            }
            self.sheets = [str(name) for name in content["pictures"]]
            self.shards = [(int(shard["start"]), folder / shard["file"]) for shard in content["shards"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(folder, error) from error

    def __len__(self) -> int:
        return max(self.columns.values(), default=0)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Column:
        return Column(self, name, range(self.columns[name]))

    def chunks(self, *names: str) -> Iterator[list[NDArray[Any]]]:
        """Yield the rows of columns, chunk by chunk."""
        for parts in zip(*(chunks(self[name]) for name in names), strict=True):
            yield [part.numpy() for _, part in parts]

    def pictures(self) -> dict[str, NDArray[Any]]:
        """Return the sheets of pictures by name.

        Raises:
            DataError: their file is missing or damaged.
        """
        if not self.sheets:
            return {}
        try:
            with safe_open(self.folder / PICTURES_NAME, "numpy") as file:
                return {name: file.get_tensor(name) for name in self.sheets}
        except (OSError, SafetensorError) as error:
            raise damaged(self.folder, error) from error


@dataclass(frozen=True)
class Column:
    """What was read of samples, (N, ...): rows as of `promptgen.metrics.rows.Rows`, which are read when asked for.

    Attributes:
        samples: the samples.
        name: what was read.
        rows: numbers of the samples that these are.
    """

    samples: Samples
    name: str
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, step: int) -> Column:
        """Return every `step`-th of the samples."""
        return Column(self.samples, self.name, self.rows[start::step])

    def __getitem__(self, chosen: slice | Tensor) -> Tensor:
        """Return the rows of a slice or of indices, (n, ...).

        Raises:
            DataError: a shard is missing or damaged.
        """
        if isinstance(chosen, slice):
            part = self.rows[chosen]
            numbers = torch.arange(part.start, part.stop, part.step)
        else:
            numbers = self.rows.start + self.rows.step * chosen
        starts = torch.tensor([start for start, _ in self.samples.shards])
        shards = torch.searchsorted(starts, numbers, right=True) - 1
        rows: Tensor | None = None
        for shard in shards.unique().tolist():
            positions = (shards == shard).nonzero()[:, 0]
            part = self._of_shard(shard, numbers[positions] - starts[shard])
            rows = part.new_empty(len(numbers), *part.shape[1:]) if rows is None else rows
            rows[positions] = part
        return torch.zeros(0) if rows is None else rows

    def _of_shard(self, shard: int, rows: Tensor) -> Tensor:
        path = self.samples.shards[shard][1]
        try:
            with safe_open(path, "pt") as file:  # mapped into memory, so the chosen rows alone are read
                content: Tensor = file.get_tensor(self.name)[rows]
                return content
        except (OSError, SafetensorError, IndexError) as error:
            raise damaged(self.samples.folder, error) from error


def _file_of(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a file of arrays."""
    # safetensors writes the memory of an array, whatever its strides say.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def damaged(folder: Path, error: Exception) -> DataError:
    """Return the error of samples that cannot be read."""
    return DataError(f"the samples in {folder} cannot be read ({error}); run `promptgen run`")

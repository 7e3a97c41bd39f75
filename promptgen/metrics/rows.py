"""Rows of numbers per sample that need not be in memory: read in chunks, or by chosen samples.

A tensor is such rows, and so is a column of samples on disk. What sums over samples reads all of them in chunks. What
compares samples in pairs takes time that grows with the square of their number, so it takes a random subset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from promptgen.metrics.sizes import CHUNK, PAIRS
from promptgen.seeding import stream

if TYPE_CHECKING:  # arrays are read in chunks without importing torch
    from torch import Tensor


class Rows(Protocol):
    """Numbers of N samples, (N, ...)."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> Any:
        """Return the rows of a slice, or of the indices in an int64 tensor, (n, ...)."""
        ...


def chunks(rows: Any) -> Iterator[tuple[int, Any]]:
    """Yield all rows in chunks, each with the number of its first sample; without any rows, one empty chunk.

    Args:
        rows: `Rows`, or anything else that NumPy makes an array of, such as a list of lists.

    Example:
        >>> [(first, len(chunk)) for first, chunk in chunks(np.zeros((5000, 2)))]
        [(0, 2048), (2048, 2048), (4096, 904)]
    """
    if not hasattr(rows, "__len__"):
        rows = np.asarray(rows)
    if getattr(rows, "ndim", 1) == 0:
        yield 0, rows
        return
    for first in range(0, max(len(rows), 1), CHUNK):
        yield first, rows[first : first + CHUNK]


def random_subset(n: int, seed: int, *names: str | int) -> Tensor:
    """Return the indices, in order, of at most `PAIRS` of `n` samples: all, or a random subset.

    Args:
        n: number of samples.
        seed: seed of the choice.
        names: names of the random stream; different names choose independently.
    """
    import torch

    if n <= PAIRS:
        return torch.arange(n)
    return torch.randperm(n, generator=stream(seed, "subset", *names))[:PAIRS].sort().values

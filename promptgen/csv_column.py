"""The cells of a table's column, of which equal ones are kept once."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

MOST_LABELS = 1 << 16
"""Largest number of different cells of a column that are kept."""


@dataclass(frozen=True)
class Column:
    """The cells of a column, without surrounding blanks.

    Attributes:
        cells: the different cells, in the order in which they come; of too many, the first `MOST_LABELS`.
        codes: which of `cells` each row has, (N,); empty if they are too many.
        different: number of different cells.
    """

    cells: list[str]
    codes: array[int]
    different: int

    @property
    def is_kept(self) -> bool:
        """Whether every row's cell is known."""
        return self.different <= MOST_LABELS


class Cells:
    """Collects the cells of a column."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.codes = array("H")  # 16 bits, for `MOST_LABELS`
        self.hashes: array[int] | None = None  # of all cells, once they are too many to keep

    def add(self, cell: str) -> None:
        """Add the next row's cell."""
        if self.hashes is not None:
            self.hashes.append(hash(cell))
            return
        if cell in self.positions or len(self.positions) < MOST_LABELS:
            self.codes.append(self.positions.setdefault(cell, len(self.positions)))
            return
        hashes = [hash(text) for text in self.positions]
        self.hashes = array("q", (hashes[code] for code in self.codes))
        self.hashes.append(hash(cell))
        self.codes = array("H")

    def column(self) -> Column:
        """Return the cells of all rows."""
        different = len(self.positions) if self.hashes is None else _different(self.hashes)
        return Column(list(self.positions), self.codes, different)


def _different(hashes: array[int]) -> int:
    import numpy as np  # here, since few commands read a table

    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))

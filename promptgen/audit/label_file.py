"""Labels in CSV files, with one column per attribute and one row per image, and what is doubtful about them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np

from promptgen.audit.labels import NO_LABEL, Indices, Labels, small_indices
from promptgen.audit.spelling import is_missing, one_spelling, spelling
from promptgen.csv_column import MOST_LABELS, Column
from promptgen.csv_file import CsvFile
from promptgen.errors import DataError

MOST_CLASSES = 50
"""Largest number of classes of a column that is counted without being asked for."""

UNNAMED = re.compile(r"Unnamed: [\d.]+")
"""What pandas calls a column without a name."""

NUMBER = re.compile(r"[-+]?(?:(\d+)[.,]?(\d*)|[.,](\d+)|inf)(e[-+]?\d+)?\s*%?", re.IGNORECASE)
"""A number, with a point or a comma, or a percentage."""

LIST = re.compile(r"\[.*\]|\{.*\}|\w+\(\[.*\]\)", re.DOTALL)
"""A list, or what programs write for one: ``{'a': 0.1}``, ``tensor([0.1, 0.2])``."""

BETWEEN_NUMBERS = re.compile(r"[\s,;()]+")


@dataclass(frozen=True)
class LabelFile:
    """Labels in a file.

    Attributes:
        path: the file.
        labels: its labels; rows without a label of an attribute have none there.
        lines: number of the line of each row in the file, (N,).
        headless: names of the columns that are themselves labels of their columns, as in a file without a header.
        uncountable: columns by name that have more different labels than are kept, such as one of file names.
    """

    path: Path
    labels: Labels
    lines: Sequence[int]
    headless: Sequence[str] = ()
    uncountable: Mapping[str, Column] = field(default_factory=dict)

    def missing(self, attribute: str) -> list[int]:
        """Return the lines without a label of an attribute."""
        return [self.lines[row] for row in np.flatnonzero(self.labels.indices[attribute] == NO_LABEL).tolist()]

    def require_countable(self, attribute: str) -> None:
        """Check that a column has not too many different labels to count.

        Raises:
            DataError: it has.
        """
        if column := self.uncountable.get(attribute):
            raise DataError(
                f"{self.path}: {attribute} has {column.different} different labels, expected at most {MOST_LABELS}; "
                "name another column"
            )


def label_file(path: Path, table: CsvFile, exceptions: Collection[str] = ()) -> LabelFile:
    """Return the labels of a CSV file with one column per attribute and one row per image.

    The first line names the attributes. The classes are the labels that occur, sorted. A first column without a name is
    an index, as pandas writes it, and left out.

    Args:
        path: the file.
        table: its content.
        exceptions: labels that are labels even if programs write the same for a missing value, such as ``none``.

    Raises:
        DataError: the file is not such a table, or a column has no name of its own.
    """
    _check_names(path, table)
    columns = {name: column for name, column in zip(table.names, table.columns, strict=True) if name}
    uncountable = {name: column for name, column in columns.items() if not column.is_kept}
    read = {name: _labels(column, exceptions) for name, column in columns.items() if column.is_kept}
    attributes = {name: classes for name, (classes, _) in read.items()}
    labels = Labels(attributes, {name: indices for name, (_, indices) in read.items()})
    headless = [name for name, classes in attributes.items() if spelling(name) in map(spelling, classes)]
    return LabelFile(path, labels, table.lines, headless, uncountable)


def _check_names(path: Path, table: CsvFile) -> None:
    """Refuse columns of equal names, and columns without a name that are neither empty nor an index at the front."""
    names, n = table.names, len(table.lines)
    named = [name for name in names if name]
    if len(set(named)) < len(named) or not named:
        raise DataError(f"{path}: the columns are {', '.join(names)}; give each a name of its own")
    for i, (name, column) in enumerate(zip(names, table.columns, strict=True)):
        index = i == 0 and (column.different == n or all(map(str.isdecimal, column.cells)))
        if not name and any(column.cells) and not index:
            raise DataError(f"{path}: column {i + 1} of {len(names)} has no name; write one in the first line")


def _labels(column: Column, exceptions: Collection[str]) -> tuple[tuple[str, ...], Indices]:
    """Return the labels in a column, sorted, and the index of each row's label, (N,)."""
    labels = tuple(sorted(cell for cell in column.cells if cell in exceptions or not is_missing(cell)))
    position = {label: index for index, label in enumerate(labels)}
    indices = small_indices([position.get(cell, NO_LABEL) for cell in column.cells], len(labels))
    return labels, indices[np.asarray(column.codes)]


def alike_spelled(files: Sequence[LabelFile]) -> list[LabelFile]:
    """Return the files with all labels of an attribute that differ only in spelling as its most frequent spelling."""
    totals: dict[str, Counter[str]] = {}
    for file in files:
        for name, labels in file.labels.attributes.items():
            counts = file.labels.counts(name).tolist()
            totals.setdefault(name, Counter()).update(dict(zip(labels, counts, strict=True)))
    chosen = {name: one_spelling(counts) for name, counts in totals.items()}
    return [replace(file, labels=file.labels.renamed(chosen)) for file in files]


def not_counted(files: Sequence[LabelFile], apart: Collection[str] = ()) -> dict[str, str]:
    """Return why columns of the first file are no attributes that can be counted unasked, by name.

    Args:
        files: the file, and that to compare with.
        apart: columns that are left out of the answer.
    """
    reasons = {}
    for name in [*files[0].labels.attributes, *files[0].uncountable]:
        if name not in apart and (reason := _reason(files, name)):
            reasons[name] = reason
    return reasons


def alike_columns(files: Sequence[LabelFile], attributes: Collection[str]) -> list[LabelFile]:
    """Return the files with those attributes that are a column of one of them and a product in another as columns."""
    columns = {name for file in files for name in file.labels.attributes}

    def lacks(file: LabelFile, name: str) -> bool:
        return name in columns and name not in file.labels.attributes and file.labels.knows(name)

    return [
        replace(file, labels=reduce(Labels.joined, [name for name in attributes if lacks(file, name)], file.labels))
        for file in files
    ]


def _reason(files: Sequence[LabelFile], name: str) -> str | None:
    lacking = [file for file in files if name not in {*file.labels.attributes, *file.uncountable}]
    if lacking:
        return f"no column of {lacking[0].path}"
    for file in files:
        if column := file.uncountable.get(name):
            more = DIFFERENT if column.different == len(file.lines) else f"{column.different} labels"
            return _no_classes(column.cells) or more
    labels = {label for file in files for label in file.labels.attributes[name]}
    if empty := [file for file in files if not file.labels.attributes[name]]:
        return f"no labels in {empty[0].path}" if labels else "no labels"
    if len(labels) < 2:
        return f"always {next(iter(labels))}"
    if reason := _no_classes(labels):
        return reason
    if name not in files[0].labels.repeated():
        return DIFFERENT
    if UNNAMED.fullmatch(name):
        return "an index"
    return f"{len(labels)} labels" if len(labels) > MOST_CLASSES else None


def _no_classes(labels: Collection[str]) -> str | None:
    """Return what labels are instead of classes, if they are lists or measured numbers."""
    if all(map(LIST.fullmatch, labels)):
        return "lists"
    numbers = [_numbers(label) for label in labels]
    if all(numbers) and not all(_is_whole(number) for parts in numbers for number in parts):  # (25, 32) may be an age
        return "measured numbers" if all(len(parts) == 1 for parts in numbers) else "lists"
    return None


def _numbers(label: str) -> list[re.Match[str]]:
    """Return the number that a label is, or its several numbers, such as scores of all classes; empty without any."""
    matches = [NUMBER.fullmatch(part) for part in BETWEEN_NUMBERS.split(label) if part]
    whole = NUMBER.fullmatch(label)  # of which a comma may be a part
    return [whole] if whole else [number for number in matches if number] if all(matches) else []


def _is_whole(number: re.Match[str]) -> bool:
    """Return whether a number is a whole one, such as 1, -1, 1.0 or 50%."""
    whole, decimals, alone, exponent = number.groups()
    return bool(whole) and not (decimals or "").strip("0") and not alone and not exponent


DIFFERENT = "a different one in each row"
"""Why a column such as one of file names is not counted."""

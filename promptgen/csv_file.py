"""Read tables as people export them: their encoding, their separator, and empty cells at the ends of lines.

CelebA's lists of attributes are read as well: blanks separate their columns, their first line is the number of rows,
and the names of the pictures have no name of their own.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from promptgen.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of columns that are recognised."""

BLANKS = " "
"""Separator of columns between which there are any numbers of blanks."""

TOLD = re.compile(rf'"?sep=([{"".join(SEPARATORS)}{BLANKS}])"?[ \t]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""First line by which spreadsheets tell the separator."""

COUNT = re.compile(r"\s*(\d+)[ \t]*(?:\r\n|\r|\n)")
"""First line that is a number alone."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the encoding that each stands for."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file.

    Attributes:
        names: names of the columns, from the first line; an unnamed column is an empty name.
        rows: cells by row, as many as names, without surrounding blanks.
        lines: number of the line of the file in which each row ends, from 1.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]


def read_csv(path: Path) -> CsvFile:
    """Return the columns and rows of a CSV file.

    The encoding is UTF-8, or that of a byte order mark. Columns are separated by what separates the names in the first
    line, or by what a first line such as ``sep=;`` says. Blanks separate them after ``sep= ``, and after a line with
    the number of rows if nothing else does; the first column may then lack a name. Blank lines, empty rows at the end,
    and empty columns without a name at the end are ignored.

    Raises:
        DataError: the file cannot be read, has no rows or not as many as it says, has two possible separators, or has
            a row of another length.
    """
    text = _text(path)
    if separator := TOLD.match(text):
        return _file(path, text[separator.end() :], separator[1], first=2)
    if count := COUNT.match(text):
        rest = text[count.end() :]
        mark = _separator(path, rest) or (BLANKS if _may_be_blanks(rest) else "")
        if mark:
            table = _file(path, rest, mark, first=count[0].count("\n") + 1)
            if len(table.rows) != int(count[1]):
                raise DataError(
                    f"{path}: its first line says {count[1]} rows, it has {len(table.rows)}; fetch it again, or remove "
                    "that line"
                )
            return table
    return _file(path, text, _separator(path, text) or ",")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()  # at once, because it may be a pipe
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
        text = content.decode(encoding)
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path} ({error}); give a CSV file in UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} has a zero byte, as in UTF-16 without its mark; save the file in UTF-8")
    return text


def _separator(path: Path, text: str) -> str:
    """Return what separates the columns; with several possibilities, that which gives every row the most columns.

    It is an empty string if the first line has one column.
    """
    columns: dict[str, int] = {}
    for mark in SEPARATORS:
        with contextlib.suppress(DataError):  # its quotes do not go with this separator
            _, header = next(_cells(path, text, mark), (0, []))
            columns |= {mark: len(header)} if len(header) > 1 else {}
    if len(columns) < 2:
        return next(iter(columns), "")
    fitting = {mark: number for mark, number in columns.items() if _fits(path, text, mark)}
    best = [mark for mark, number in fitting.items() if number == max(fitting.values())]
    if len(best) > 1:
        names = " or ".join(SEPARATORS[mark] for mark in best)
        raise DataError(f"{path}: its columns may be separated by {names}; add the line sep={best[0]} at the top")
    return next(iter(best or columns))


def _fits(path: Path, text: str, mark: str) -> bool:
    try:
        _file(path, text, mark)
    except DataError:
        return False
    return True


def _cells(path: Path, text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not blank, with its number."""
    reader = csv.reader(_lines(text) if mark == BLANKS else io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(f"cannot read {path} ({error} in line {reader.line_num}); give a CSV file in UTF-8") from error


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with single blanks between words."""
    return (BLANKS.join(line.split()) for line in io.StringIO(text, newline=None))


def _file(path: Path, text: str, mark: str, first: int = 1) -> CsvFile:
    """Return the file with columns separated by `mark`; `text` begins in its line `first`."""
    lines = [(number + first - 1, cells) for number, cells in _cells(path, text, mark)]
    while lines and not any(lines[-1][1]):
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"{path} has no rows; write the column names in the first line, then one row per image")
    width = max(_used(cells) for _, cells in lines)
    (_, header), *rows = lines
    if mark == BLANKS and len(rows[0][1]) == len(header) + 1:
        header = ["", *header]  # the names of the rows have none
    if len(header) == 1 and _is_doubtful(text):
        raise DataError(
            f'{path}: its columns may be separated by blanks; if they are, add the line "sep= " at the top, with a '
            "blank at its end; if it is one column, join its words"
        )
    if len(header) > 1:
        rows = [(number, cells) for number, cells in rows if cells != [""]]  # lines of blanks
    for number, cells in rows:
        if _used(cells) > len(header) or len(cells) < _used(header):
            raise DataError(
                f"{path}: line {number} has {len(cells)} of {len(header)} cells; fill it in, or quote cells"
            )
    names, *filled = [(cells + [""] * width)[:width] for _, cells in [(0, header), *rows]]
    return CsvFile(names, filled, [number for number, _ in rows])


def _may_be_blanks(text: str) -> bool:
    """Return whether a row has several words, and the first line as many, or one fewer without a name for the first."""
    header, *rows = [len(line.split()) for line in _lines(text) if line] or [0]
    return any(words > 1 and header in (words, words - 1) for words in rows[:1])


def _is_doubtful(text: str) -> bool:
    """Return whether a table in one column may be one in several, with blanks between them.

    All its rows have as many words as the first line, which has several, or one more that no other row begins with.
    """
    header, *rows = [line.split() for line in _lines(text) if line]
    more = {len(words) - len(header) for words in rows}
    return len(header) > 1 and (more == {0} or (more == {1} and len({words[0] for words in rows}) == len(rows)))


def _used(cells: list[str]) -> int:
    """Return the number of cells up to the last one that is not empty."""
    return max((position for position, cell in enumerate(cells, start=1) if cell), default=0)

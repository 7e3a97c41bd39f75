"""Read tables as people export them: their encoding, their separator, and empty cells at the ends of lines.

CelebA's lists of attributes are read as well: blanks separate their columns, their first line is the number of rows,
and the names of the pictures have no name of their own.

A file is read row by row, and equal cells of a column are kept once, so that a million rows of labels take a few MB
beside the content of the file. Of a column of which almost every cell is another one, such as that of file names, only
the first different cells are kept.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from promptgen.csv_column import Cells, Column
from promptgen.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of columns that are recognised."""

BLANKS = " "
"""Separator of columns between which there are any numbers of blanks."""

SEPARATOR_LINE = re.compile(rf'"?sep=([{"".join(SEPARATORS)}{BLANKS}])"?[ \t]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""First line with which spreadsheets state the separator."""

HEAD, BLOCK = 1 << 16, 1 << 20
"""Characters at the beginning in which the first line is looked for, and characters that are checked at a time."""

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
        columns: the cells below each name.
        lines: number of the line of the file in which each row ends, from 1.
    """

    names: list[str]
    columns: list[Column]
    lines: Sequence[int]

    @property
    def rows(self) -> list[list[str]]:
        """Cells by row, as many as names, of a file that is small enough to be kept."""
        cells = [[column.cells[code] for code in column.codes] for column in self.columns]
        return [list(row) for row in zip(*cells, strict=True)]


@dataclass(frozen=True)
class _Source:
    """The text of a file, from some character on.

    Attributes:
        path: the file.
        content: its bytes, which are read at once, because it may be a pipe.
        encoding: their encoding.
        skipped: number of characters before the text.
        line: number of the line that it begins with.
    """

    path: Path
    content: bytes
    encoding: str
    skipped: int = 0
    line: int = 1

    def open(self) -> io.TextIOWrapper:
        """Return the text as a stream, with the ends of lines as they are."""
        stream = io.TextIOWrapper(io.BytesIO(self.content), self.encoding, newline="")
        stream.read(self.skipped)
        return stream

    def after(self, match: re.Match[str]) -> _Source:
        """Return the text after what was matched at its beginning."""
        line = self.line + len(re.findall(r"\r\n|\r|\n", match[0]))
        return _Source(self.path, self.content, self.encoding, self.skipped + match.end(), line)


def read_csv(path: Path) -> CsvFile:
    """Return the columns of a CSV file.

    The encoding is UTF-8, or that of a byte order mark. Columns are separated by what separates the names in the first
    line, or by what a first line such as ``sep=;`` says. Blanks separate them after ``sep= ``, and after a line with
    the number of rows if nothing else does; the first column may then lack a name. Blank lines, empty rows at the end,
    and empty columns without a name at the end are ignored.

    Raises:
        DataError: the file cannot be read, has no rows or not as many as it says, has two possible separators, or has
            a row of another length.
    """
    source = _source(path)
    head = source.open().read(HEAD)
    if stated := SEPARATOR_LINE.match(head):
        return _file(source.after(stated), stated[1])
    if count := COUNT.match(head):
        rest = source.after(count)
        mark = _separator(rest) or (BLANKS if _may_be_blanks(rest) else "")
        if mark:
            table = _file(rest, mark)
            if len(table.lines) != int(count[1]):
                raise DataError(
                    f"{path}: its first line says {count[1]} rows, it has {len(table.lines)}; fetch it again, or "
                    "remove that line"
                )
            return table
    return _file(source, _separator(source) or ",")


def _source(path: Path) -> _Source:
    """Return the text of a file that is text throughout."""
    line = 1
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
        source = _Source(path, content, encoding)
        stream = source.open()
        while block := stream.read(BLOCK):
            if "\0" in block:
                line += block.count("\n", 0, block.index("\0"))
                raise DataError(
                    f"{path}: line {line} has a zero byte, as in UTF-16 without its mark; save the file in UTF-8"
                )
            line += block.count("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path} ({error}); give a CSV file in UTF-8") from error
    return source


def _separator(source: _Source) -> str:
    """Return what separates the columns; with several possibilities, that which gives every row the most columns.

    It is an empty string if the first line has one column.
    """
    columns: dict[str, int] = {}
    for mark in SEPARATORS:
        with contextlib.suppress(DataError):  # its quotes do not go with this separator
            _, header = next(_cells(source, mark), (0, []))
            columns |= {mark: len(header)} if len(header) > 1 else {}
    if len(columns) < 2:
        return next(iter(columns), "")
    fitting = {mark: number for mark, number in columns.items() if _fits(source, mark)}
    best = [mark for mark, number in fitting.items() if number == max(fitting.values())]
    if len(best) > 1:
        names = " or ".join(SEPARATORS[mark] for mark in best)
        raise DataError(
            f"{source.path}: its columns may be separated by {names}; add the line sep={best[0]} at the top"
        )
    return next(iter(best or columns))


def _fits(source: _Source, mark: str) -> bool:
    try:
        _file(source, mark)
    except DataError:
        return False
    return True


def _cells(source: _Source, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not blank, with the number of the line."""
    reader = csv.reader(_lines(source) if mark == BLANKS else source.open(), delimiter=mark, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num + source.line - 1, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(
            f"cannot read {source.path} ({error} in line {reader.line_num}); give a CSV file in UTF-8"
        ) from error


def _lines(source: _Source) -> Iterator[str]:
    """Yield the lines of a text with single blanks between words."""
    return (BLANKS.join(line.split()) for line in source.open())


def _file(source: _Source, mark: str) -> CsvFile:
    """Return the file with columns separated by `mark`."""
    lines = _cells(source, mark)
    _, header = next(lines, (0, []))
    least = width = _used(header)
    columns, numbers = list[Cells](), array("Q")
    for number, cells in _without_empty_end(lines):
        if not columns:
            if mark == BLANKS and len(cells) == len(header) + 1:
                header = ["", *header]  # the names of the rows have none
                least = _used(header)
            if len(header) == 1 and _is_doubtful(source):
                raise DataError(
                    f'{source.path}: its columns may be separated by blanks; if they are, add the line "sep= " at the '
                    "top, with a blank at its end; if it is one column, join its words"
                )
            columns = [Cells() for _ in header]
        if len(header) > 1 and cells == [""]:  # a line of blanks
            continue
        used = _used(cells)
        if used > len(header) or len(cells) < least:
            raise DataError(
                f"{source.path}: line {number} has {len(cells)} of {len(header)} cells; fill it in, or quote cells"
            )
        width = max(width, used)
        cells += [""] * (len(header) - len(cells))
        for column, cell in zip(columns, cells, strict=False):
            column.add(cell)
        numbers.append(number)
    if not columns:
        raise DataError(f"{source.path} has no rows; write the column names in the first line, then one row per image")
    return CsvFile(header[:width], [column.column() for column in columns[:width]], numbers)


def _without_empty_end(lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Yield rows, but no empty ones after the last one that is not."""
    empty = array("Q")  # the line and the length of each: a spreadsheet may leave a million
    for number, cells in lines:
        if any(cells):
            yield from ((line, [""] * length) for line, length in zip(empty[::2], empty[1::2], strict=True))
            del empty[:]
            yield number, cells
        else:
            empty.extend((number, len(cells)))


def _may_be_blanks(source: _Source) -> bool:
    """Return whether a row has several words, and the first line as many, or one fewer without a name for the first."""
    header, *rows = [len(line.split()) for line in islice(filter(None, _lines(source)), 2)] or [0]
    return any(words > 1 and header in (words, words - 1) for words in rows)


def _is_doubtful(source: _Source) -> bool:
    """Return whether a table in one column may be one in several, with blanks between them.

    All its rows have as many words as the first line, which has several, or one more that no other row begins with.
    """
    rows = (line.split() for line in _lines(source) if line)
    header = next(rows, [])
    if len(header) < 2:
        return False
    more, firsts = set[int](), set[str]()
    for words in rows:
        more.add(len(words) - len(header))
        if more not in ({0}, {1}) or (more == {1} and words[0] in firsts):
            return False
        if more == {1}:
            firsts.add(words[0])
    return bool(more)


def _used(cells: list[str]) -> int:
    """Return the number of cells up to the last one that is not empty."""
    used = len(cells)
    while used and not cells[used - 1]:
        used -= 1
    return used

"""Fill the page of the comparison from its results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plot import plot
from benchmarks.results import Results
from benchmarks.table import ratios, table
from promptgen.errors import DataError
from promptgen.files import atomic_write

FIGURE = Path("figures/benchmarks.png")


def write_page(results: Results, path: Path) -> None:
    """Write the figure, and the tables between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page.

    A page that does not exist yet has nothing but the tables.

    Raises:
        DataError: the page lacks a mark.
    """
    tables = {"ratios": ratios(results), "table": table(results)}
    page = path.read_text() if path.exists() else "\n".join(f"{_start(name)}\n{_end(name)}\n" for name in tables)
    for name, content in tables.items():
        before, start, rest = page.partition(_start(name))
        _, end, after = rest.partition(_end(name))
        if not end:
            raise DataError(f"{path} must have the marks {_start(name)} and {_end(name)}, between which a table goes")
        page = f"{before}{start}\n\n{content}\n\n{end}{after}"
    plot(results, path.parent / FIGURE)
    atomic_write(path, page)


def _start(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"

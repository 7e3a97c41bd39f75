"""Fill the page of the comparison from its results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plot import plot
from benchmarks.results import Results
from benchmarks.table import ratios, table
from promptgen.files import atomic_write

FIGURE = Path("figures/benchmarks.png")


def write_page(results: Results, path: Path) -> None:
    """Write the figure, and the tables between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page.

    A page that does not exist yet has nothing but the tables.
    """
    plot(results, path.parent / FIGURE)
    tables = {"ratios": ratios(results), "table": table(results)}
    empty = "\n\n".join(f"<!-- {name} -->\n<!-- end of {name} -->" for name in tables)
    page = path.read_text() if path.exists() else f"{empty}\n"
    for name, content in tables.items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}<!-- {name} -->\n\n{content}\n\n{end}{after}"
    atomic_write(path, page)

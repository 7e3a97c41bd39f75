"""The CSV file of results: one row per measurement, and what has been run already is not run again."""

from __future__ import annotations

import ast
import csv
import hashlib
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from promptgen.files import atomic_path

ROOT = Path(__file__).parents[1]
KEY = ("task", "method", "seed")
MEASURED = ("units", "seconds", "samples", "kl", "ess", "gap", "bystander", "bystander_low", "bystander_high", "error")
COLUMNS = (*KEY, "code", *MEASURED)

Key = tuple[str, str, int]
"""Task, method and seed of a run."""


class Results:
    """The measurements of all runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[Key, list[Row]] = {}
        if path.exists():
            with path.open(newline="") as file:
                for line in csv.DictReader(file):
                    row = {name: _read(value) for name, value in line.items()}
                    self.runs.setdefault((row["task"], row["method"], row["seed"]), []).append(row)

    def has(self, key: Key, code: str) -> bool:
        """Return whether a run is there that the same code has made."""
        return key in self.runs and all(row["code"] == code for row in self.runs[key])

    def replace(self, key: Key, code: str, rows: Sequence[Row]) -> None:
        """Keep the measurements of a run, in place of those of the same task, method and seed, and write the file."""
        named = dict(zip(KEY, key, strict=True))
        self.runs[key] = [{**dict.fromkeys(COLUMNS), **named, "code": code, **row} for row in rows]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for run in sorted(self.runs):
                writer.writerows({name: _written(value) for name, value in row.items()} for row in self.runs[run])

    def of(self, task: str, method: str) -> list[list[Row]]:
        """Return the runs of a method on a task, by seed."""
        return [self.runs[key] for key in sorted(self.runs) if key[:2] == (task, method)]


@cache
def code_of(module: str, *settings: Hashable) -> str:
    """Return a fingerprint of the project's code that a module imports, directly or not, and of settings.

    It is that of the code when a process first asks for it, which is the code that the process runs.
    Comments, docstrings and package files (`__init__.py`) do not count.
    """
    trees: dict[Path, ast.Module] = {}
    todo = [module]
    while todo:
        path = ROOT / Path(*todo.pop().split(".")).with_suffix(".py")
        if path.is_file() and path not in trees:
            trees[path] = ast.parse(path.read_text())
            todo += _imports(trees[path])
    code = [ast.unparse(_without_docstrings(trees[path])) for path in sorted(trees)]
    return hashlib.sha256(repr((code, settings)).encode()).hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the strings that are statements of their own, in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not _is_string(line)]
    return tree


def _is_string(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _imports(tree: ast.Module) -> Iterable[str]:
    """Yield the dotted names that a file imports; `a` and `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _read(value: str) -> Any:
    """Return the number that a field holds, None if it is empty, or its text."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value or None


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value

"""The code that results depend on: its files and their sha256, for fingerprints."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import promptgen
from promptgen.files import sha256_of

LIBRARY_ROOT, STEPS_ROOT = Path(promptgen.__file__).parent, Path(__file__).parents[1]

UNRELATED_CODE = {"reporting", "experiments", "commands", "__main__.py", "command_line.py", "progress.py"}
"""Rooms and files of the library whose code does not change what a step of a pass computes."""

SHARED_CODE = ("measuring", "shared", "training")
"""Rooms of steps/ whose code every step of a pass depends on."""


@functools.cache
def code_sha256(step: str | None = None) -> str:
    """Return the sha256 of `code_files`."""
    return sha256_of_files(code_files(step))


@functools.cache
def all_code_sha256() -> str:
    """Return the sha256 of all code of the library and of the steps."""
    return sha256_of_files([*LIBRARY_ROOT.rglob("*.py"), *STEPS_ROOT.rglob("*.py")])


def code_files(step: str | None = None) -> list[Path]:
    """Return the code files of the library, of the rooms that all steps share, and of a step."""
    library = [
        path for path in LIBRARY_ROOT.rglob("*.py") if path.relative_to(LIBRARY_ROOT).parts[0] not in UNRELATED_CODE
    ]
    shared = [path for room in SHARED_CODE for path in (STEPS_ROOT / room).rglob("*.py")]
    return [*library, *shared, *([STEPS_ROOT / f"{step}.py"] if step else [])]


def sha256_of_files(files: Iterable[Path]) -> str:
    """Return the sha256 of files of the library and of the steps, and of their paths in these packages."""
    digest = hashlib.sha256()
    for path in sorted(files):
        root = LIBRARY_ROOT if path.is_relative_to(LIBRARY_ROOT) else STEPS_ROOT
        digest.update(f"{root.name}/{path.relative_to(root).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()

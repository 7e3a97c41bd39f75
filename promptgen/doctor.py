"""Says what is wrong with a machine or an installation, and what to do about it; it changes nothing.

Packages are looked up by name only, so this works where half of them are missing.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MIN_PYTHON = (3, 11)
MIN_DISK_GB = 2.0
MIN_MEMORY_GB = 4.0
FOLDERS = ("models", "artifacts", "reports", "mlruns")
PORTS = {4200: ("Prefect", "/api/health"), 5000: ("MLflow", "/version")}
LIBRARY = (
    "torch",
    "torchvision",
    "nflows",
    "open_clip_torch",
    "numpy",
    "safetensors",
    "torch_fidelity",
    "huggingface_hub",
    "tqdm",
    "pydantic",
    "pyyaml",
    "filelock",
    "scipy",
    "pandas",
    "seaborn",
    "jinja2",
    "pillow",
)
WORKFLOW = ("prefect", "mlflow", "dvc")
BAD_PAIRS = (
    ("prefect", (3, 8), "fastapi", (0, 151), "every flow dies at its start"),
    ("prefect", (3, 8), "sqlalchemy", (2, 1), "scheduled runs are never created"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        found: what was found.
        remedy: what to do; empty when all is well.
    """

    name: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'WRONG' if self.remedy else 'ok':<6}{self.name:<24}{self.found}"
        return f"{line}\n{'':<6}-> {self.remedy}" if self.remedy else line


def examine(root: Path) -> Iterator[Finding]:
    """Yield everything that there is to say about this machine and the project in `root`."""
    yield python()
    yield from packages(LIBRARY, "the library needs it")
    yield from packages(WORKFLOW, "`make repro` needs it")
    yield from bad_pairs()
    yield torch_pair()
    yield git()
    for name in FOLDERS:
        yield folder(root / name)
    yield disk(root)
    yield memory()
    for number, (program, path) in PORTS.items():
        yield port(number, program, path)


def python() -> Finding:
    """Look at the version of Python."""
    remedy = "" if sys.version_info >= MIN_PYTHON else "install Python 3.11 or newer"
    return Finding("python", f"{platform.python_version()} on {platform.system()}", remedy)


def packages(names: tuple[str, ...], reason: str) -> Iterator[Finding]:
    """Look whether packages are installed."""
    for name in names:
        version = installed(name)
        remedy = "" if version else f"{reason}: pip install -r requirements.txt"
        yield Finding(name, version or "not installed", remedy)


def bad_pairs() -> Iterator[Finding]:
    """Look for packages that are known not to work together."""
    for name, since, other, limit, symptom in BAD_PAIRS:
        mine, theirs = installed(name), installed(other)
        if mine is None or theirs is None:
            continue
        bad = numbers(mine) >= since and numbers(theirs) >= limit
        below = ".".join(map(str, limit))
        remedy = f"together {symptom}: pip install '{other}<{below}'" if bad else ""
        yield Finding(f"{other} for {name}", theirs, remedy)


def torch_pair() -> Finding:
    """Look whether torchvision was built for the installed torch."""
    torch, torchvision = installed("torch"), installed("torchvision")
    if torch is None or torchvision is None:
        return Finding("torchvision for torch", "not both installed", "pip install -r requirements.txt")
    for requirement in metadata.requires("torchvision") or []:
        wanted = re.match(r"torch\s*\(?==\s*([\d.]+)", requirement)
        if wanted and numbers(wanted[1]) != numbers(torch):
            remedy = f"this torchvision is built for torch {wanted[1]}: install both as requirements.txt pairs them"
            return Finding("torchvision for torch", f"{torchvision} beside {torch}", remedy)
    return Finding("torchvision for torch", f"{torchvision} beside {torch}")


def git() -> Finding:
    """Look for git, which DVC and the records of a run need."""
    place = shutil.which("git")
    return Finding("git", "found" if place else "not found", "" if place else "install git")


def folder(path: Path) -> Finding:
    """Look whether files can be written into a folder, or the folder be made."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing == path and not path.is_dir():
        return Finding(f"{path.name}/", "is a file", f"move {path} away")
    writable = os.access(existing, os.W_OK | os.X_OK) and not _is_read_only(existing)
    remedy = "" if writable else f"change the owner or the mode of {existing}, or use a clone on another disk"
    return Finding(f"{path.name}/", "can be written" if writable else "cannot be written", remedy)


def disk(root: Path) -> Finding:
    """Look how much space is left beside the project."""
    free = shutil.disk_usage(root).free / 1e9
    remedy = "" if free >= MIN_DISK_GB else f"free some: a run needs {MIN_DISK_GB:.0f} GB"
    return Finding("disk", f"{free:.1f} GB free", remedy)


def memory() -> Finding:
    """Look how much memory the machine has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    remedy = (
        "" if total >= MIN_MEMORY_GB else f"a run needs {MIN_MEMORY_GB:.0f} GB: make the batches in params.yaml smaller"
    )
    return Finding("memory", f"{total:.1f} GB", remedy)


def port(number: int, program: str, path: str) -> Finding:
    """Look whether the port of a program's pages is free, or who answers there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", number)):
            return Finding(f"port {number}", f"free for {program}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}{path}", timeout=2) as answer:
            known = answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        known = False
    if known:
        return Finding(f"port {number}", f"{program} runs there")
    return Finding(
        f"port {number}", "used by another program", f"stop it, or: make ui ARGS='--{program.lower()}-port NUMBER'"
    )


def installed(name: str) -> str | None:
    """Return the version of an installed package, None when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) of "2.13.0+cpu"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _is_read_only(path: Path) -> bool:
    """Say whether a folder lies on a read-only file system, which permissions do not show to the superuser."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def main(root: Path) -> int:
    """Print all findings; return the exit status: 1 when something is wrong."""
    findings = list(examine(root))
    for finding in findings:
        print(finding)
    wrong = sum(bool(finding.remedy) for finding in findings)
    print(f"\n{wrong} of {len(findings)} things are wrong" if wrong else "\nall is well")
    return 1 if wrong else 0

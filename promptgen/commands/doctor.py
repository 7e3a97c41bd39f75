"""Check a machine and an installation, and name how to fix each fault. Nothing is changed.

Packages are looked up by name and not imported, so that the checks work when packages are missing.
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
    "cronsim",
    "filelock",
    "scipy",
    "pandas",
    "seaborn",
    "jinja2",
    "pillow",
)
WORKFLOW = ("prefect", "mlflow", "dvc")
SCRIPTS = ("dvc", "promptgen", "pip")
BAD_PAIRS = (
    ("prefect", (3, 8), "fastapi", (0, 151), "every flow dies at its start"),
    ("prefect", (3, 8), "sqlalchemy", (2, 1), "scheduled runs are never created"),
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: name of the check.
        state: state of the checked item.
        remedy: how to fix the fault; empty if the check passed.
    """

    name: str
    state: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'WRONG' if self.remedy else 'ok':<6}{self.name:<24}{self.state}"
        return f"{line}\n{'':<6}-> {self.remedy}" if self.remedy else line


def examine(root: Path) -> Iterator[Finding]:
    """Yield the findings for this machine and for the project in the folder `root`."""
    yield python()
    yield environment()
    yield from packages(LIBRARY, "the library needs it")
    yield from packages(WORKFLOW, "`make repro` needs it")
    yield from bad_pairs()
    yield torch_pair()
    yield git()
    yield pip()
    yield npm()
    for name in FOLDERS:
        yield folder(root / name)
    yield disk(root)
    yield memory()
    for number, (program, path) in PORTS.items():
        yield port(number, program, path)


def python() -> Finding:
    """Check the version of Python."""
    remedy = "" if sys.version_info >= MIN_PYTHON else "install Python 3.11 or newer"
    return Finding("python", f"{platform.python_version()} on {platform.system()}", remedy)


def environment(scripts: Path | None = None) -> Finding:
    """Check that the scripts of this environment run its own Python, which fails after the environment was moved.

    Args:
        scripts: the folder of the scripts and of Python; None means the folder of this process's Python.
    """
    scripts = scripts or Path(sys.executable).parent
    for path in (scripts / name for name in SCRIPTS):
        interpreter = _interpreter(path) if path.is_file() else None
        if interpreter and not (interpreter.exists() and interpreter.parent.samefile(scripts)):
            remedy = f"the virtual environment was moved or copied: delete {scripts.parent} and run make again"
            return Finding("virtual environment", f"{path} runs {interpreter}", remedy)
    return Finding("virtual environment", str(scripts.parent) if sys.prefix != sys.base_prefix else "not used")


def _interpreter(script: Path) -> Path | None:
    """Return the path of the Python interpreter in the first lines of a script; None if there is none."""
    match = re.search(r"(/[^\n'\"]*/python[\w.]*)", script.read_bytes()[:1000].decode(errors="replace"))
    return Path(match[1]) if match else None


def packages(names: tuple[str, ...], reason: str) -> Iterator[Finding]:
    """Check that packages are installed."""
    for name in names:
        version = installed(name)
        remedy = "" if version else f"{reason}: pip install -r requirements.txt"
        yield Finding(name, version or "not installed", remedy)


def bad_pairs() -> Iterator[Finding]:
    """Check for versions of packages that do not work together."""
    for name, since, other, limit, symptom in BAD_PAIRS:
        version, other_version = installed(name), installed(other)
        if version is None or other_version is None:
            continue
        bad = numbers(version) >= since and numbers(other_version) >= limit
        below = ".".join(map(str, limit))
        remedy = f"with {name} {version}, {symptom}: pip install '{other}<{below}'" if bad else ""
        yield Finding(f"{other} for {name}", other_version, remedy)


def torch_pair() -> Finding:
    """Check that torchvision was built for the installed torch."""
    torch, torchvision = installed("torch"), installed("torchvision")
    if torch is None or torchvision is None:
        return Finding("torchvision for torch", "not both installed", "pip install -r requirements.txt")
    for requirement in metadata.requires("torchvision") or []:
        wanted = re.match(r"torch\s*\(?==\s*([\d.]+)", requirement)
        if wanted and numbers(wanted[1]) != numbers(torch):
            remedy = f"this torchvision is built for torch {wanted[1]}: install the pair that requirements.txt names"
            return Finding("torchvision for torch", f"{torchvision} beside {torch}", remedy)
    return Finding("torchvision for torch", f"{torchvision} beside {torch}")


def git() -> Finding:
    """Check that git is installed; DVC and the records of a run need it."""
    path = shutil.which("git")
    return Finding("git", path or "not installed", "" if path else "install git")


def pip() -> Finding:
    """Check that this Python has pip, which downloads models inside PyPI packages."""
    version = installed("pip")
    remedy = "" if version else f"models at pypi: addresses need it: {sys.executable} -m ensurepip"
    return Finding("pip", version or "not installed", remedy)


def npm() -> Finding:
    """Look for npm, which downloads models inside npm packages; the registry's address does without it."""
    path = shutil.which("npm")
    return Finding("npm", path or "not installed; models at npm: addresses come straight from the registry")


def folder(path: Path) -> Finding:
    """Check that a folder is writable or can be created."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing == path and not path.is_dir():
        return Finding(f"{path.name}/", "is a file", f"move {path} away")
    writable = os.access(existing, os.W_OK | os.X_OK) and not _is_read_only(existing)
    remedy = "" if writable else f"change the owner or the mode of {existing}, or use a clone on another disk"
    return Finding(f"{path.name}/", "writable" if writable else "not writable", remedy)


def disk(root: Path) -> Finding:
    """Check the free space on the disk of the project."""
    free = shutil.disk_usage(root).free / 1e9
    remedy = "" if free >= MIN_DISK_GB else f"free some disk space: a run needs {MIN_DISK_GB:.0f} GB"
    return Finding("disk", f"{free:.1f} GB free", remedy)


def memory() -> Finding:
    """Check the size of the memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    enough = total >= MIN_MEMORY_GB
    remedy = "" if enough else f"a run needs {MIN_MEMORY_GB:.0f} GB: reduce the batch sizes in params.yaml"
    return Finding("memory", f"{total:.1f} GB", remedy)


def port(number: int, program: str, path: str) -> Finding:
    """Check that a port is free for the web interface of a program, or that the program already uses it."""
    name = f"port {number}"
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", number)):
            return Finding(name, f"free for {program}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}{path}", timeout=2) as answer:
            runs = answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        runs = False
    if runs:
        return Finding(name, f"{program} runs there")
    remedy = f"stop that program, or choose another port: make ui ARGS='--{program.lower()}-port NUMBER'"
    return Finding(name, "used by another program", remedy)


def installed(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) of "2.13.0+cpu"."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _is_read_only(path: Path) -> bool:
    """Return whether a folder is on a read-only file system; permissions do not show this to the superuser."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def main(root: Path) -> int:
    """Print all findings; return the exit status: 1 if a check failed, else 0."""
    findings = list(examine(root))
    print(*findings, sep="\n")
    wrong = sum(bool(finding.remedy) for finding in findings)
    print(f"\n{wrong} of {len(findings)} checks failed" if wrong else "\nall checks passed")
    return 1 if wrong else 0

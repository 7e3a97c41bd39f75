"""What MLflow records of a run: its figures as flat metrics, its parameters as flat text, and its provenance."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptgen.files import sha256_of
from promptgen.records import Bias, Count, Figure, PassRecord

HEADLINE = "bias/kl/judge/value"

LONGEST_PART = 100
"""Longest part of a name, characters: MLflow takes 250 in all, and two parts are the user's words."""


def figures(record: PassRecord) -> dict[str, float]:
    """Return the record of a pass as flat metrics, the headline metric first and the others by name.

    MLflow shows names group by group in the order of the alphabet, so what the loop is about is called ``bias``.
    """
    identity = {name: figure for name, figure in record.control.items() if name.startswith("identity.")}
    flat = counted("bias", record) | _numbers(
        {
            "chance": record.chance,
            "quality": (record.quality.figures if record.quality else {}) | identity,
            "control": {name: figure for name, figure in record.control.items() if name not in identity},
            "fit": dict(record.fit or {}),
            "train": {
                "seconds": record.seconds,
                "evaluations": record.generator_evaluations,
                "reuse": record.reuse.as_dict() if record.reuse else {},
            },
        }
    )
    for source, reader in record.by.items():
        distances = {name: distance for name, distance in reader.distances.items() if name != "kl"}  # it is under bias/
        soft = _bias(reader.soft) if reader.soft else {}
        flat |= _numbers({"corrected": reader.corrected or {}, "distance": distances, "soft": soft}, source)
    for attribute, watched in record.watched.items():
        for source, reader in watched.by.items():
            flat |= _numbers({"watched": {attribute: _bias(reader)}}, source)
    return {name: flat[name] for name in sorted(flat, key=lambda name: (name != HEADLINE, name))}


def counted(prefix: str, count: Count) -> dict[str, float]:
    """Return KL and shares of the attribute to de-bias by every reader, as flat metrics."""
    flat: dict[str, float] = {}
    for source, reader in count.by.items():
        flat |= _numbers({prefix: {"kl": reader.kl, "share": reader.shares}}, source)
    return flat


def _bias(bias: Bias) -> dict[str, Any]:
    return {"share": bias.shares, **bias.distances}


def _numbers(part: object, source: str = "", path: tuple[str, ...] = ()) -> dict[str, float]:
    """Return every number in a part of a record by its path, with the reader that it comes from behind it."""
    if isinstance(part, Figure):
        return _numbers(part.parts, path=(*path, source) if source else path)
    if isinstance(part, Mapping):
        return {name: x for key, inner in part.items() for name, x in _numbers(inner, source, (*path, key)).items()}
    return {"/".join(path): float(part)} if isinstance(part, int | float) else {}


def tracked_name(name: str) -> str:
    """Return a name that MLflow takes for a metric or parameter, and a file system for a path.

    Labels are the user's own words. A part that changes ends in a checksum, so that `<20` and `>20` stay two.
    """
    return "/".join(_tracked_part(part) for part in name.split("/"))


def _tracked_part(part: str) -> str:
    taken = re.sub(r"[^\w.\- :]", "_", part)[:LONGEST_PART]
    taken = "_" if taken in ("", ".", "..") else taken
    return taken if taken == part else f"{taken}.{hashlib.sha256(part.encode()).hexdigest()[:6]}"


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested parameters under dotted names, each value as text (lists as JSON)."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def provenance(root: Path) -> dict[str, str]:
    """Return tags that say which code and data a run comes from: the git commit, and the sha256 of dvc.lock."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    tags: dict[str, str] = {}
    if commit := git("rev-parse", "HEAD"):
        tags |= {"mlflow.source.git.commit": commit, "git.changed": str(bool(git("status", "--porcelain"))).lower()}
    if (root / "dvc.lock").exists():
        tags["dvc.lock.sha256"] = sha256_of(root / "dvc.lock")
    return tags

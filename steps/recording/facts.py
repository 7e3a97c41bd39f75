"""What is told of a run: its figures as flat metrics, its parameters as flat text, and where it comes from."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptgen.files import sha256_of
from promptgen.records import Bias, Count, Figure, PassRecord

HEADLINE = "bias/kl/judge/value"


def figures(record: PassRecord) -> dict[str, float]:
    """Return the record of a pass as flat metrics, the headline metric first and the others by name.

    MLflow shows names group by group in the order of the alphabet, so what the loop is about is called ``bias``.
    """
    flat = counted("bias", record) | _numbers("chance", record.chance)
    for source, reader in record.by.items():
        for label, share in (reader.corrected or {}).items():
            flat |= _numbers(f"corrected/{label}/{source}", share)
        for name, distance in reader.distances.items():
            if name != "kl":  # which stands under bias/
                flat |= _numbers(f"distance/{name}/{source}", distance)
        if reader.soft:
            flat |= _bias("soft", source, reader.soft)
    for attribute, watched in record.watched.items():
        for source, reader in watched.by.items():
            flat |= _bias(f"watched/{attribute}", source, reader)
    if record.quality:
        flat |= _numbers("quality", record.quality.figures)
    for name, interval in record.control.items():
        flat |= _numbers(f"{'quality' if name.startswith('identity.') else 'control'}/{name}", interval)
    if record.fit:
        flat |= _numbers("fit", dict(record.fit))
    flat |= _numbers("train/seconds", record.seconds)
    flat |= _numbers("train/evaluations", record.generator_evaluations)
    return {name: flat[name] for name in sorted(flat, key=lambda name: (name != HEADLINE, name))}


def counted(prefix: str, count: Count) -> dict[str, float]:
    """Return KL and shares of the attribute to de-bias by every reader, as flat metrics."""
    flat: dict[str, float] = {}
    for source, reader in count.by.items():
        flat |= _numbers(f"{prefix}/kl/{source}", reader.kl)
        for label, share in reader.shares.items():
            flat |= _numbers(f"{prefix}/share/{label}/{source}", share)
    return flat


def _bias(prefix: str, source: str, bias: Bias) -> dict[str, float]:
    """Return an attribute's shares and distances by one reader."""
    figures = {f"share/{label}": share for label, share in bias.shares.items()} | bias.distances
    return _numbers(prefix, {f"{name}/{source}": figure for name, figure in figures.items()})


def _numbers(name: str, value: object) -> dict[str, float]:
    """Return every number in a part of a record, by its path; a figure has `value` and what stands beside it."""
    if isinstance(value, Figure):
        return _numbers(name, value.parts)
    if isinstance(value, Mapping):
        return {path: number for key, part in value.items() for path, number in _numbers(f"{name}/{key}", part).items()}
    return {name: float(value)} if isinstance(value, int | float) else {}


def metric_name(name: str) -> str:
    """Return a name that MLflow takes for a metric, and a file system for a path: labels are the user's own words."""
    parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


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

"""What is told of a run: its figures as flat metrics, its parameters as flat text, and where it comes from."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptgen.files import sha256_of
from promptgen.metrics.bias import DISTANCES

HEADLINE = "bias/kl/judge"


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return a pass's entry of reports/metrics.json as flat metrics, the headline bias metric first.

    MLflow shows names group by group in the order of the alphabet, so what the loop is about is called ``bias``.
    """
    flat = _intervals(HEADLINE, record["kl"]["judge"]) | _counted("bias", record)
    flat |= {f"chance/{name}": value for name, value in record.get("chance", {}).items()}
    for reader, shares in record.get("corrected", {}).items():
        for label, interval in shares.items():
            flat |= _intervals(f"corrected/{label}/{reader}", interval)
    for reader, distances in record.get("distances", {}).items():
        for name, interval in distances.items():
            flat |= _intervals(f"distance/{name}/{reader}", interval)
    for reader, bias in record.get("soft", {}).items():
        flat |= _bias("soft", reader, bias)
    for attribute, watched in record.get("watched", {}).items():
        for reader, bias in watched["by"].items():
            flat |= _bias(f"watched/{attribute}", reader, bias)
    flat |= _quality(record.get("quality") or {})
    for name, interval in record["control"].items():
        flat |= _intervals(f"{'quality' if name.startswith('identity.') else 'control'}/{name}", interval)
    for name, value in (record["fit"] or {}).items():
        flat |= _intervals(f"fit/{name}", value) if isinstance(value, Mapping) else {f"fit/{name}": value}
    flat |= {f"train/seconds/{step}": value for step, value in record["seconds"].items()}
    flat |= {f"train/evaluations/{way}": value for way, value in record["generator_evaluations"].items()}
    return _numbers(flat)


def confirmed_figures(confirmation: Mapping[str, Any]) -> dict[str, float]:
    """Return the confirming count of reports/metrics.json as flat metrics."""
    return _numbers(_counted("confirmed", confirmation))


def _counted(prefix: str, record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return KL and shares of the attribute to de-bias, by all who counted."""
    flat: dict[str, float | None] = {}
    for reader, interval in record["kl"].items():
        flat |= _intervals(f"{prefix}/kl/{reader}", interval)
    for reader, shares in record["shares"].items():
        for label, interval in shares.items():
            flat |= _intervals(f"{prefix}/share/{label}/{reader}", interval)
    return flat


def _numbers(flat: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics whose value is known."""
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}


def _bias(prefix: str, reader: str, bias: Mapping[str, Any]) -> dict[str, float | None]:
    """Return an attribute's shares and distances by one who counted."""
    flat: dict[str, float | None] = {}
    for label, interval in bias["shares"].items():
        flat |= _intervals(f"{prefix}/share/{label}/{reader}", interval)
    for name in DISTANCES:
        flat |= _intervals(f"{prefix}/{name}/{reader}", bias[name])
    return flat


def _quality(quality: Mapping[str, Any]) -> dict[str, float | None]:
    if not quality:
        return {}
    flat: dict[str, float | None] = {
        "quality/frechet/value": quality["frechet"],
        "quality/frechet/chance": quality["frechet_chance"],
    }
    for name in ("kernel", "precision", "recall"):
        flat |= _intervals(f"quality/{name}", quality[name])
    return flat


def metric_name(name: str) -> str:
    """Return a name that MLflow takes for a metric, and a file system for a path: labels are the user's own words."""
    parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def _intervals(name: str, estimate: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"{name}/{part}": estimate[part] for part in ("value", "low", "high")}


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
    tags: dict[str, str] = {}
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
        tags |= {
            "mlflow.source.git.commit": commit.stdout.strip(),
            "git.changed": str(bool(changes.stdout.strip())).lower(),
        }
    if (root / "dvc.lock").exists():
        tags["dvc.lock.sha256"] = sha256_of(root / "dvc.lock")
    return tags

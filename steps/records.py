"""The entry of a pass in reports/metrics.json, from what its steps have left, and the file itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptgen.config import PassKind
from promptgen.files import write_json
from promptgen.manifest import StepFolder
from steps.common import Pass, Project

logger = logging.getLogger("promptgen")

METRICS_NAME = "metrics.json"
SUMMARY_NAME = "summary.json"
TIMING_NAME = "timing.json"
QUALITY = ("frechet", "frechet_chance", "kernel", "precision", "recall")
STEPS: Mapping[PassKind, tuple[str, ...]] = {
    "generator": ("sample", "evaluate", "estimate_bias"),
    "control": ("train_flow", "sample", "evaluate", "estimate_bias"),
    "debias": ("fit_moments", "train_flow", "sample", "evaluate", "estimate_bias"),
}
"""The steps of each kind of pass, in their order."""


def pass_record(this: Pass) -> dict[str, Any]:
    """Return what is recorded of a pass whose steps are done.

    Raises:
        DataError: a step of the pass has not been run.
    """
    manifests = {step: StepFolder(this.folder(step), "").manifest() for step in STEPS[this.kind]}
    results = {step: manifest["result"] for step, manifest in manifests.items()}
    evaluations = [result.get("generator_evaluations", {}) for result in results.values()]
    return {
        **results["evaluate"],
        "fit": results.get("train_flow", {}).get("fit"),
        "seconds": {step: round(manifest["seconds"], 3) for step, manifest in manifests.items()},
        "generator_evaluations": {
            way: sum(counted.get(way, 0) for counted in evaluations) for way in ("forward", "backward")
        },
    }


def write_metrics(project: Project, records: Sequence[dict[str, Any]], stopped: str) -> Path:
    """Write reports/metrics.json, and its headline figures to summary.json; return the first.

    Equal runs give equal files, apart from the seconds.

    Raises:
        StorageError: it cannot be written.
    """
    debias, path = project.params.debias, project.reports / METRICS_NAME
    content = {
        "experiment": project.params.experiment,
        "attribute": debias.attribute,
        "target": debias.target,
        "stopped": stopped,
        "passes": list(records),
    }
    write_json(path, content)
    write_json(project.reports / SUMMARY_NAME, summary(records, stopped))
    return path


def summary(records: Sequence[dict[str, Any]], stopped: str) -> dict[str, Any]:
    """Return the headline figures of a run, those of the first and of the last pass, in a form that DVC compares.

    DVC leaves out lists, of which the passes are one.
    """
    ends = {"first": records[0], "last": records[-1]}
    return {"passes": len(records), "stopped": stopped} | {name: _headline(record) for name, record in ends.items()}


def _headline(record: Mapping[str, Any]) -> dict[str, Any]:
    counter = "judge" if record["shares"].get("judge") else "classifier"
    return {
        "kl": record["kl"][counter],
        "shares": {label: share["value"] for label, share in record["shares"][counter].items()},
        "corrected": {label: share["value"] for label, share in record["corrected"].get(counter, {}).items()},
        "control": {name: figure["value"] for name, figure in record["control"].items()},
        "watched": {name: _first(watched["by"])["kl"]["value"] for name, watched in record["watched"].items()},
        "quality": {name: _plain(record["quality"][name]) for name in QUALITY} if record["quality"] else None,
        "ess_fraction": record["fit"] and record["fit"]["ess_fraction"]["value"],
    }


def _first(by: Mapping[str, Any]) -> Any:
    """Return what the first of those who counted has found."""
    return next(iter(by.values()))


def _plain(figure: Any) -> float:
    """Return a figure without its interval."""
    return float(figure["value"] if isinstance(figure, Mapping) else figure)


def write_timing(project: Project, total: float, spent: float) -> None:
    """Log and write how much of a run's seconds was spent in steps; the rest went into starting and keeping books."""
    rest = total - spent
    logger.info("%.0f s in all: %.0f s in steps, %.0f s (%.1f %%) else", total, spent, rest, 100 * rest / total)
    timing = {"total": total, "steps": spent, "overhead_fraction": rest / total}
    write_json(project.artifacts / TIMING_NAME, timing)

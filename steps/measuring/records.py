"""The entry of a pass in reports/metrics.json, from what its steps have left, and the file itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptgen.config.params import PassKind
from promptgen.files import write_json
from steps.measuring.counting import COUNTERS
from steps.shared.common import Pass, Project
from steps.shared.manifest import StepFolder

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


def pass_record(this: Pass, *, confirmed: bool = False) -> dict[str, Any]:
    """Return what is recorded of a pass whose steps are done.

    Args:
        this: the pass.
        confirmed: whether it was counted once more, which took time and images, too.

    Raises:
        DataError: a step of the pass has not been run.
    """
    steps = (*STEPS[this.kind], "confirm") if confirmed else STEPS[this.kind]
    manifests = {step: StepFolder(this.folder(step), "").manifest() for step in steps}
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


def write_metrics(
    project: Project,
    records: Sequence[dict[str, Any]],
    stopped: str,
    confirmation: Mapping[str, Any] | None = None,
) -> Path:
    """Write reports/metrics.json, and its headline figures to summary.json; return the first.

    Equal runs give equal files, apart from the seconds.

    Args:
        project: the experiment.
        records: what is recorded of each pass, in order.
        stopped: why the loop stops.
        confirmation: the last pass counted once more, if it was.

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
        "confirmation": confirmation,
    }
    write_json(path, content)
    write_json(project.reports / SUMMARY_NAME, summary(records, stopped, confirmation))
    return path


def summary(
    records: Sequence[dict[str, Any]], stopped: str, confirmation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the headline figures of a run, in a form that DVC compares; arguments as of `write_metrics`.

    They are those of the first and of the last pass, and of the confirming count, if there is one. DVC leaves out
    lists, of which the passes are one.
    """
    found: dict[str, Any] = {
        "passes": len(records),
        "stopped": stopped,
        "first": _headline(records[0]),
        "last": _headline(records[-1]),
    }
    if confirmation is not None:
        contains = confirmation["contains_target"]
        found["confirmed"] = {**_counted(confirmation, _counter(confirmation)), "contains_target": contains}
    return found


def _headline(record: Mapping[str, Any]) -> dict[str, Any]:
    counter = _counter(record)
    return {
        **_counted(record, counter),
        "corrected": {label: share["value"] for label, share in record["corrected"].get(counter, {}).items()},
        "control": {name: figure["value"] for name, figure in record["control"].items()},
        "watched": {name: _trusted(watched["by"])["kl"]["value"] for name, watched in record["watched"].items()},
        "quality": {name: _plain(record["quality"][name]) for name in QUALITY} if record["quality"] else None,
        "ess_fraction": record["fit"] and record["fit"]["ess_fraction"]["value"],
    }


def _counter(record: Mapping[str, Any]) -> str:
    """Return who decides: the judge, if there is one."""
    return "judge" if record["shares"].get("judge") else "classifier"


def _counted(record: Mapping[str, Any], counter: str) -> dict[str, Any]:
    """Return what was counted of the attribute to de-bias."""
    shares = {label: share["value"] for label, share in record["shares"][counter].items()}
    return {"kl": record["kl"][counter], "shares": shares}


def _trusted(by: Mapping[str, Any]) -> Any:
    """Return what the most trusted of those who counted has found."""
    return next(by[counter] for counter in COUNTERS if counter in by)


def _plain(figure: Any) -> float:
    """Return a figure without its interval."""
    return float(figure["value"] if isinstance(figure, Mapping) else figure)


def write_timing(project: Project, total: float, spent: float) -> None:
    """Log and write how much of a run's seconds was spent in steps; the rest went into starting and keeping books."""
    rest = total - spent
    logger.info("%.0f s in all: %.0f s in steps, %.0f s (%.1f %%) else", total, spent, rest, 100 * rest / total)
    timing = {"total": total, "steps": spent, "overhead_fraction": rest / total}
    write_json(project.artifacts / TIMING_NAME, timing)

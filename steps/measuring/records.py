"""The record of a pass, put together from the results of its steps, and the files that a run's records become."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptgen.config.params import PassKind
from promptgen.errors import DataError
from promptgen.files import write_json
from promptgen.labels import spelled_as
from promptgen.records import Confirmation, Count, Measurement, Metrics, PassRecord
from steps.shared.common import Pass, Project
from steps.shared.manifest import StepFolder
from steps.shared.target import reference_of

logger = logging.getLogger("promptgen")

METRICS_NAME = "metrics.json"
SUMMARY_NAME = "summary.json"
TIMING_NAME = "timing.json"
STEPS: Mapping[PassKind, tuple[str, ...]] = {
    "generator": ("sample", "evaluate", "estimate_bias"),
    "control": ("train_flow", "sample", "evaluate", "estimate_bias"),
    "debias": ("fit_moments", "train_flow", "sample", "evaluate", "estimate_bias"),
}
"""The steps of each kind of pass, in their order."""


def measurement(run_pass: Pass) -> Measurement:
    """Return what `evaluate` measured of a pass.

    Raises:
        DataError: the pass has not been evaluated.
    """
    return Measurement.parse(_manifest(run_pass, "evaluate")["result"], f"the evaluation of pass {run_pass.number}")


def evaluation_fingerprint(run_pass: Pass) -> str:
    """Return the fingerprint of the measurement of a pass, an input of later steps.

    Raises:
        DataError: the pass has not been evaluated.
    """
    return str(_manifest(run_pass, "evaluate")["fingerprint"])


def pass_record(run_pass: Pass, *, confirmed: bool = False) -> PassRecord:
    """Return the record of a pass whose steps are done.

    Args:
        run_pass: the pass.
        confirmed: whether the time and images of its confirming count are included.

    Raises:
        DataError: a step of the pass has not been run.
    """
    steps = (*STEPS[run_pass.kind], *(["confirm"] if confirmed else []))
    manifests = {step: _manifest(run_pass, step) for step in steps}
    results = {step: manifest["result"] for step, manifest in manifests.items()}
    evaluations = [result.get("generator_evaluations", {}) for result in results.values()]
    origin = f"the results of pass {run_pass.number}"
    return PassRecord.parse(
        {
            **results["evaluate"],
            "changes": results["estimate_bias"]["changes"],
            "fit": results.get("train_flow", {}).get("fit"),
            "reuse": results.get("train_flow", {}).get("reuse"),
            "seconds": {step: round(manifest["seconds"], 3) for step, manifest in manifests.items()},
            "generator_evaluations": {
                direction: sum(part.get(direction, 0) for part in evaluations) for direction in ("forward", "backward")
            },
        },
        origin,
    )


def _manifest(run_pass: Pass, step: str) -> dict[str, Any]:
    try:
        return StepFolder(run_pass.folder(step), "").manifest()
    except DataError as error:
        raise DataError(f"{error}; write it with `promptgen step {step} --pass {run_pass.number}`") from error


def write_metrics(
    project: Project, records: Sequence[PassRecord], stopped: str, confirmation: Confirmation | None = None
) -> Path:
    """Write reports/metrics.json, and its headline figures to summary.json; return the first.

    Equal runs give equal files, apart from the seconds.

    Args:
        project: the experiment.
        records: the record of each pass, in order.
        stopped: why the loop stops.
        confirmation: the confirming count of the last pass, if there is one.

    Raises:
        StorageError: it cannot be written.
    """
    debias, path = project.params.debias, project.reports / METRICS_NAME
    metrics = Metrics(
        experiment=project.params.experiment,
        attribute=debias.attribute,
        target=spelled_as(list(records[0].target), debias.shares),
        stopped=stopped,
        passes=list(records),
        confirmation=confirmation,
        reference=reference_of(project.root, project.params),
    )
    write_json(path, metrics.as_dict())
    write_json(project.reports / SUMMARY_NAME, summary(metrics))
    return path


def summary(metrics: Metrics) -> dict[str, Any]:
    """Return the headline figures of a run, in a form that DVC compares.

    They are those of the first and of the last pass, and of the confirming count, if there is one. DVC leaves out
    lists, of which the passes are one.
    """
    content: dict[str, Any] = {
        "passes": len(metrics.passes),
        "stopped": metrics.stopped,
        "first": _headline(metrics.passes[0]),
        "last": _headline(metrics.passes[-1]),
    }
    if again := metrics.confirmation:
        content["confirmed"] = {**_judged(again), "contains_target": again.contains_target}
    return content


def _headline(record: PassRecord) -> dict[str, Any]:
    return {
        **_judged(record),
        "corrected": {label: share.value for label, share in (record.trusted.corrected or {}).items()},
        "control": {name: figure.value for name, figure in record.control.items()},
        "watched": {name: attribute.trusted.kl.value for name, attribute in record.watched.items()},
        "quality": record.quality
        and {name: number for name, number in record.quality.numbers.items() if not name.endswith(("_low", "_high"))},
        "ess_fraction": record.fit and record.fit.ess_fraction.value,
    }


def _judged(count: Count) -> dict[str, Any]:
    """Return what the judge counted of the attribute to de-bias."""
    shares = {label: share.value for label, share in count.trusted.shares.items()}
    return {"kl": count.trusted.kl.as_dict(), "shares": shares}


def write_timing(project: Project, total: float, spent: float) -> None:
    """Log and write the time of a run and how much of it was spent in steps; the rest is startup and bookkeeping."""
    rest = total - spent
    logger.info("%.0f s in all: %.0f s in steps, %.0f s (%.1f %%) else", total, spent, rest, 100 * rest / total)
    timing = {"total": total, "steps": spent, "overhead_fraction": rest / total}
    write_json(project.artifacts / TIMING_NAME, timing)

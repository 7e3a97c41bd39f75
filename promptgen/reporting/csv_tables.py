"""The numbers of a report as plain tables, for tools that draw their own plots from CSV, such as ``dvc plots``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from promptgen.records import SOURCES, Metrics, PassRecord
from promptgen.reporting.drawing.pictures import Pixels, sheet
from promptgen.reporting.run import Run
from promptgen.reporting.sections.control import DIVERSITY

GRID_COLUMNS = 16
QUALITY_COLUMNS = ("pass", "precision", "recall", "identity_diversity", "frechet", "frechet_chance")


def share_table(metrics: Metrics) -> str:
    """Return every share as CSV: pass, kind, source, label, value, low, high, target."""
    return _csv(
        {"pass": record.number, "kind": record.kind, "source": source, "label": label}
        | interval.model_dump()
        | {"target": metrics.target[label]}
        for record in metrics.passes
        for source in SOURCES
        for label, interval in (record.shares.get(source) or {}).items()
    )


def bias_table(metrics: Metrics) -> str:
    """Return the distances to the target as CSV with a row per pass.

    The KL, nats, has a column per source that counted, such as ``judge``; others are called ``judge_total_variation``.
    """
    return _csv(
        {"pass": record.number}
        | {source: kl.value for source, kl in record.kl.items() if kl is not None}
        | {
            f"{source}_{name}": distance.value
            for source, distances in record.distances.items()
            for name, distance in distances.items()
        }
        for record in metrics.passes
    )


def quality_table(metrics: Metrics) -> str:
    """Return the figures of quality and variety as CSV, a row per pass; an interval has NAME, NAME_low and NAME_high.

    The columns to draw are there even without a figure, so that what draws them does not stumble.
    """
    rows = [{"pass": record.number} | _quality(record) for record in metrics.passes]
    return _csv([dict.fromkeys(QUALITY_COLUMNS) | row for row in rows])


def _quality(record: PassRecord) -> dict[str, object]:
    """Return the figures of quality and variety of a pass by name."""
    figures = record.quality.model_dump() if record.quality else {}
    if DIVERSITY in record.control:
        figures["identity_diversity"] = record.control[DIVERSITY].model_dump()
    found: dict[str, object] = {}
    for name, figure in figures.items():
        if isinstance(figure, dict):  # an interval
            found |= {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
        else:
            found[name] = figure
    return found


def watched_table(metrics: Metrics) -> str:
    """Return the shares of what nobody moves as CSV: pass, attribute, source, label, value, low, high, target."""
    return _csv(
        {"pass": record.number, "attribute": attribute, "source": source, "label": label}
        | interval.model_dump()
        | {"target": watched.target[label]}
        for record in metrics.passes
        for attribute, watched in record.watched.items()
        for source, bias in watched.by.items()
        for label, interval in bias.shares.items()
    )


def training_table(run: Run) -> str:
    """Return all histories as CSV: pass, step (counted on from pass to pass), and every number that was recorded."""
    rows: list[dict[str, object]] = []
    before = 0
    for record, material in zip(run.metrics.passes, run.material, strict=True):
        steps = [int(row["step"] or 0) for row in material.history]
        for step, row in zip(steps, material.history, strict=True):
            rows.append({"pass": record.number, **row, "step": before + step})
        before += max(steps, default=0)
    return _csv(rows)


def grid(run: Run) -> Pixels:
    """Return one picture with a row per pass and a column per latent."""
    latents = min(GRID_COLUMNS, *(len(material.tiles) for material in run.material))
    return np.concatenate([sheet(material.tiles[:latents], latents) for material in run.material])


def _csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as CSV; the columns are all their keys, in order of appearance."""
    return str(pd.DataFrame(list(rows)).to_csv(index=False, lineterminator="\n", float_format="%.6g"))

"""The numbers of a report as plain tables, for tools that draw their own plots from CSV, such as ``dvc plots``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from promptgen.reporting.pictures import Pixels, sheet
from promptgen.reporting.records import SOURCES, Metrics
from promptgen.reporting.run import Run

GRID_COLUMNS = 16


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
    """Return the KL to the target, nats, as CSV with a row per pass and a column per source that counted."""
    return _csv(
        {"pass": record.number} | {source: kl.value for source, kl in record.kl.items() if kl is not None}
        for record in metrics.passes
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

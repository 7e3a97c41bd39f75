"""The numbers of a report as CSV tables, for plotting tools such as ``dvc plots``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from promptgen.records import SOURCES, AttributeBias, Metrics, PassRecord
from promptgen.reporting.drawing.pictures import Pixels, sheet
from promptgen.reporting.run import Run
from promptgen.reporting.sections.control import DIVERSITY

GRID_COLUMNS = 16
QUALITY_COLUMNS = ("pass", "precision", "recall", "identity_diversity", "frechet", "frechet_chance")


def share_table(metrics: Metrics) -> str:
    """Return every share as CSV: pass, kind, source, label, value, low, high, target."""
    return _csv(
        {"pass": record.number, "kind": record.kind, **row} for record in metrics.passes for row in _share_rows(record)
    )


def watched_table(metrics: Metrics) -> str:
    """Return the shares of watched attributes as CSV: pass, attribute, source, label, value, low, high, target."""
    return _csv(
        {"pass": record.number, "attribute": name, **row}
        for record in metrics.passes
        for name, attribute in record.watched.items()
        for row in _share_rows(attribute)
    )


def _share_rows(attribute: AttributeBias) -> Iterator[dict[str, object]]:
    """Yield a row per reader and class."""
    for source in SOURCES:
        for label, share in attribute.by[source].shares.items() if source in attribute.by else ():
            yield {"source": source, "label": label, **share.parts, "target": attribute.target[label]}


def bias_table(metrics: Metrics) -> str:
    """Return the distances to the target as CSV with a row per pass.

    The KL, nats, has a column per source, such as ``judge``; others are called ``judge_total_variation``.
    """
    return _csv(
        {
            "pass": record.number,
            **{source: reader.kl.value for source, reader in record.by.items()},
            **{
                f"{source}_{name}": distance.value
                for source, reader in record.by.items()
                for name, distance in reader.distances.items()
                if name != "kl"
            },
        }
        for record in metrics.passes
    )


def quality_table(metrics: Metrics) -> str:
    """Return the figures of quality and variety as CSV, a row per pass; an interval has NAME, NAME_low and NAME_high.

    Columns that are plotted exist even without a figure, so that plotting does not fail.
    """
    return _csv(
        dict.fromkeys(QUALITY_COLUMNS) | {"pass": record.number} | _quality(record) for record in metrics.passes
    )


def _quality(record: PassRecord) -> dict[str, object]:
    """Return the figures of quality and variety of a pass by name."""
    quality = record.quality
    figures: dict[str, object] = {}
    if quality:
        texts = {name: getattr(quality, name) for name in ("reference", "features", "n", "n_reference", "few_samples")}
        figures |= {**texts, **quality.numbers}
    if diversity := record.control.get(DIVERSITY):
        figures |= {
            "identity_diversity": diversity.value,
            "identity_diversity_low": diversity.low,
            "identity_diversity_high": diversity.high,
        }
    return figures


def training_table(run: Run) -> str:
    """Return all histories as CSV: pass, step (continued from pass to pass), and every recorded number."""
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
    """Return rows as CSV; the columns are the union of their keys, in order of appearance."""
    return str(pd.DataFrame(list(rows)).to_csv(index=False, lineterminator="\n", float_format="%.6g"))

"""The report as one self-contained HTML file: no script, no font, no link to another site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptgen.records import Metrics, PassRecord
from promptgen.reporting.drawing.pictures import Pixels, data_uri, sheet, shrink
from promptgen.reporting.run import Run
from promptgen.reporting.sections import names as words
from promptgen.reporting.sections.answer import answer, context
from promptgen.reporting.sections.bias_tables import (
    distance_rows,
    indirect_rows,
    indirect_sources,
    pass_rows,
    within_rows,
)
from promptgen.reporting.sections.control import DIVERSITY
from promptgen.reporting.sections.doubts import judge_warnings, warnings
from promptgen.reporting.sections.methods import methods, seeds
from promptgen.reporting.sections.panels import (
    bias_panels,
    control_panels,
    quality_panels,
    training_panels,
    watched_panel,
)
from promptgen.reporting.sections.quality import cost, quality_rows, quality_sentence
from promptgen.reporting.sections.watched import held_against, watched_tables
from promptgen.reporting.text.environment import environment
from promptgen.reporting.text.glossary import DISTANCES, MEANINGS

HERO_COLUMNS, HERO_TILES = 4, 16
STRIP = 8  # latents side by side; more would be too small on a phone
STRIP_ROWS = 5  # rows of passes; more would fill the page with nearly equal faces
LARGEST_TILE = 128  # pixels; larger tiles only make the file larger
MOST_OPEN_ROWS = 6  # longer tables start folded
WORK = {"forward": "images made", "backward": "of these, with a gradient"}


def render(run: Run) -> str:
    """Return the page as HTML; equal runs give equal bytes."""
    watched = watched_tables(run.metrics, run.settings)
    controls = dict.fromkeys(name for record in run.metrics.passes for name in record.control)
    metrics, tiles = run.metrics, [shrink(material.tiles, LARGEST_TILE) for material in run.material]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            metrics=metrics,
            settings=run.settings,
            sources=metrics.sources,
            answer=answer(metrics, run.settings),
            context=context(metrics, run.settings),
            warnings=[*judge_warnings(run.settings), *warnings(metrics)],
            target=words.target_words(metrics),
            headline=words.headline_label(metrics),
            hero=_hero(metrics, tiles),
            strips=_strips(metrics, tiles),
            latents=min(map(len, tiles)),
            sweeps=_sweeps(run),
            passes=pass_rows(metrics, run.settings),
            bias_panels=bias_panels(metrics),
            within=within_rows(metrics),
            indirect=indirect_sources(metrics),
            indirect_rows=indirect_rows(metrics),
            distances=distance_rows(metrics),
            distance_names=DISTANCES,
            control_panels=control_panels(metrics),
            control_names=[name for name in controls if name != DIVERSITY],
            quality_panels=quality_panels(metrics),
            qualities=[record for record in metrics.passes if record.quality],
            quality_sentence=quality_sentence,
            quality_rows=quality_rows(metrics),
            cost=cost(metrics),
            watched=watched,
            watched_panels=[watched_panel(metrics, index, table) for index, table in enumerate(watched)],
            held_against=held_against,
            training=[
                (record, training_panels(metrics, record, material.history))
                for record, material in zip(metrics.passes, run.material, strict=True)
                if material.history
            ],
            fit_words=words.fit_words,
            multipliers=_multipliers(run),
            seconds=_table(metrics, "seconds"),
            evaluations=_table(metrics, "generator_evaluations"),
            methods=methods(run),
            seeds=seeds(run),
            words=words,
            most_open_rows=MOST_OPEN_ROWS,
        )
    )


def _hero(metrics: Metrics, tiles: Sequence[Pixels]) -> list[tuple[PassRecord, str]]:
    """Return the passes shown at the top, with some of their samples: the first, the control's and the last."""
    control = [index for index, record in enumerate(metrics.passes) if record.kind == "control"]
    chosen = sorted({0, *control[:1], len(metrics.passes) - 1})
    return [(metrics.passes[i], data_uri(sheet(tiles[i][:HERO_TILES], HERO_COLUMNS))) for i in chosen]


def _strips(metrics: Metrics, tiles: Sequence[Pixels]) -> list[list[tuple[PassRecord, str]]]:
    """Return groups of `STRIP` latents, each with one row of images per pass and one column per latent.

    If there are many passes, only the first `STRIP_ROWS` - 1 and the last are shown.
    """
    rows = list(zip(metrics.passes, tiles, strict=True))
    if len(rows) > STRIP_ROWS:
        rows = [*rows[: STRIP_ROWS - 1], rows[-1]]
    latents = min(map(len, tiles))
    groups = [slice(start, min(start + STRIP, latents)) for start in range(0, latents, STRIP)]
    return [[(record, data_uri(sheet(pictures[group], STRIP))) for record, pictures in rows] for group in groups]


def _sweeps(run: Run) -> list[tuple[PassRecord, list[tuple[str, str]]]]:
    """Return a picture per condition coordinate, with its range, for every pass with a conditional generator."""
    ranges = run.settings.condition
    return [
        (record, [_sweep(part, name, *ranges[name]) for name, part in zip(ranges, parts, strict=True)])
        for record, material in zip(run.metrics.passes, run.material, strict=True)
        if material.sweep is not None
        for parts in [np.split(material.sweep, len(ranges), axis=1)]
    ]


def _sweep(tiles: Pixels, name: str, low: float, high: float) -> tuple[str, str]:
    small = shrink(tiles.reshape(-1, *tiles.shape[2:]), LARGEST_TILE)
    return words.range_words(name, low, high), data_uri(sheet(small, tiles.shape[1]))


def _multipliers(run: Run) -> list[tuple[PassRecord, Mapping[str, Any], list[dict[str, Any]]]]:
    """Return the record, the solved moments and a row per class of every de-biasing pass."""
    names = {label: f"{run.metrics.attribute}:{label}" for label in run.metrics.target}
    passes = zip(run.metrics.passes, run.material, strict=True)
    return [
        (record, material.moments, [_multiplier(material.moments, material.beta, *name) for name in names.items()])
        for record, material in passes
        if material.moments is not None
    ]


def _multiplier(moments: Mapping[str, Any], final: Mapping[str, float], label: str, name: str) -> dict[str, Any]:
    """Return the table row of one multiplier; None for a missing interval or if training did not move it."""
    return {
        "label": label,
        "observed": moments["observed"][name],
        "target": moments["target"][name],
        "solved": moments["beta"][name],
        "low": (moments["beta_low"] or {}).get(name),
        "high": (moments["beta_high"] or {}).get(name),
        "final": final.get(name),
    }


def _table(metrics: Metrics, field: str) -> list[tuple[str, list[Any]]]:
    """Return a row per key of a mapping in the records, with a value or None for every pass.

    Keys are in the order of the glossary, because a file on disk sorts them; other keys come last.
    """
    columns: list[Mapping[str, Any]] = [getattr(record, field) for record in metrics.passes]
    named = {name: WORK.get(name, name) for column in columns for name in column}
    terms = list(MEANINGS)
    order = sorted(named, key=lambda name: terms.index(named[name]) if named[name] in terms else len(terms))
    return [(named[name], [column.get(name) for column in columns]) for name in order]

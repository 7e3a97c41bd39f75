"""The report as one HTML file that needs nothing but itself: no script, no font, no address of another site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from promptgen.records import Metrics, PassRecord
from promptgen.reporting.drawing.pictures import Pixels, data_uri, sheet, shrink
from promptgen.reporting.run import Run
from promptgen.reporting.sections import names as words
from promptgen.reporting.sections.answer import answer, context
from promptgen.reporting.sections.bias_tables import distance_rows, indirect_rows, indirect_sources, pass_rows
from promptgen.reporting.sections.control import DIVERSITY
from promptgen.reporting.sections.doubts import judge_warnings, warnings
from promptgen.reporting.sections.methods import methods, seeds
from promptgen.reporting.sections.panels import (
    Panel,
    bias_panels,
    control_panels,
    quality_panels,
    training_panels,
    watched_panel,
)
from promptgen.reporting.sections.quality import cost, quality_rows, quality_sentence
from promptgen.reporting.sections.watched import held_against, watched_tables
from promptgen.reporting.text import formats
from promptgen.reporting.text.glossary import DISTANCES, MEANINGS

HERO_COLUMNS, HERO_TILES = 4, 16
STRIP = 8  # latents side by side; as many as still show faces on a phone
STRIP_ROWS = 5  # passes below each other; more would fill the page with faces that hardly differ
LARGEST_TILE = 128  # pixels; more would only make the file larger
FILTERS = (
    "brief",
    "class_name",
    "count",
    "duration",
    "number",
    "number_range",
    "p_value",
    "percent",
    "percent_range",
    "points",
    "wanted",
)
MOST_OPEN_ROWS = 6  # a longer table starts folded
WORK = {"forward": "images made", "backward": "of these, with a gradient"}


def environment() -> Environment:
    """Return what reads the templates: all text is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=PackageLoader("promptgen.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name: getattr(formats, name) for name in FILTERS})
    made.globals["meanings"] = MEANINGS
    return made


def render(run: Run) -> str:
    """Return the page; equal runs make equal bytes."""
    watched = watched_tables(run.metrics, run.settings)
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
            indirect=indirect_sources(metrics),
            indirect_rows=indirect_rows(metrics),
            distances=distance_rows(metrics),
            distance_names=DISTANCES,
            control_panels=control_panels(metrics),
            control_names=_control_names(metrics),
            **_quality(metrics),
            watched=watched,
            watched_panels=[watched_panel(metrics, *each) for each in enumerate(watched)],
            held_against=held_against,
            training=_training(run),
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


def _quality(metrics: Metrics) -> dict[str, Any]:
    """Return what the page shows of quality and variety, by the names of the template."""
    return {
        "quality_panels": quality_panels(metrics),
        "qualities": [record for record in metrics.passes if record.quality],
        "quality_sentence": quality_sentence,
        "quality_rows": quality_rows(metrics),
        "cost": cost(metrics),
    }


def _control_names(metrics: Metrics) -> list[str]:
    """Return the name of every figure of the control, without that of variety, in order of appearance."""
    names = dict.fromkeys(name for record in metrics.passes for name in record.control)
    return [name for name in names if name != DIVERSITY]


def _training(run: Run) -> list[tuple[PassRecord, list[Panel]]]:
    """Return the curves of every pass that was trained."""
    passes = zip(run.metrics.passes, run.material, strict=True)
    return [
        (record, training_panels(run.metrics, record, material.history))
        for record, material in passes
        if material.history
    ]


def _hero(metrics: Metrics, tiles: Sequence[Pixels]) -> list[tuple[PassRecord, str]]:
    """Return the passes of the opening picture, with some of their samples: the first, the control's, the last."""
    control = [index for index, record in enumerate(metrics.passes) if record.kind == "control"]
    chosen = sorted({0, *control[:1], len(metrics.passes) - 1})
    return [(metrics.passes[i], data_uri(sheet(tiles[i][:HERO_TILES], HERO_COLUMNS))) for i in chosen]


def _strips(metrics: Metrics, tiles: Sequence[Pixels]) -> list[list[tuple[PassRecord, str]]]:
    """Return groups of `STRIP` latents, each with one row of images per pass, so that a face stays in its column.

    Of many passes, only the first `STRIP_ROWS` - 1 and the last are shown.
    """
    rows = list(zip(metrics.passes, tiles, strict=True))
    if len(rows) > STRIP_ROWS:
        rows = [*rows[: STRIP_ROWS - 1], rows[-1]]
    latents = min(map(len, tiles))
    groups = [slice(start, min(start + STRIP, latents)) for start in range(0, latents, STRIP)]
    return [[(record, data_uri(sheet(pictures[group], STRIP))) for record, pictures in rows] for group in groups]


def _sweeps(run: Run) -> list[tuple[PassRecord, list[tuple[str, str]]]]:
    """Return for every pass that hears a condition a picture per coordinate, with what its columns run over."""
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
    """Return for every de-biasing pass its record, the solved moments, and a row per class."""
    names = {label: f"{run.metrics.attribute}:{label}" for label in run.metrics.target}
    passes = zip(run.metrics.passes, run.material, strict=True)
    return [
        (record, material.moments, [_multiplier(material.moments, material.beta, *name) for name in names.items()])
        for record, material in passes
        if material.moments is not None
    ]


def _multiplier(moments: Mapping[str, Any], final: Mapping[str, float], label: str, name: str) -> dict[str, Any]:
    """Return what is shown of one class's multiplier; None where there is no interval or no training moved it."""
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
    """Return a row per name of a mapping in the records, with a value or None for every pass.

    Names come in the order of the glossary, since a file on disk has them in another; unknown ones come last.
    """
    columns: list[Mapping[str, Any]] = [getattr(record, field) for record in metrics.passes]
    named = {name: WORK.get(name, name) for column in columns for name in column}
    known = list(MEANINGS)
    order = sorted(named, key=lambda name: known.index(named[name]) if named[name] in known else len(known))
    return [(named[name], [column.get(name) for column in columns]) for name in order]

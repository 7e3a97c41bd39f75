"""The report as one HTML file that needs nothing but itself: no script, no font, no address of another site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from promptgen.metrics.bias import noise_floor_kl, share_difference
from promptgen.metrics.estimate import Estimate
from promptgen.reporting import figures, formats, words
from promptgen.reporting.history import Curve, History, column, columns
from promptgen.reporting.pictures import data_uri, sheet
from promptgen.reporting.records import SOURCES, Interval, Metrics, PassRecord, Run, Source

HERO_COLUMNS, HERO_TILES = 4, 16
STRIP = 8  # latents side by side; as many as still show faces on a phone
FILTERS = ("count", "duration", "number", "number_range", "percent", "percent_range", "points", "wanted")
MOST_OPEN_ROWS = 12  # a longer table starts folded


@dataclass(frozen=True)
class Panel:
    """A figure with what it says.

    Args:
        title: what is drawn.
        meaning: how to read it, one sentence.
        svg: the drawing.
        alternative: the drawing's content in words, for those who cannot see it.
        labels: names of the curves, in the order of the series colours; empty when the marks are the sources.
    """

    title: str
    meaning: str
    svg: str
    alternative: str
    labels: Sequence[str] = ()


def render(run: Run) -> str:
    """Return the page; equal runs make equal bytes."""
    environment = Environment(
        loader=PackageLoader("promptgen.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(formats, name) for name in FILTERS})
    metrics = run.metrics
    return environment.get_template("report.html.j2").render(
        run=run,
        metrics=metrics,
        settings=run.settings,
        sources=_sources(metrics),
        answer=words.answer(run),
        context=words.context(run),
        warnings=words.warnings(run),
        target=words.target_words(metrics),
        headline=words.headline_label(metrics),
        hero=_hero(run),
        strips=_strips(run),
        latents=min(len(material.tiles) for material in run.material),
        bias_panels=_bias_panels(run),
        control_panels=_control_panels(run),
        training=_training(run),
        multipliers=_multipliers(run),
        seconds=_table(metrics, "seconds"),
        evaluations=_table(metrics, "generator_evaluations"),
        floors=[noise_floor_kl(len(metrics.target), record.n) for record in metrics.passes],
        changes=_changes(metrics),
        on_target=[words.on_target(metrics, record) for record in metrics.passes],
        words=words,
        most_open_rows=MOST_OPEN_ROWS,
    )


def _sources(metrics: Metrics) -> list[Source]:
    """Return who counted in at least one pass."""
    return [source for source in SOURCES if any(record.shares.get(source) for record in metrics.passes)]


def _changes(metrics: Metrics) -> list[Estimate | None]:
    """Return for every pass how the headline share differs from the pass before; None for the first."""
    label = words.headline_label(metrics)
    shares = [record.share(record.counter, label) for record in metrics.passes]
    known = [share.known if share else None for share in shares]
    return [None, *(share_difference(after, before) if before and after else None for before, after in pairwise(known))]


def _hero(run: Run) -> list[dict[str, Any]]:
    """Return the passes of the opening picture: the first, the control, the last; with some of their samples."""
    passes = run.metrics.passes
    control = [index for index, record in enumerate(passes) if record.kind == "control"]
    chosen = sorted({0, *control[:1], len(passes) - 1})
    return [
        {"record": passes[index], "image": data_uri(sheet(run.material[index].tiles[:HERO_TILES], HERO_COLUMNS))}
        for index in chosen
    ]


def _strips(run: Run) -> list[dict[str, Any]]:
    """Return groups of `STRIP` latents, each with one row of images per pass, so that a face stays in its column."""
    latents = min(len(material.tiles) for material in run.material)
    return [
        {
            "first": start + 1,
            "last": min(start + STRIP, latents),
            "rows": [
                (record, data_uri(sheet(material.tiles[start : min(start + STRIP, latents)], STRIP)))
                for record, material in zip(run.metrics.passes, run.material, strict=True)
            ],
        }
        for start in range(0, latents, STRIP)
    ]


def _bias_panels(run: Run) -> list[Panel]:
    """Return the shares of each class (of one, when there are but two) and the distance to the target, by pass."""
    metrics = run.metrics
    labels = [words.headline_label(metrics)] if len(metrics.target) == 2 else list(metrics.target)
    panels = [
        _pass_panel(
            metrics,
            f"share-{index}",
            _title(words.class_name(metrics.attribute, label)),
            "A whisker that crosses the dashed line cannot be told from the target.",
            {source: [record.share(source, label) for record in metrics.passes] for source in _sources(metrics)},
            target=metrics.target[label],
        )
        for index, label in enumerate(labels)
    ]
    return [
        *panels,
        _pass_panel(
            metrics,
            "kl",
            "Distance to the target, KL in nats",
            "0 is the target itself; the dotted line is what chance alone would show with as many samples.",
            {source: [record.kl.get(source) for record in metrics.passes] for source in _sources(metrics)},
            floor=[noise_floor_kl(len(metrics.target), record.n) for record in metrics.passes],
            shares=False,
        ),
    ]


def _control_panels(run: Run) -> list[Panel]:
    """Return what was asked for, and what else was watched, by pass."""
    metrics = run.metrics
    shares = [words.control_shares(record) for record in metrics.passes]
    others = [words.other_measures(record) for record in metrics.passes]
    return [
        *(
            _pass_panel(
                metrics,
                f"control-{index}",
                _title(words.class_name(*key)),
                "What the control asked for; de-biasing should not lose it again.",
                {source: [entry.get(key, {}).get(source) for entry in shares] for source in SOURCES},
            )
            for index, key in enumerate(_keys(shares))
        ),
        *(
            _pass_panel(
                metrics,
                f"other-{index}",
                _title(name.replace(".", " ")),
                "Mean distance between the identities of two samples; a fall would mean that faces repeat."
                if name == "identity.diversity"
                else "A further measure of the control.",
                {"judge": [entry.get(name) for entry in others]},
                shares=False,
            )
            for index, name in enumerate(_keys(others))
        ),
    ]


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _keys(tables: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Return every key of the tables once, in order of appearance."""
    return list(dict.fromkeys(key for table in tables for key in table))


def _pass_panel(
    metrics: Metrics,
    name: str,
    title: str,
    meaning: str,
    series: Mapping[Source, Sequence[Interval | None]],
    *,
    target: float | None = None,
    floor: Sequence[float] | None = None,
    shares: bool = True,
) -> Panel:
    ticks = [(str(record.number), words.pass_kind(record)) for record in metrics.passes]
    drawing = figures.pass_panel(name, ticks, series, target=target, floor=floor, shares=shares)
    return Panel(title, meaning, drawing, f"{title}, by pass; the numbers are in the tables.")


def _training(run: Run) -> list[dict[str, Any]]:
    """Return the curves of every pass that was trained."""
    return [
        {"record": record, "panels": _curves(run.metrics, record, material.history)}
        for record, material in zip(run.metrics.passes, run.material, strict=True)
        if material.history
    ]


def _curves(metrics: Metrics, record: PassRecord, history: History) -> list[Panel]:
    """Return the loss, the held-out fit, and then what was asked for: the energies, or the shares and multipliers."""
    loss = {"training": column(history, "loss"), "held out": column(history, "validation/loss")}
    ess = {"held out": column(history, "validation/ess_fraction")}
    energies, shares, beta = (columns(history, prefix) for prefix in ("energy/", "share/", "beta/"))
    panels: list[tuple[str, str, str, dict[str, Curve], Mapping[str, float]]] = [
        ("loss", "Loss, nats", "Lower is closer to what was asked for.", loss, {}),
        (
            "ess",
            "Effective samples",
            "How much of a sample the exact distribution would keep; more is better.",
            ess,
            {},
        ),
    ]
    if record.kind == "debias":
        panels += [
            (
                "share",
                "Shares while training",
                "In the batches themselves; dashed is the target.",
                shares,
                metrics.target,
            ),
            ("beta", "Multipliers, nats", "How hard each class is pushed; still when the target is met.", beta, {}),
        ]
    else:
        panels += [("energy", "Energies, nats", "Mean of each thing asked for; lower is more of it.", energies, {})]
    return [
        Panel(
            title,
            meaning,
            figures.curve_panel(f"train-{record.number}-{name}", curves, targets, shares=name in ("ess", "share")),
            f"{title}, over {len(history)} training steps.",
            list(curves) if len(curves) > 1 else [],
        )
        for name, title, meaning, curves, targets in panels
        if any(curves.values())
    ]


def _multipliers(run: Run) -> list[tuple[PassRecord, Mapping[str, Any], list[dict[str, Any]]]]:
    """Return for every de-biasing pass its record, the solved moments, and a row per class."""
    found = []
    for record, material in zip(run.metrics.passes, run.material, strict=True):
        if material.moments is None:
            continue
        fit = material.moments
        rows = [
            {
                "label": name.rpartition(":")[2],
                "observed": fit["observed"][name],
                "target": fit["target"][name],
                "solved": solved,
                "low": (fit["beta_low"] or {}).get(name),
                "high": (fit["beta_high"] or {}).get(name),
                "final": material.beta.get(name),
            }
            for name, solved in fit["beta"].items()
        ]
        found.append((record, fit, rows))
    return found


def _table(metrics: Metrics, field: str) -> list[tuple[str, list[Any]]]:
    """Return a row per name of a mapping in the records, with a value or None for every pass."""
    columns: list[Mapping[str, Any]] = [getattr(record, field) for record in metrics.passes]
    return [(name, [column.get(name) for column in columns]) for name in _keys(columns)]

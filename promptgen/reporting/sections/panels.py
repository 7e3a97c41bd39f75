"""The figures of the report, each with a title and a sentence of explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isnan, nan
from typing import Any

from promptgen.records import SOURCES, Distance, Figure, Interval, Metrics, PassRecord, requested_shares
from promptgen.reporting.drawing import figures
from promptgen.reporting.drawing.history import Curve, History, column, columns
from promptgen.reporting.sections import names as words
from promptgen.reporting.sections.control import measure_words, other_measures
from promptgen.reporting.sections.quality import quality_series
from promptgen.reporting.sections.watched import WatchedTable
from promptgen.reporting.text.formats import class_name
from promptgen.reporting.text.glossary import Measure


@dataclass(frozen=True)
class Panel:
    """A figure and its explanation.

    Args:
        title: title of the figure.
        meaning: how to read it, in one sentence.
        svg: the drawing.
        alternative: text alternative of the drawing.
        labels: names of the curves, in the order of the series colours; empty if the marks are the sources.
    """

    title: str
    meaning: str
    svg: str
    alternative: str
    labels: Sequence[str] = ()


def bias_panels(metrics: Metrics) -> list[Panel]:
    """Return the shares of each class (of one class if there are only two) and the distance to the target, by pass."""
    labels = [words.headline_label(metrics)] if len(metrics.target) == 2 else list(metrics.target)
    panels = [
        _pass_panel(
            metrics,
            f"share-{index}",
            _title(class_name(metrics.attribute, label)),
            "A share whose interval crosses the dashed line cannot be distinguished from the target.",
            {source: [record.share(source, label) for record in metrics.passes] for source in metrics.sources},
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
            "0 is the target itself. Dotted: value expected by chance alone with as many samples.",
            {
                source: [record.by[source].kl if source in record.by else None for record in metrics.passes]
                for source in metrics.sources
            },
            floor=[record.chance["kl"] for record in metrics.passes],
            shares=False,
        ),
    ]


def control_panels(metrics: Metrics) -> list[Panel]:
    """Return the shares of the request and the other measures of the control, by pass, without diversity."""
    shares = [requested_shares(record.control) for record in metrics.passes]
    others = [other_measures(record) for record in metrics.passes]
    return [
        *(
            _pass_panel(
                metrics,
                f"control-{index}",
                _title(class_name(*key)),
                "The request of the control. De-biasing should not lower it.",
                {source: [entry.get(key, {}).get(source) for entry in shares] for source in SOURCES},
            )
            for index, key in enumerate(_keys(shares))
        ),
        *(
            _pass_panel(
                metrics,
                f"other-{index}",
                *measure_words(name),
                {"measure": [entry.get(name) for entry in others]},
                shares=False,
            )
            for index, name in enumerate(_keys(others))
        ),
    ]


def quality_panels(metrics: Metrics) -> list[Panel]:
    """Return a panel for every drawn measure of quality and variety that was measured."""
    return [
        _quality_panel(metrics, measure, figures)
        for measure, figures in quality_series(metrics)
        if measure.drawn and any(figures)
    ]


def _quality_panel(metrics: Metrics, measure: Measure, figures: Sequence[Figure | None]) -> Panel:
    series = [_interval(figure) if figure else None for figure in figures]
    floor = [figure.chance if isinstance(figure, Distance) else nan for figure in figures]
    drawn, dotted = (None, "") if all(map(isnan, floor)) else (floor, " Dotted: expected by chance alone.")
    name = measure.title.lower().replace(" ", "-")
    meaning = f"{measure.meaning}{dotted}"
    return _pass_panel(
        metrics, name, measure.title, meaning, {"measure": series}, floor=drawn, shares=measure.unit == "share"
    )


def _interval(figure: Figure) -> Interval:
    """Return a figure as an interval to draw; one without an interval has no whiskers."""
    if isinstance(figure, Interval):
        return figure
    return Interval(value=figure.value, low=figure.value, high=figure.value)


def watched_panel(metrics: Metrics, index: int, table: WatchedTable) -> Panel:
    """Return the shares of a watched attribute: one of two classes by all sources, or the most changed of many."""
    name, account = f"watched-{index}", table.accounts[0]
    if table.is_pair:
        title = _title(class_name(table.attribute, table.headline))
        by_source: figures.Series = {reader.source: reader.shares[table.headline] for reader in table.accounts}
        return _pass_panel(metrics, name, title, table.sentence, by_source)
    drawn = table.most_moved(len(figures.SERIES))
    series = {label: account.shares[label] for label in drawn}
    marks = figures.label_marks(drawn)
    panel = _pass_panel(metrics, name, _title(table.attribute), table.sentence, series, marks=marks)
    return replace(panel, labels=drawn)


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _keys(tables: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Return every key of the tables once, in order of appearance."""
    return list(dict.fromkeys(key for table in tables for key in table))


def _pass_panel(metrics: Metrics, name: str, title: str, meaning: str, series: figures.Series, **options: Any) -> Panel:
    ticks = [(str(record.number), words.pass_kind(record)) for record in metrics.passes]
    svg = figures.pass_panel(name, ticks, series, **options)
    return Panel(title, meaning, svg, f"{title}, by pass; the numbers are in the tables.")


def training_panels(metrics: Metrics, record: PassRecord, history: History) -> list[Panel]:
    """Return the loss, and either held-out fit and energies (control) or shares and multipliers (de-biasing)."""
    draw = partial(_curve_panel, f"train-{record.number}")
    loss = {"training": column(history, "loss"), "held out": column(history, "validation/loss")}
    if record.kind == "debias":
        shares, beta = (_in_order(metrics, columns(history, prefix)) for prefix in ("share/", "beta/"))
        return [
            *draw(
                "loss", "Loss, nats", "Comparable only once the multipliers are constant; lower is then better.", loss
            ),
            *draw("share", "Shares during training", "Dashed: the target.", shares, metrics.target),
            *draw("beta", "Multipliers, nats", "How strongly each class is favoured.", beta),
        ]
    ess, energies = {"held out": column(history, "validation/ess_fraction")}, columns(history, "energy/")
    return [
        *draw("loss", "Loss, nats", "Lower is closer to the request.", loss),
        *draw("ess", "Effective samples", "Fraction of the sample that remains after weighting it to be exact.", ess),
        *draw("energy", "Energies, nats", "Mean of each energy; lower meets its request better.", energies),
    ]


def _in_order(metrics: Metrics, curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves in the order of the target's classes; a history on disk is sorted otherwise."""
    return {label: curves[label] for label in metrics.target if label in curves}


def _curve_panel(
    prefix: str,
    name: str,
    title: str,
    meaning: str,
    curves: Mapping[str, Curve],
    targets: Mapping[str, float] | None = None,
) -> list[Panel]:
    """Return the panel of the curves that have a value, or nothing if none has."""
    drawn = {label: curve for label, curve in curves.items() if curve}
    if not drawn:
        return []
    svg = figures.curve_panel(f"{prefix}-{name}", drawn, targets, shares=name in ("ess", "share"))
    alternative = f"{title}, up to training step {max(curve[-1][0] for curve in drawn.values())}."
    return [Panel(title, meaning, svg, alternative, list(drawn) if len(drawn) > 1 else [])]

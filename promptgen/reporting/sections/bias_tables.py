"""The tables on the attribute to de-bias: passes, shares by each method, and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptgen.labels import PRODUCT
from promptgen.records import SOURCES, AttributeChange, Count, Difference, Interval, Metrics, PassRecord, Source
from promptgen.reporting.sections.names import headline_label, pass_words
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.glossary import DISTANCES

Estimator = Literal["corrected", "mean probability"]
"""How a share is estimated other than by counting labels."""


@dataclass(frozen=True)
class PassRow:
    """A row of the table of passes.

    Attributes:
        count: the count of a pass, or the confirming count.
        title: the source of its samples.
        share: share of the headline class.
        change: change of that share from the previous pass; None for the first pass and for the confirming count.
        on_target: whether every interval contains its target.
        seconds: time of its steps; None for the confirming count.
    """

    count: Count
    title: str
    share: Interval
    change: Difference | None
    on_target: bool
    seconds: float | None


@dataclass(frozen=True)
class DistanceRow:
    """A distance of a count to the target, by every source.

    Attributes:
        count: the count.
        title: which distance.
        by: the distance by source.
        chance: value expected by chance alone.
        change: change from the previous pass, by the judge; None as for `PassRow`.
    """

    count: Count
    title: str
    by: Mapping[Source, Interval]
    chance: float
    change: Difference | None


@dataclass(frozen=True)
class WithinRow:
    """A share within one label of what the generator draws, by every source.

    Attributes:
        count: the count.
        drawn: that label, such as a prompt.
        label: label of the attribute whose share it is.
        target: target share within it.
        by: the share by source.
    """

    count: Count
    drawn: str
    label: str
    target: float
    by: Mapping[Source, Interval]


@dataclass(frozen=True)
class IndirectRow:
    """Shares or distances of a count that were estimated other than by counting labels.

    Attributes:
        count: the count.
        title: a class, or a distance to the target.
        cells: one per column of `indirect_sources`; None where the source has no such number.
        are_shares: whether the numbers are shares.
    """

    count: Count
    title: str
    cells: Sequence[Interval | None]
    are_shares: bool


def pass_rows(metrics: Metrics, settings: Settings) -> list[PassRow]:
    """Return a row per pass, and one for the confirming count."""
    label, rows = headline_label(metrics), []
    for count in metrics.counts:
        title, seconds, change = "Confirming count, after the loop ended", None, _change_from_before(count)
        if isinstance(count, PassRecord):
            title, seconds = pass_words(count, settings), sum(count.seconds.values())
        share_change = change.shares[label] if change else None
        rows.append(PassRow(count, title, count.trusted.shares[label], share_change, count.contains_target, seconds))
    return rows


def distance_rows(metrics: Metrics) -> list[DistanceRow]:
    """Return a row per count and distance."""
    rows = []
    for count in metrics.counts:
        change = _change_from_before(count)
        for name, title in DISTANCES.items():
            by = {source: reader.distances[name] for source, reader in count.by.items()}
            moved = change.distances[name] if change else None
            rows.append(DistanceRow(count, title, by, count.chance[name], moved))
    return rows


def _change_from_before(count: Count) -> AttributeChange | None:
    """Return the change of the judge's count from the previous pass; None for the confirming count."""
    if not isinstance(count, PassRecord):
        return None
    change = count.change(since=count.number - 1)
    return change.by[count.source] if change else None


def within_rows(metrics: Metrics) -> list[WithinRow]:
    """Return a row per count, drawn label and label of the attribute; none if nothing drawn is part of the target."""
    rows, order = [], list(metrics.target)
    for count in metrics.counts:
        by = {source: reader.within for source, reader in count.by.items() if reader.within}
        pairs = [(drawn, label) for drawn, shares in (count.trusted.within or {}).items() for label in shares]
        goals = {pair: count.target[PRODUCT.join(pair)] for pair in pairs}
        for drawn, label in sorted(pairs, key=lambda pair: order.index(PRODUCT.join(pair))):
            goal = goals[drawn, label] / sum(share for (other, _), share in goals.items() if other == drawn)
            cells = {source: within[drawn][label] for source, within in by.items() if drawn in within}
            rows.append(WithinRow(count, drawn, label, goal, cells))
    return rows


def indirect_sources(metrics: Metrics) -> list[tuple[Source, Estimator]]:
    """Return the sources and methods, other than counting labels, that have a share in at least one count."""
    readers = {source: [count.by[source] for count in metrics.counts if source in count.by] for source in SOURCES}
    corrected: list[tuple[Source, Estimator]] = [
        (source, "corrected") for source in SOURCES if any(reader.corrected for reader in readers[source])
    ]
    soft: list[tuple[Source, Estimator]] = [
        (source, "mean probability") for source in SOURCES if any(reader.soft for reader in readers[source])
    ]
    return [*corrected, *soft]


def indirect_rows(metrics: Metrics) -> list[IndirectRow]:
    """Return a row per count and class, and one per distance where mean probabilities have them."""
    columns, rows = indirect_sources(metrics), []
    for count in metrics.counts:
        for label in metrics.target:
            cells = [_indirect_share(count, source, estimator, label) for source, estimator in columns]
            rows.append(IndirectRow(count, label, cells, are_shares=True))
        soft = {source: reader.soft for source, reader in count.by.items() if reader.soft}
        for name, title in DISTANCES.items() if soft else ():
            cells = [
                soft[source].distances[name] if estimator == "mean probability" and source in soft else None
                for source, estimator in columns
            ]
            rows.append(IndirectRow(count, title, cells, are_shares=False))
    return rows


def _indirect_share(count: Count, source: Source, estimator: Estimator, label: str) -> Interval | None:
    """Return the share of a class by one source and method."""
    reader = count.by.get(source)
    if reader is None:
        return None
    if estimator == "corrected":
        return (reader.corrected or {}).get(label)
    return reader.soft.shares[label] if reader.soft else None

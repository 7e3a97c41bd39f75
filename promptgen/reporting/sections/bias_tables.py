"""The tables on the attribute to de-bias: pass by pass, every way of counting its shares, every distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptgen.metrics.distances import noise_floor_kl
from promptgen.metrics.estimate import Difference
from promptgen.records import Bias, Count, Interval, Metrics, PassRecord, Source
from promptgen.reporting.changes import distance_change, share_changes, tallies
from promptgen.reporting.sections.names import headline_label, pass_words
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.glossary import DISTANCES

Way = Literal["corrected", "mean probability"]
"""How a share is told without counting labels."""


@dataclass(frozen=True)
class PassRow:
    """A count in short.

    Attributes:
        count: the count; that after the loop, too.
        title: what its samples were made by.
        share: of the headline class.
        change: of that share from the pass before; None for the first pass, and for the count after the loop.
        on_target: whether every interval contains its target.
        seconds: how long its steps took; None for the count after the loop.
    """

    count: Count
    title: str
    share: Interval
    change: Difference | None
    on_target: bool
    seconds: float | None


@dataclass(frozen=True)
class DistanceRow:
    """A distance of a count to the target, by everyone who counted.

    Attributes:
        count: the count.
        title: which distance.
        by: the distance by who counted.
        chance: what chance alone would show.
        change: from the pass before, by the one whose count decides; None as of `PassRow`.
    """

    count: Count
    title: str
    by: Mapping[Source, Interval | None]
    chance: float | None
    change: Difference | None


@dataclass(frozen=True)
class IndirectRow:
    """What was told of a count without counting labels.

    Attributes:
        count: the count.
        title: a class, or a distance to the target.
        cells: one per column of `indirect_sources`; None where that one has no such number.
        are_shares: whether the numbers are shares.
    """

    count: Count
    title: str
    cells: Sequence[Interval | None]
    are_shares: bool


def pass_rows(metrics: Metrics, settings: Settings) -> list[PassRow]:
    """Return a row per pass, and one for the count after the loop."""
    label, rows = headline_label(metrics), []
    for before, count in _with_before(metrics):
        title, seconds, change = "Counted again, after the loop had ended", None, None
        if isinstance(count, PassRecord):
            title, seconds = pass_words(count, settings), sum(count.seconds.values())
        if before:
            change = share_changes(*tallies(before, count), settings).get(label)
        rows.append(PassRow(count, title, count.counted[label], change, count.contains(metrics.target), seconds))
    return rows


def distance_rows(metrics: Metrics, settings: Settings) -> list[DistanceRow]:
    """Return a row per count and distance; passes of older runs have but the KL."""
    rows = []
    for before, count in _with_before(metrics):
        by_name = {"kl": count.kl} | {
            name: {source: distances.get(name) for source, distances in count.distances.items()}
            for name in DISTANCES
            if name != "kl" and count.distances
        }
        for name, by in by_name.items():
            chance = count.chance.get(name, noise_floor_kl(len(metrics.target), count.n) if name == "kl" else None)
            change = distance_change(*tallies(before, count), name, metrics.target, settings) if before else None
            rows.append(DistanceRow(count, DISTANCES[name], by, chance, change))
    return rows


def _with_before(metrics: Metrics) -> list[tuple[PassRecord | None, Count]]:
    """Return every count with the pass before it; the count after the loop is of no pass of its own."""
    again = [(None, metrics.confirmation)] if metrics.confirmation else []
    return [*zip([None, *metrics.passes], metrics.passes, strict=False), *again]


def indirect_sources(metrics: Metrics) -> list[tuple[Source, Way]]:
    """Return the ways of telling shares without counting labels that some count has, each with whose they are."""
    ways: dict[Way, list[Source]] = {"corrected": metrics.corrected, "mean probability": metrics.soft}
    return [(source, way) for way, sources in ways.items() for source in sources]


def indirect_rows(metrics: Metrics) -> list[IndirectRow]:
    """Return a row per count and class, and one per distance where mean probabilities have them."""
    columns, rows = indirect_sources(metrics), []
    for count in metrics.counts:
        for label in metrics.target:
            cells = [_indirect_share(count, source, way, label) for source, way in columns]
            rows.append(IndirectRow(count, label, cells, are_shares=True))
        for name, title in DISTANCES.items() if _soft(count) else ():
            cells = [
                getattr(_soft(count).get(source), name, None) if way == "mean probability" else None
                for source, way in columns
            ]
            rows.append(IndirectRow(count, title, cells, are_shares=False))
    return rows


def _indirect_share(count: Count, source: Source, way: Way, label: str) -> Interval | None:
    if way == "corrected":
        return count.corrected.get(source, {}).get(label)
    bias = _soft(count).get(source)
    return bias.shares[label] if bias else None


def _soft(count: Count) -> Mapping[Source, Bias]:
    return count.soft if isinstance(count, PassRecord) else {}

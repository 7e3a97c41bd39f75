"""What else changed: attributes that no flow was trained to move, in a sentence and a table each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from promptgen.metrics.estimate import Difference
from promptgen.perception.labels import PRODUCT
from promptgen.reporting.changes import Tally, any_change, share_changes, tally
from promptgen.reporting.control import control_shares
from promptgen.reporting.formats import class_name, listing, p_value, percent, points, wanted
from promptgen.reporting.records import SOURCES, Interval, Metrics, PassRecord, Source, Watched
from promptgen.reporting.settings import Settings

TRUSTED: Sequence[Source] = ("judge", "classifier", "truth")
"""Who counts, the one whose word is taken first."""


@dataclass(frozen=True)
class Account:
    """What one who counts has seen of an attribute, pass by pass; None where it did not look.

    Attributes:
        source: who counted.
        shares: by label, in the order of the target.
        distances: to the target, by name.
        since_before: p-value of no share having changed since the pass before.
        since_first: the same since the first pass.
    """

    source: Source
    shares: dict[str, list[Interval | None]]
    distances: dict[str, list[Interval | None]]
    since_before: list[float | None]
    since_first: list[float | None]


@dataclass(frozen=True)
class WatchedTable:
    """An attribute that nobody moves.

    Attributes:
        attribute: attribute or product.
        sentence: what became of it, in plain words.
        target: what it is held against.
        accounts: by everyone who counted, the most trusted one first.
        chance: what each distance would show by chance alone, by its name, pass by pass.
    """

    attribute: str
    sentence: str
    target: dict[str, float]
    accounts: list[Account]
    chance: dict[str, list[float | None]]


def watched_tables(metrics: Metrics, settings: Settings) -> list[WatchedTable]:
    """Return everything that was watched in at least one pass."""
    attributes = dict.fromkeys(name for record in metrics.passes for name in record.watched)
    return [_table(metrics, settings, attribute) for attribute in attributes]


def _table(metrics: Metrics, settings: Settings, attribute: str) -> WatchedTable:
    seen = [record.watched.get(attribute) for record in metrics.passes]
    target = next(each.target for each in seen if each)
    sources = [source for source in TRUSTED if any(each and source in each.by for each in seen)]
    return WatchedTable(
        attribute=attribute,
        sentence=sentence(metrics, settings, attribute),
        target=target,
        accounts=[_account(metrics.passes, settings, seen, source) for source in sources],
        chance={name: [each.chance.get(name) if each else None for each in seen] for name in _names(seen)},
    )


def _names(seen: Sequence[Watched | None]) -> list[str]:
    return list(dict.fromkeys(name for each in seen if each for name in each.chance))


def _account(
    passes: Sequence[PassRecord], settings: Settings, seen: Sequence[Watched | None], source: Source
) -> Account:
    biases = [each.by.get(source) if each else None for each in seen]
    target = next(each.target for each in seen if each)
    tallies = [tally(bias.shares if bias else None, record.n) for record, bias in zip(passes, biases, strict=True)]
    return Account(
        source=source,
        shares={label: [bias.shares[label] if bias else None for bias in biases] for label in target},
        distances={name: [getattr(bias, name) if bias else None for bias in biases] for name in _names(seen)},
        since_before=[None, *(any_change(*pair, settings) for pair in pairwise(tallies))],
        since_first=[None, *(any_change(tallies[0], each, settings) for each in tallies[1:])],
    )


def sentence(metrics: Metrics, settings: Settings, attribute: str) -> str:
    """Return what became of an attribute from the first pass in which it was watched to the last one."""
    watching = [record for record in metrics.passes if attribute in record.watched]
    first, last = watching[0], watching[-1]
    source = next(source for source in TRUSTED if source in last.watched[attribute].by)
    before, after = (_tally(record, attribute, source) for record in (first, last))
    if first is last or not before:
        return _only_pass(last, attribute, source)
    moved = share_changes(before, after, settings)
    label = max(moved, key=lambda name: (abs(moved[name].value), list(moved).index(name)))
    p = any_change(before, after, settings)
    assert p is not None  # both were counted
    shares = [record.watched[attribute].by[source].shares[label].value for record in (first, last)]
    way = f"{percent(shares[0])} → {percent(shares[1])} {class_name(attribute, label)}"
    if p > 1 - settings.confidence:
        return f"{way}; no more than chance explains ({p_value(p)}). {_range(moved[label])}"
    most = "changed along with it" if len(moved) == 2 else "changed along with it, this class the most"
    return f"{way}; {most} ({p_value(p)}). {_range(moved[label])}{_on_purpose(metrics, attribute)}"


def _tally(record: PassRecord, attribute: str, source: Source) -> Tally:
    bias = record.watched[attribute].by.get(source)
    return tally(bias.shares if bias else None, record.n)


def _range(change: Difference) -> str:
    return f"The change lies between {points(change.low)} and {points(change.high)} points."


def _only_pass(record: PassRecord, attribute: str, source: Source) -> str:
    """Return how an attribute stands where there is no other pass to compare with."""
    shares, target = record.watched[attribute].by[source].shares, record.watched[attribute].target
    label = max(target, key=lambda name: abs(shares[name].value - target[name]))
    found = f"{percent(shares[label].value)} {class_name(attribute, label)}"
    return f"{found}, held against {wanted(target[label])}; there is no other pass to compare with."


def _on_purpose(metrics: Metrics, attribute: str) -> str:
    """Return what of a watched attribute was moved on purpose, as a sentence to put behind; nothing of nothing."""
    asked = {name for record in metrics.passes for name, _ in control_shares(record)}
    steered = {*metrics.attribute.split(PRODUCT), *asked}
    parts = [factor for factor in attribute.split(PRODUCT) if factor in steered]
    return f" Of it, {listing(parts)} was moved on purpose." if parts else ""


def counters(tables: Sequence[WatchedTable]) -> list[Source]:
    """Return everyone who counted something that was watched."""
    return [source for source in SOURCES if any(source == each.source for table in tables for each in table.accounts)]


def held_against(target: Mapping[str, float]) -> str:
    """Return what the distances of a watched attribute are to."""
    equal = max(target.values()) - min(target.values()) < 1e-9
    return f"equal shares of {wanted(next(iter(target.values())))}" if equal else "the shares of the Target column"

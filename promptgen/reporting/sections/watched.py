"""Watched attributes, which no flow was trained to change: a sentence and a table each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptgen.labels import PRODUCT
from promptgen.records import (
    TRUSTED,
    AttributeChange,
    Difference,
    Interval,
    Metrics,
    PassRecord,
    Source,
    requested_shares,
)
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, listing, p_value, percent, points, wanted
from promptgen.reporting.text.glossary import DISTANCES


@dataclass(frozen=True)
class Account:
    """The counts of an attribute by one source, pass by pass; None where it has none.

    Attributes:
        source: source of the counts.
        shares: by label, in the order of the target.
        distances: to the target, by name.
        since_before: p-value of the hypothesis that no share changed since the previous pass.
        since_first: the same since the first pass.
        moved: change of each share from the first pass to the last; empty if one of them was not counted.
    """

    source: Source
    shares: dict[str, list[Interval | None]]
    distances: dict[str, list[Interval | None]]
    since_before: list[float | None]
    since_first: list[float | None]
    moved: dict[str, Difference]


@dataclass(frozen=True)
class WatchedTable:
    """The figures of a watched attribute.

    Attributes:
        attribute: attribute or product.
        target: reference shares of its distances.
        accounts: counts by source, the most trusted first.
        chance: value of each distance expected by chance alone, by its name, pass by pass.
        sentence: whether it changed, in plain words.
    """

    attribute: str
    target: dict[str, float]
    accounts: list[Account]
    chance: dict[str, list[float | None]]
    sentence: str

    @property
    def is_pair(self) -> bool:
        """Whether there are only two classes, so that one share determines both."""
        return len(self.target) == 2

    @property
    def headline(self) -> str:
        """The class that changed most; of two classes, the last one."""
        return self.most_moved(1)[0]

    def most_moved(self, n: int) -> list[str]:
        """Return the `n` classes that changed most, in the order of the target."""
        return most_moved(self.target, self.accounts[0], n)


def watched_tables(metrics: Metrics, settings: Settings) -> list[WatchedTable]:
    """Return a table per attribute that was watched in at least one pass."""
    attributes = dict.fromkeys(name for record in metrics.passes for name in record.watched)
    return [_table(metrics, settings, attribute) for attribute in attributes]


def _table(metrics: Metrics, settings: Settings, attribute: str) -> WatchedTable:
    biases = [record.watched.get(attribute) for record in metrics.passes]
    measured = [bias for bias in biases if bias]
    sources = [source for source in TRUSTED if any(source in bias.by for bias in measured)]
    target = measured[0].target
    accounts = [_account(metrics, attribute, list(target), source) for source in sources]
    return WatchedTable(
        attribute=attribute,
        target=target,
        accounts=accounts,
        chance={name: [bias.chance[name] if bias else None for bias in biases] for name in DISTANCES},
        sentence=_sentence(metrics, settings, attribute, target, accounts[0]),
    )


def _account(metrics: Metrics, attribute: str, labels: Sequence[str], source: Source) -> Account:
    biases = [record.watched.get(attribute) for record in metrics.passes]
    readers = [bias.by.get(source) if bias else None for bias in biases]

    def change(record: PassRecord, since: int) -> AttributeChange | None:
        changes = record.change(since)
        return changes.watched.get(attribute, {}).get(source) if changes else None

    first = metrics.passes[0].number
    before = [change(record, record.number - 1) for record in metrics.passes]
    from_first = [change(record, first) for record in metrics.passes]
    return Account(
        source=source,
        shares={label: [reader.shares[label] if reader else None for reader in readers] for label in labels},
        distances={name: [reader.distances[name] if reader else None for reader in readers] for name in DISTANCES},
        since_before=[test.p_value if test else None for test in before],
        since_first=[test.p_value if test else None for test in from_first],
        moved=from_first[-1].shares if from_first[-1] else {},
    )


def most_moved(target: Mapping[str, float], account: Account, n: int) -> list[str]:
    """Return the `n` classes whose shares changed most; without a change, those furthest from the target."""

    def distance(label: str) -> float:
        if account.moved:
            return abs(account.moved[label].value)
        return max(abs(share.value - target[label]) for share in account.shares[label] if share)

    labels = list(target)
    chosen = sorted(labels, key=lambda label: (distance(label), labels.index(label)))[-n:]
    return [label for label in labels if label in chosen]


def _sentence(
    metrics: Metrics, settings: Settings, attribute: str, target: Mapping[str, float], account: Account
) -> str:
    """Return whether an attribute changed from the first pass to the last, in a sentence."""
    label = most_moved(target, account, 1)[0]
    name, shares = class_name(attribute, label), [interval for interval in account.shares[label] if interval]
    p = account.since_first[-1]
    if p is None:
        share = f"{name} {percent(shares[-1].value)}, reference {wanted(target[label])}"
        return f"{share[:1].upper()}{share[1:]}. There are not two passes to compare."
    shift = f"{name} {percent(shares[0].value)}\u00a0→\u00a0{percent(shares[-1].value)}"
    change = account.moved[label]
    pair = len(target) == 2
    all_classes, one_class = ("", "") if pair else (" over all classes", "this class ")
    numbers = f"({p_value(p)}{all_classes}; {one_class}{points(change.low)} to {points(change.high)} points)"
    if p > 1 - settings.confidence:
        return f"No change beyond chance: {shift} {numbers}."
    most = "" if pair else ", the largest change of its classes"
    return f"Changed: {shift}{most} {numbers}.{_on_purpose(metrics, attribute)}"


def _on_purpose(metrics: Metrics, attribute: str) -> str:
    """Return a sentence naming the factors of a watched attribute that flows moved on purpose; empty if none."""
    asked = {name for record in metrics.passes for name, _ in requested_shares(record.control)}
    de_biased = any(record.kind == "debias" for record in metrics.passes)
    steered = {*asked, *(metrics.attribute.split(PRODUCT) if de_biased else ())}
    parts = [factor for factor in attribute.split(PRODUCT) if factor in steered]
    return f" Moved on purpose: {listing(parts)}." if parts else ""


def held_against(target: Mapping[str, float]) -> str:
    """Return the reference of the distances of a watched attribute, in words."""
    equal = max(target.values()) - min(target.values()) < 1e-9
    return f"equal shares of {wanted(next(iter(target.values())))}" if equal else "the shares of the Target column"

"""Whether two passes differ by more than chance, from the labels that were counted of their independent samples."""

from __future__ import annotations

from collections.abc import Mapping

from promptgen.metrics.bias import DISTANCES
from promptgen.metrics.distances import distance_difference
from promptgen.metrics.estimate import Difference, Estimate
from promptgen.metrics.shares import compare_shares, homogeneity, share_difference
from promptgen.records import Count, Interval
from promptgen.reporting.settings import Settings

Tally = Mapping[str, int]
"""How often each label was counted; empty where nobody looked."""


def tally(shares: Mapping[str, Interval] | None, n: int) -> Tally:
    """Return how many of `n` samples had each label, from the shares that this count gave."""
    return {label: round(share.value * n) for label, share in (shares or {}).items()}


def tallies(before: Count, after: Count) -> tuple[Tally, Tally]:
    """Return the labels of two passes, as the later one's counter saw both."""
    return tally(before.shares.get(after.counter), before.n), tally(after.counted, after.n)


def share_change(before: Interval, after: Interval) -> Estimate:
    """Return how far one share has moved, with its interval: that of `share_changes`, without a p-value."""
    then, now = (Estimate(each.value, each.low, each.high) for each in (before, after))
    return share_difference(now, then)


def share_changes(before: Tally, after: Tally, settings: Settings) -> dict[str, Difference]:
    """Return how far each share has moved, with its interval and p-value; empty where nobody looked at one of them."""
    if not before or not after:
        return {}
    found = compare_shares(list(after.values()), _alike(before, after), settings.confidence)
    return dict(zip(after, found, strict=True))


def any_change(before: Tally, after: Tally, settings: Settings) -> float | None:
    """Return the p-value of all shares being the same; None where nobody looked at one of them."""
    if not before or not after:
        return None
    options = {"resamples": settings.bootstrap, "seed": settings.seed}
    return homogeneity(list(after.values()), _alike(before, after), **options)


def distance_change(
    before: Tally, after: Tally, name: str, target: Mapping[str, float], settings: Settings
) -> Difference | None:
    """Return how far a distance to the target has moved, with its interval and p-value.

    Args:
        before: labels of the earlier samples.
        after: labels of the later ones.
        name: which distance, as `promptgen.metrics.bias.DISTANCES` calls it.
        target: wanted shares.
        settings: confidence, resamples and seed.

    Returns:
        None where nobody looked at one of them.
    """
    if not before or not after:
        return None
    return distance_difference(
        list(after.values()),
        _alike(before, after),
        [target[label] for label in after],
        DISTANCES[name],
        confidence=settings.confidence,
        resamples=settings.bootstrap,
        seed=settings.seed,
    )


def _alike(tally: Tally, other: Tally) -> list[int]:
    """Return the counts of a tally in the order of another one's labels."""
    return [tally[label] for label in other]

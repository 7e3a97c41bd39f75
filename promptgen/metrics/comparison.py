"""Whether two samplers, or two passes, differ by more than chance, from counted labels of independent samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from promptgen.metrics.bias import DISTANCES
from promptgen.metrics.distances import distance_difference
from promptgen.metrics.estimate import Difference, Estimate
from promptgen.metrics.shares import compare_shares, homogeneity, share_difference
from promptgen.records import AttributeBias, AttributeChange, Change, Interval, Measurement, Source, requested_shares
from promptgen.records import Difference as DifferenceRecord


@dataclass(frozen=True)
class Comparison:
    """Differences of the shares of two samplers.

    Attributes:
        shares: difference of the share of each class, first sampler minus second.
        distances: difference of each distance to the target, by name.
        p_value: of the hypothesis that all shares are equal.
    """

    shares: tuple[Difference, ...]
    distances: Mapping[str, Difference]
    p_value: float


def compare_counts(
    counts: ArrayLike,
    others: ArrayLike,
    target: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Return the differences of two samplers from their class counts, (K,) each.

    Args:
        counts: occurrences of each class in the first sample, (K,).
        others: occurrences in the second sample, (K,).
        target: target shares, (K,), all positive.
        confidence: confidence level of every interval, in (0, 1).
        resamples: bootstrap resamples of each distance, and permutations of the test.
        seed: seed of both.

    Raises:
        DataError: the two samples have different numbers of classes.
        TooFewSamplesError: one sample is empty.

    Example:
        >>> round(compare_counts([10, 30], [20, 20], [0.5, 0.5]).shares[0].value, 2)
        -0.25
    """
    distances = {
        name: distance_difference(
            counts, others, target, distance, confidence=confidence, resamples=resamples, seed=seed
        )
        for name, distance in DISTANCES.items()
    }
    return Comparison(
        shares=tuple(compare_shares(counts, others, confidence)),
        distances=distances,
        p_value=homogeneity(counts, others, resamples=resamples, seed=seed),
    )


def change_between(
    before: Measurement, after: Measurement, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Change:
    """Return the differences of a pass from an earlier one, from the counts of both.

    The shares of the request are compared by Newcombe's interval; for the others see `compare_counts`.

    Args:
        before: the earlier pass.
        after: the later one.
        confidence: confidence level of every interval, in (0, 1).
        resamples: bootstrap resamples of each distance, and permutations of the test.
        seed: seed of both.
    """
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    requested = [
        f"{attribute}.{label}.{source}"
        for (attribute, label), shares in requested_shares(after.control).items()
        for source in shares
    ]
    return Change(
        since=before.number,
        by=_attribute_changes(before, after, options),
        watched={
            name: _attribute_changes(before.watched[name], attribute, options)
            for name, attribute in after.watched.items()
            if name in before.watched
        },
        control={
            name: _share_change(before.control[name], after.control[name])
            for name in requested
            if name in before.control
        },
    )


def _attribute_changes(
    before: AttributeBias, after: AttributeBias, options: Mapping[str, Any]
) -> dict[Source, AttributeChange]:
    """Return the change of an attribute by every source that counted it in both passes."""
    changes: dict[Source, AttributeChange] = {}
    labels = sorted(after.target)  # sorted, so that the resampling does not depend on the order of a reader's labels
    for source in (source for source in after.by if source in before.by):
        now, then = ([bias.by[source].counts[label] for label in labels] for bias in (after, before))
        comparison = compare_counts(now, then, [after.target[label] for label in labels], **options)
        shares = zip(labels, comparison.shares, strict=True)
        changes[source] = AttributeChange(
            shares={label: DifferenceRecord.of(change) for label, change in shares},
            distances={name: DifferenceRecord.of(change) for name, change in comparison.distances.items()},
            p_value=comparison.p_value,
        )
    return changes


def _share_change(before: Interval, after: Interval) -> Interval:
    then, now = (Estimate(share.value, share.low, share.high) for share in (before, after))
    return Interval.of(share_difference(now, then))

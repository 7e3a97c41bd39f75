"""Variation of an attribute's shares over groups of images, such as the occupations in their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptgen.audit.labels import Indices, Labels
from promptgen.errors import TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, by_label
from promptgen.metrics.reference import Reference, compare_to_reference, spread, spread_by_chance
from promptgen.metrics.shares import share_estimates

MARGIN = 0.04
"""Largest difference up to which a group's share counts as equal to that of the same group in the other set."""


@dataclass(frozen=True)
class Groups:
    """Shares by group, and their mean and spread over the groups.

    Attributes:
        shares: share of each class, by group.
        n: number of images, by group.
        mean: mean of each class's share over the groups, with equal weights.
        deviation: standard deviation of each class's share over the groups.
        chance: expected standard deviation if all groups had the same shares, given their sizes.
        references: for each class, the fractions of the common groups in which the other set's bias is amplified,
            reflected or mitigated; None if the sets have no group in common.
        empty: groups in which no image has a label of the attribute; they are left out.
    """

    shares: Mapping[str, Sequence[Estimate]]
    n: Mapping[str, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    chance: tuple[float, ...]
    references: tuple[Reference, ...] | None
    empty: tuple[str, ...] = ()

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return all figures as plain dicts, keyed by class."""
        references = dict(zip(labels, map(asdict, self.references), strict=True)) if self.references else None
        return {
            "shares": {name: by_label(labels, shares) for name, shares in self.shares.items()},
            "n": dict(self.n),
            "mean": dict(zip(labels, self.mean, strict=True)),
            "deviation": dict(zip(labels, self.deviation, strict=True)),
            "chance": dict(zip(labels, self.chance, strict=True)),
            "references": references,
            "empty": list(self.empty),
        }


def grouped(read: Labels, other: Labels | None, attribute: str, mu: Vector, confidence: float) -> Groups:
    """Return the shares of an attribute by group, with their mean and spread.

    Args:
        read: labels with groups.
        other: labels of other images, compared by groups of the same name; None without a comparison.
        attribute: an attribute or a product of attributes.
        mu: target shares, (K,).
        confidence: coverage of the intervals, in (0, 1).

    Raises:
        TooFewSamplesError: there is only one group with labels, or none.
    """
    counts, empty = _counts(read, attribute)
    other_counts, _ = _counts(other, attribute) if other else ({}, [])
    if not counts:
        raise TooFewSamplesError(f"no group has a label of {attribute}; name another column of groups, or fill it in")
    by_class = _shares(counts).T
    both = sorted(counts.keys() & other_counts.keys())
    references = None
    if both:
        common = [_shares({name: part[name] for name in both}).T for part in (counts, other_counts)]
        pairs = zip(*common, mu, strict=True)
        references = tuple(
            compare_to_reference(s, r, neutral=goal, margin=MARGIN, confidence=confidence) for s, r, goal in pairs
        )
    spreads = [spread(shares) for shares in by_class]
    return Groups(
        shares={name: tuple(share_estimates(k, confidence)) for name, k in counts.items()},
        n={name: int(k.sum()) for name, k in counts.items()},
        mean=tuple(mean for mean, _ in spreads),
        deviation=tuple(deviation for _, deviation in spreads),
        chance=tuple(spread_by_chance(np.stack(list(counts.values()))).tolist()),
        references=references,
        empty=tuple(empty),
    )


def _counts(labels: Labels, attribute: str) -> tuple[dict[str, Indices], list[str]]:
    """Return the counts of each group, by its name, and the names of groups without a count."""
    counts = {name: part.counts(attribute) for name, part in labels.by_group().items()}
    return {name: k for name, k in counts.items() if k.any()}, [name for name, k in counts.items() if not k.any()]


def _shares(counts: Mapping[str, Indices]) -> Vector:
    """Return the shares of each group, (G, K)."""
    return np.stack([k / k.sum() for k in counts.values()])

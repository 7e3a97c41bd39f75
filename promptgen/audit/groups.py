"""How the shares of an attribute vary over groups of images, such as the occupations that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptgen.audit.labelling import Indices, Labels
from promptgen.metrics.estimate import Estimate, Vector, by_label
from promptgen.metrics.reference import Reference, compare_to_reference, spread, spread_by_chance
from promptgen.metrics.shares import share_estimates

MARGIN = 0.04
"""Up to this difference, a group's share counts as that of the same group of the other set."""


@dataclass(frozen=True)
class Groups:
    """How the shares vary from group to group, such as from one occupation asked for to another.

    Attributes:
        shares: share of each class, by group.
        n: number of images, by group.
        mean: mean of each class's share over the groups, each of which counts alike.
        deviation: its standard deviation over the groups.
        chance: the standard deviation that as many images of groups that are all alike would show.
        references: for each class, in which part of the groups that both sets have the other one's bias is amplified,
            reflected or mitigated; None if they share no group.
    """

    shares: Mapping[str, Sequence[Estimate]]
    n: Mapping[str, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    chance: tuple[float, ...]
    references: tuple[Reference, ...] | None

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return all numbers as plain dicts, classes by name."""
        references = dict(zip(labels, map(asdict, self.references), strict=True)) if self.references else None
        return {
            "shares": {name: by_label(labels, each) for name, each in self.shares.items()},
            "n": dict(self.n),
            "mean": dict(zip(labels, self.mean, strict=True)),
            "deviation": dict(zip(labels, self.deviation, strict=True)),
            "chance": dict(zip(labels, self.chance, strict=True)),
            "references": references,
        }


def grouped(read: Labels, other: Labels | None, attribute: str, mu: Vector, confidence: float) -> Groups:
    """Return how the shares of an attribute vary over the groups of its images.

    Args:
        read: labels with groups.
        other: labels of other images, whose groups of the same names are held against these; None for none.
        attribute: attribute or product.
        mu: wanted shares, (K,).
        confidence: of every interval.

    Raises:
        TooFewSamplesError: there is one group.
    """
    counts = {name: part.counts(attribute) for name, part in read.by_group().items()}
    there = {name: part.counts(attribute) for name, part in other.by_group().items()} if other else {}
    by_class = _shares(counts).T
    both = sorted(counts.keys() & there.keys())
    references = None
    if both:
        pairs = zip(*(_shares({name: each[name] for name in both}).T for each in (counts, there)), mu, strict=True)
        references = tuple(
            compare_to_reference(s, r, neutral=goal, margin=MARGIN, confidence=confidence) for s, r, goal in pairs
        )
    spreads = [spread(each) for each in by_class]
    return Groups(
        shares={name: tuple(share_estimates(each, confidence)) for name, each in counts.items()},
        n={name: int(each.sum()) for name, each in counts.items()},
        mean=tuple(mean for mean, _ in spreads),
        deviation=tuple(deviation for _, deviation in spreads),
        chance=tuple(spread_by_chance(np.stack(list(counts.values()))).tolist()),
        references=references,
    )


def _shares(counts: Mapping[str, Indices]) -> Vector:
    """Return the shares of each group, (G, K)."""
    return np.stack([each / each.sum() for each in counts.values()])

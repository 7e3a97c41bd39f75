"""Whether a sampler amplifies, reflects or mitigates the bias of other data, group by group.

Groups are what the sampler was asked for, such as occupations; each has a share of some class in the sampler's images
and one in the data. After Friedrich et al., *Fair Diffusion: Instructing Text-to-Image Generation Models on Fairness*,
2023, https://arxiv.org/abs/2302.10893.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector
from promptgen.metrics.shares import wilson


@dataclass(frozen=True)
class Reference:
    """In which part of the groups a sampler does what to the bias of the data; the three parts sum to one.

    Attributes:
        amplified: its share is further from the neutral one than the data's.
        reflected: its share is within the margin of the data's.
        mitigated: neither.
        groups: number of groups.
    """

    amplified: Estimate
    reflected: Estimate
    mitigated: Estimate
    groups: int


def compare_to_reference(
    shares: ArrayLike,
    reference: ArrayLike,
    *,
    neutral: float = 0.5,
    margin: float = 0.04,
    confidence: float = 0.95,
) -> Reference:
    """Return in which part of the groups the bias of the data is amplified, reflected or mitigated.

    The intervals are Wilson's over the groups, taken as drawn from many; the shares are taken as they are.

    Args:
        shares: share of a class in the sampler's images of each group, (G,).
        reference: share of it in the data, (G,).
        neutral: the share that would be no bias.
        margin: up to this difference a share counts as that of the data.
        confidence: of the intervals.

    Raises:
        DataError: the two differ in their groups, or a number is no share.
        TooFewSamplesError: there are no groups.
    """
    s, r = _shares(shares), _shares(reference)
    if s.shape != r.shape:
        raise DataError(f"both must have the same groups, got {len(s)} and {len(r)}")
    reflected = np.abs(s - r) <= margin
    further = np.abs(s - neutral) > np.abs(r - neutral)
    parts = (~reflected & further, reflected, ~reflected & ~further)
    amplified, same, mitigated = (wilson(int(part.sum()), len(s), confidence) for part in parts)
    return Reference(amplified, same, mitigated, groups=len(s))


def spread(shares: ArrayLike) -> tuple[float, float]:
    """Return mean and sample standard deviation of shares over groups, (G,).

    Raises:
        DataError: a number is no share.
        TooFewSamplesError: there are fewer than two groups.
    """
    s = _shares(shares)
    if len(s) < 2:
        raise TooFewSamplesError(f"a spread needs at least 2 groups, got {len(s)}")
    return float(s.mean()), float(s.std(ddof=1))


def spread_by_chance(counts: ArrayLike) -> Vector:
    """Return the standard deviation over groups, (K,), that the shares of groups that are all alike would show.

    It is the root of the mean variance of a share over the groups, each with the share that all images together have.

    Args:
        counts: how often each class occurred in each group, (G, K); no group is empty.
    """
    table = np.asarray(counts, dtype=np.float64)
    share = table.sum(axis=0) / table.sum()
    return np.asarray(np.sqrt(share * (1 - share) * (1 / table.sum(axis=1)).mean()))


def _shares(values: ArrayLike) -> Vector:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise DataError(f"shares must be a vector of numbers in [0, 1], got an array of shape {array.shape}")
    if not len(array):
        raise TooFewSamplesError("there are no groups: give one share for each")
    return array

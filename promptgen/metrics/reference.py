"""Whether a sampler amplifies, reflects or mitigates the bias of reference data, group by group.

Groups are the subjects that the sampler was prompted for, such as occupations. In each group, a class has one share in
the sampler's images and one in the data. After Friedrich et al., *Fair Diffusion: Instructing Text-to-Image Generation
Models on Fairness*, 2023, https://arxiv.org/abs/2302.10893.
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
    """Fractions of the groups in which a sampler amplifies, reflects or mitigates the data's bias; they sum to one.

    Attributes:
        amplified: the sampler's share is further from neutral than the data's.
        reflected: the sampler's share is within the margin of the data's.
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
    """Return the fractions of the groups in which the data's bias is amplified, reflected and mitigated.

    The intervals are Wilson's, treating the groups as a random sample; the shares themselves are treated as exact.

    Args:
        shares: share of a class in the sampler's images, per group, (G,).
        reference: share of the class in the data, per group, (G,).
        neutral: the unbiased share.
        margin: largest difference at which a share still counts as equal to the data's.
        confidence: coverage probability of the intervals.

    Raises:
        DataError: the two differ in their number of groups, or a number is not a share.
        TooFewSamplesError: there are no groups.

    Example:
        >>> comparison = compare_to_reference(shares=[0.9, 0.7, 0.6, 0.5], reference=[0.7, 0.7, 0.7, 0.7])
        >>> comparison.amplified.value, comparison.reflected.value, comparison.mitigated.value
        (0.25, 0.25, 0.5)
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
    """Return the mean and the sample standard deviation of shares over groups, (G,).

    Raises:
        DataError: a number is not a share.
        TooFewSamplesError: there are fewer than two groups.
    """
    s = _shares(shares)
    if len(s) < 2:
        raise TooFewSamplesError(f"a spread needs at least 2 groups, got {len(s)}")
    return float(s.mean()), float(s.std(ddof=1))


def spread_by_chance(counts: ArrayLike) -> Vector:
    """Return the standard deviation of shares over groups, (K,), that chance alone produces if all groups are alike.

    It is the square root of the variance of a share, averaged over the groups, if each had the share of all images.

    Args:
        counts: number of images per group and class, (G, K); no group is empty.
    """
    table = np.asarray(counts, dtype=np.float64)
    share = table.sum(axis=0) / table.sum()
    return np.asarray(np.sqrt(share * (1 - share) * (1 / table.sum(axis=1)).mean()))


def _shares(values: ArrayLike) -> Vector:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise DataError(f"shares must be a vector of numbers in [0, 1], got an array of shape {array.shape}")
    if not len(array):
        raise TooFewSamplesError("there are no groups: pass one share per group")
    return array

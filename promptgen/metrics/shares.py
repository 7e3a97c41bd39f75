"""Class shares of labelled samples: counts, intersections of attributes, intervals, and tests between samplers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Difference, Estimate, Vector, check_counts, random_stream
from promptgen.metrics.probabilities import MeanProbabilities
from promptgen.metrics.rows import Rows


def class_counts(labels: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return the number of samples in each of `k` classes, (k,), from class indices (N,).

    Raises:
        DataError: an index is not in 0 .. k - 1.
    """
    indices = np.asarray(labels)
    if indices.ndim != 1 or (indices.size and not np.issubdtype(indices.dtype, np.integer)):
        raise DataError(f"labels must be a vector of class indices, got shape {indices.shape}, type {indices.dtype}")
    if indices.size and (indices.min() < 0 or indices.max() >= k):
        raise DataError(f"labels must lie in 0 .. {k - 1}, got {indices.min()} .. {indices.max()}")
    return np.bincount(indices.astype(np.int64), minlength=k)


def shares(labels: ArrayLike, k: int) -> Vector:
    """Return the share of each of `k` classes, (k,), among class indices (N,).

    Raises:
        TooFewSamplesError: there are no labels.
    """
    counts = check_counts(class_counts(labels, k))
    return np.asarray(counts / counts.sum())


def joint_labels(labels: Sequence[ArrayLike], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return class indices, (N,), in the product of several attributes, with the last attribute varying fastest.

    Args:
        labels: class indices, (N,), of the same samples, one array per attribute.
        sizes: number of classes of each attribute.
    """
    for attribute, k in zip(labels, sizes, strict=True):
        class_counts(attribute, k)  # raises an error if an index is out of range
    return np.ravel_multi_index(tuple(np.asarray(part) for part in labels), tuple(sizes)).astype(np.int64)


def joint_table(labels: Sequence[ArrayLike], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return the joint counts, shape `sizes`, of several attributes of the same samples; see `joint_labels`.

    Example:
        >>> joint_table([[0, 0, 1], [0, 1, 1]], sizes=[2, 2]).tolist()
        [[1, 1], [0, 1]]
    """
    return class_counts(joint_labels(labels, sizes), math.prod(sizes)).reshape(tuple(sizes))


def wilson(count: float, n: float, confidence: float = 0.95) -> Estimate:
    """Return a share with its score interval, which stays in [0, 1] and is accurate for rare classes.

    Source: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927.

    Raises:
        TooFewSamplesError: `n` is zero.
        DataError: `count` is not between 0 and `n`.
    """
    if n <= 0:
        raise TooFewSamplesError("a share needs at least one labelled sample, got none")
    if not 0 <= count <= n:
        raise DataError(f"a count must lie in 0 .. {n:g}, got {count:g}")
    z, share = NormalDist().inv_cdf(0.5 + confidence / 2), count / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, 0.0 if count == 0 else centre - half, 1.0 if count == n else centre + half)


def share_estimates(counts: ArrayLike, confidence: float = 0.95) -> list[Estimate]:
    """Return the share of each class with its Wilson interval, from counts (K,).

    Example:
        >>> short, long = share_estimates([80, 20])
        >>> short.value, round(short.low, 3), round(short.high, 3)
        (0.8, 0.711, 0.867)
    """
    checked = check_counts(counts)
    return [wilson(float(count), float(checked.sum()), confidence) for count in checked]


def shares_within(counts: ArrayLike, groups: int, confidence: float = 0.95) -> list[list[Estimate]]:
    """Return the share of each class within each group, (G, K / G), with its Wilson interval; none of an empty group.

    Args:
        counts: number of samples per class of a product whose first factor is the group, (K,).
        groups: number of groups.
        confidence: probability that an interval contains its share.

    Example:
        >>> (short, long), (bald, hairy) = shares_within([30, 10, 0, 60], groups=2)
        >>> short.value, long.value, bald.value, hairy.value
        (0.75, 0.25, 0.0, 1.0)
    """
    table = check_counts(counts).reshape(groups, -1)
    return [share_estimates(row, confidence) if row.sum() else [] for row in table]


def simultaneous_estimates(counts: ArrayLike, confidence: float = 0.95) -> list[Estimate]:
    """Return the share of each class with an interval, such that all intervals hold together at `confidence`.

    Wilson intervals at a level that Bonferroni's inequality asks for. Two classes need no correction: the share of one
    is 1 minus the share of the other, so both intervals hold or neither.

    Args:
        counts: number of samples per class, (K,).
        confidence: probability that every interval contains its share.

    Example:
        >>> one, *_ = share_estimates([25, 25, 25, 25])
        >>> together, *_ = simultaneous_estimates([25, 25, 25, 25])
        >>> together.low < one.low < one.high < together.high
        True
    """
    checked = check_counts(counts)
    return share_estimates(checked, _together(confidence, len(checked)))


def _together(confidence: float, k: int) -> float:
    """Return the level of each of `k` intervals at which all of them hold together."""
    return 1 - (1 - confidence) / (k if k > 2 else 1)


def soft_share_estimates(
    probabilities: MeanProbabilities | Rows | ArrayLike, confidence: float = 0.95
) -> list[Estimate]:
    """Return the mean probability of each class with its interval, from probability vectors (N, K).

    The interval is Wilson's, for the number of samples that would give a share of this value the standard error of the
    mean. It stays in [0, 1], and for one-hot vectors it equals the interval of the shares.

    Raises:
        DataError: the rows are not probability vectors.
        TooFewSamplesError: there are fewer than two rows.
    """
    moments = MeanProbabilities.of(probabilities)
    if moments.n < 2:
        raise TooFewSamplesError(f"a mean probability needs at least 2 samples, got {moments.n}")
    estimates = []
    for mean, variance in zip(moments.mean, moments.variances, strict=True):
        largest = float(mean * (1 - mean))  # largest variance in [0, 1] with this mean
        if largest == 0:  # all zeros or all ones: hard labels
            n = float(moments.n)
        else:
            n = moments.n * largest / variance if variance > 1e-12 * largest else math.inf
        value = float(mean)
        estimates.append(wilson(value * n, n, confidence) if math.isfinite(n) else Estimate(value, value, value))
    return estimates


def share_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return the difference ``a - b`` of two Wilson shares of independent samples with its hybrid score interval.

    Source: Newcombe, *Interval estimation for the difference between independent proportions*, Statistics in
    Medicine 1998, method 10.
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    return Estimate(value, low, value + math.hypot(a.high - a.value, b.value - b.low))


def simultaneous_differences(
    counts: ArrayLike, target: ArrayLike, samples: float, confidence: float = 0.95
) -> list[Estimate]:
    """Return the difference of each share from a target that was itself counted, such that all intervals hold together.

    Newcombe's intervals at the level of `simultaneous_estimates`. With more and more samples of the target, they become
    the intervals of the shares less the target.

    Args:
        counts: number of samples per class, (K,).
        target: target shares, (K,).
        samples: number of samples that the target was counted on.
        confidence: probability that every interval contains its difference.

    Example:
        >>> difference, _ = simultaneous_differences([1080, 920], [0.5, 0.5], samples=200)
        >>> round(difference.value, 2), difference.low < 0 < difference.high
        (0.04, True)
        >>> difference, _ = simultaneous_differences([1080, 920], [0.5, 0.5], samples=20_000)
        >>> difference.low > 0
        True
    """
    checked = check_counts(counts)
    level = _together(confidence, len(checked))
    goals = [wilson(float(share) * samples, samples, level) for share in np.asarray(target)]
    return [share_difference(share, goal) for share, goal in zip(share_estimates(checked, level), goals, strict=True)]


def compare_shares(counts_a: ArrayLike, counts_b: ArrayLike, confidence: float = 0.95) -> list[Difference]:
    """Return, for each class, the difference ``a - b`` of the shares of two samplers with its interval and p-value.

    The p-value is from the two-sided score test for two proportions with pooled variance.

    Args:
        counts_a: number of samples per class from the first sampler, (K,).
        counts_b: number of samples per class from the second sampler, (K,).
        confidence: coverage probability of the intervals.

    Raises:
        DataError: the samplers have different numbers of classes.

    Example:
        >>> difference = compare_shares([80, 20], [50, 50])[0]
        >>> round(difference.value, 4), difference.low > 0, difference.p_value < 0.001
        (0.3, True, True)
    """
    a, b = _paired(counts_a, counts_b)
    differences = []
    for count_a, count_b, share_a, share_b in zip(
        a, b, share_estimates(a, confidence), share_estimates(b, confidence), strict=True
    ):
        pooled = (count_a + count_b) / (a.sum() + b.sum())
        error = math.sqrt(pooled * (1 - pooled) * (1 / a.sum() + 1 / b.sum()))
        difference = share_difference(share_a, share_b)
        p_value = 2 * NormalDist().cdf(-abs(difference.value) / error) if error else 1.0
        differences.append(Difference(difference.value, difference.low, difference.high, p_value))
    return differences


def homogeneity(counts_a: ArrayLike, counts_b: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> float:
    """Return the p-value of the hypothesis that two samplers have equal shares: a chi-square permutation test.

    It is exact up to the number of permutations, even for small and empty classes.

    Args:
        counts_a: number of samples per class from the first sampler, (K,).
        counts_b: number of samples per class from the second sampler, (K,).
        resamples: number of random permutations.
        seed: seed of the permutations.

    Raises:
        DataError: the samplers have different numbers of classes.
    """
    a, b = _paired(counts_a, counts_b)
    total = (a + b).astype(np.int64)
    expected = total * a.sum() / total.sum()
    spread = np.where(total > 0, expected, 1)

    def statistic(first: NDArray[Any]) -> Vector:  # proportional to the chi-square statistic, for fixed margins
        return np.asarray((np.square(first - expected) / spread).sum(axis=-1))

    rng = random_stream(seed, "homogeneity")
    permuted = rng.multivariate_hypergeometric(total, int(a.sum()), size=resamples, method="marginals")
    beyond = int((statistic(permuted) >= statistic(a) * (1 - 1e-12)).sum())
    return (beyond + 1) / (resamples + 1)


def _paired(counts_a: ArrayLike, counts_b: ArrayLike) -> tuple[Vector, Vector]:
    a, b = check_counts(counts_a), check_counts(counts_b)
    if a.shape != b.shape:
        raise DataError(f"both samplers must have the same classes, got {len(a)} and {len(b)}")
    return a, b

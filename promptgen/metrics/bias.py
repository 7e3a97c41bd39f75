"""How far the class shares of samples lie from the wanted ones, each figure with its interval and its noise floor.

With shares s of K classes among N labelled samples and the wanted shares mu:

    KL(s || mu) = sum_k s_k log(s_k / mu_k)        nats, 0 log 0 = 0
    total variation = 1/2 sum_k |s_k - mu_k|       in [0, 1]
    discrepancy = ||s - mu||_2                     the fairness discrepancy (Choi et al. 2020)

A sampler without any bias still has KL of about (K - 1) / (2 N) nats by chance alone: see `noise_floor_kl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, check_counts, quantiles, resample_shares

Distance = Callable[[ArrayLike, ArrayLike], Vector]
"""Takes shares (..., K) and a target (K,), returns their distance (...), zero where they agree."""


def class_counts(labels: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return how often each of `k` classes occurs, (k,), among class indices (N,).

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
    """Return the index, (N,), in the product of several attributes, the last one running fastest.

    Args:
        labels: class indices, (N,), of each attribute for the same samples.
        sizes: number of classes of each attribute.
    """
    for attribute, k in zip(labels, sizes, strict=True):
        class_counts(attribute, k)  # refuses indices out of range
    return np.ravel_multi_index(tuple(np.asarray(part) for part in labels), tuple(sizes)).astype(np.int64)


def joint_table(labels: Sequence[ArrayLike], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return the counts, shape `sizes`, of several attributes of the same samples; its ravel is a vector of counts."""
    return class_counts(joint_labels(labels, sizes), math.prod(sizes)).reshape(tuple(sizes))


def kl_to_target(observed: ArrayLike, target: ArrayLike) -> Vector:
    """Return KL(observed || target) in nats, (...), of shares (..., K); infinite if a class with target 0 occurs."""
    s, mu = _pair(observed, target)
    with np.errstate(divide="ignore"):  # a wanted share of 0 gives the infinity that is meant
        log_ratio = np.log(np.where(s > 0, s, 1)) - np.log(np.where(s > 0, mu, 1))
    return np.asarray(np.maximum(np.where(s > 0, s * log_ratio, 0).sum(axis=-1), 0))


def total_variation(observed: ArrayLike, target: ArrayLike) -> Vector:
    """Return the total variation distance, (...), in [0, 1], of shares (..., K) to the target (K,)."""
    s, mu = _pair(observed, target)
    return np.asarray(0.5 * np.abs(s - mu).sum(axis=-1))


def discrepancy(observed: ArrayLike, target: ArrayLike) -> Vector:
    """Return the Euclidean distance, (...), of shares (..., K) to the target (K,)."""
    s, mu = _pair(observed, target)
    return np.asarray(np.sqrt(np.square(s - mu).sum(axis=-1)))


def noise_floor_kl(k: int, n: int) -> float:
    """Return the KL in nats, (k - 1) / (2 n), that `n` samples of exactly the target show by chance, to first order."""
    if k < 2 or n < 1:
        raise TooFewSamplesError(f"a noise floor needs at least 2 classes and 1 sample, got {k} and {n}")
    return (k - 1) / (2 * n)


def wilson(count: float, n: float, confidence: float = 0.95) -> Estimate:
    """Return a share with its score interval, which stays in [0, 1] and is sound for rare classes.

    Source: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927.

    Raises:
        TooFewSamplesError: `n` is zero.
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
    """Return the share of each class with its Wilson interval, from counts (K,)."""
    checked = check_counts(counts)
    return [wilson(count, checked.sum(), confidence) for count in checked]


def share_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return the difference ``a - b`` of two Wilson shares of independent samples with its hybrid score interval.

    Source: Newcombe, *Interval estimation for the difference between independent proportions*, Statistics in
    Medicine 1998, method 10.
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    return Estimate(value, low, value + math.hypot(a.high - a.value, b.value - b.low))


def contains_target(estimates: Sequence[Estimate], target: ArrayLike) -> bool:
    """Tell whether every share's interval contains its wanted share: the rule that ends the loop."""
    return all(share.contains(wanted) for share, wanted in zip(estimates, np.asarray(target), strict=True))


def bootstrap_interval(
    counts: ArrayLike,
    target: ArrayLike,
    distance: Distance = kl_to_target,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the distance of the shares to `target` with a bootstrap interval.

    A distance cannot be negative, so near the target the resampled ones all lie above the true one, and their plain
    quantiles miss it nearly always. Hence the quantiles are moved by the bias seen in the resamples, and the interval
    reaches down to 0 as long as samples of exactly the target would show as large a distance with probability
    ``1 - confidence`` or more.

    Args:
        counts: how often each class occurred, (K,).
        target: wanted shares, (K,), all positive.
        distance: vectorised distance of shares (R, K) to the target.
        confidence: probability that the interval covers the true distance.
        resamples: number of bootstrap resamples, and of simulated samples of the target.
        seed: seed of the resamples.

    Raises:
        DataError: a wanted share is zero, or they do not sum to one.
    """
    checked, mu = check_counts(counts), _positive(target)
    value = float(distance(checked / checked.sum(), mu))
    resampled = distance(resample_shares(checked, resamples, seed, "bootstrap"), mu)
    by_chance = distance(resample_shares(mu * checked.sum(), resamples, seed, "noise"), mu)
    low, high = quantiles(resampled - (resampled.mean() - value), confidence)
    reaches_zero = value <= np.quantile(by_chance, confidence)
    return Estimate(value, 0.0 if reaches_zero else min(max(float(low), 0.0), value), max(float(high), value))


def bootstrap_difference(
    counts_a: ArrayLike,
    counts_b: ArrayLike,
    target: ArrayLike,
    distance: Distance = kl_to_target,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return ``distance(a) - distance(b)`` of two independent samplers with a bootstrap interval.

    Args:
        counts_a: how often each class occurred among the first sampler's samples, (K,).
        counts_b: the same for the second one.
        target: wanted shares, (K,), all positive.
        distance: vectorised distance of shares (R, K) to the target.
        confidence: probability that the interval covers the true difference.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
    """
    mu, values, resampled = _positive(target), [], []
    for name, counts in (("a", check_counts(counts_a)), ("b", check_counts(counts_b))):
        values.append(float(distance(counts / counts.sum(), mu)))
        draws = distance(resample_shares(counts, resamples, seed, "difference", name), mu)
        resampled.append(draws - (draws.mean() - values[-1]))
    low, high = quantiles(resampled[0] - resampled[1], confidence)
    return Estimate(values[0] - values[1], float(low), float(high))


@dataclass(frozen=True)
class Bias:
    """All bias figures of one attribute (or product of attributes) by one classifier.

    Attributes:
        n: number of labelled samples.
        shares: share of each class with its Wilson interval.
        target: wanted share of each class.
        kl: KL to the target, nats.
        total_variation: in [0, 1].
        discrepancy: Euclidean distance.
        noise_floor: KL expected by chance alone, nats.
    """

    n: int
    shares: tuple[Estimate, ...]
    target: tuple[float, ...]
    kl: Estimate
    total_variation: Estimate
    discrepancy: Estimate
    noise_floor: float

    @property
    def contains_target(self) -> bool:
        """Tell whether every share's interval contains its wanted share."""
        return contains_target(self.shares, self.target)


def measure_bias(
    counts: ArrayLike, target: ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Bias:
    """Return every bias figure for class counts (K,) and wanted shares (K,); arguments as of `bootstrap_interval`."""
    checked, mu = check_counts(counts), _positive(target)
    kl, variation, euclidean = (
        bootstrap_interval(checked, mu, distance, confidence=confidence, resamples=resamples, seed=seed)
        for distance in (kl_to_target, total_variation, discrepancy)
    )
    return Bias(
        n=int(checked.sum()),
        shares=tuple(share_estimates(checked, confidence)),
        target=tuple(mu.tolist()),
        kl=kl,
        total_variation=variation,
        discrepancy=euclidean,
        noise_floor=noise_floor_kl(len(checked), int(checked.sum())),
    )


def _pair(observed: ArrayLike, target: ArrayLike) -> tuple[Vector, Vector]:
    s, mu = np.asarray(observed, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if mu.ndim != 1 or s.ndim < 1 or s.shape[-1] != len(mu):
        raise DataError(f"shares {s.shape} and target {mu.shape} must have the same number of classes in the last axis")
    return s, mu


def _positive(target: ArrayLike) -> Vector:
    mu = np.asarray(target, dtype=np.float64)
    if mu.ndim != 1 or not (mu > 0).all() or abs(mu.sum() - 1) > 1e-6:
        raise DataError(f"wanted shares must be positive and sum to 1, got {mu.tolist()}")
    return mu

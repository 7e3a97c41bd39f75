"""Distances between class shares and their target, with intervals and the distances that chance alone produces.

With shares s of K classes among N labelled samples and target shares mu:

    KL(s || mu) = sum_k s_k log(s_k / mu_k)        nats, 0 log 0 = 0
    total variation = 1/2 sum_k |s_k - mu_k|       in [0, 1]
    discrepancy = ||s - mu||_2                     the fairness discrepancy (Choi et al. 2020)

Intervals: A distance cannot be negative, so near the target the observed distance is larger than the true one, and the
quantiles of a plain bootstrap miss it. Here the bootstrap is inverted. The interval contains the distances of those
distributions, on the exponential family from the target through the observed shares, whose samples would often enough
show a distance as large, or as small, as the observed one. If samples of exactly the target show the observed distance
often enough by chance, the interval starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import (
    Difference,
    Estimate,
    Vector,
    check_counts,
    quantiles,
    random_stream,
    resample_shares,
)
from promptgen.metrics.probabilities import MeanProbabilities
from promptgen.metrics.rows import Rows

Distance = Callable[[ArrayLike, ArrayLike], Vector]
"""Maps shares (..., K) and a target (K,) to their distance (...), zero if they agree."""

Draw = Callable[[Vector, np.random.Generator], Vector]
"""Maps shares (K,) to the shares of simulated samples, (R, K)."""

BISECTIONS = 14
FARTHEST = 64.0
"""Limit of the search for an upper end along the family; 1 is at the observed shares, or one standard error away."""


def kl_to_target(observed: ArrayLike, target: ArrayLike) -> Vector:
    """Return KL(observed || target) in nats, (...), of shares (..., K); infinite if a class with target 0 occurs."""
    s, mu = _pair(observed, target)
    with np.errstate(divide="ignore"):  # a target of 0 correctly gives infinity
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
    """Return the mean KL in nats, (k - 1) / (2 n) to first order, of `n` samples drawn from exactly the target."""
    if k < 2 or n < 1:
        raise TooFewSamplesError(f"a noise floor needs at least 2 classes and 1 sample, got {k} and {n}")
    return (k - 1) / (2 * n)


def noise_floor(target: ArrayLike, n: int, distance: Distance, *, resamples: int = 1000, seed: int = 0) -> float:
    """Return the mean distance, by simulation, of `n` samples drawn from exactly the target, (K,)."""
    mu = check_target(target)
    return float(distance(resample_shares(mu * n, resamples, seed, "noise floor"), mu).mean())


def distance_interval(
    counts: ArrayLike,
    target: ArrayLike,
    distance: Distance = kl_to_target,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the distance of shares to `target` with its interval; see the top of this module.

    Args:
        counts: number of samples per class, (K,).
        target: target shares, (K,), all positive.
        distance: vectorised distance from shares (R, K) to the target.
        confidence: coverage probability of the interval.
        resamples: number of simulated samples per distribution.
        seed: seed of the simulations.

    Raises:
        DataError: a target share is not positive, or the target shares do not sum to one.
        TooFewSamplesError: there are no samples.

    Example:
        >>> kl = distance_interval([80, 20], [0.5, 0.5], resamples=100)
        >>> round(kl.value, 4), kl.low > 0
        (0.1927, True)
    """
    checked, mu = check_counts(counts), check_target(target)
    n = int(checked.sum())

    def draw(shares: Vector, rng: np.random.Generator) -> Vector:
        return np.asarray(rng.multinomial(n, shares, size=resamples) / n)

    return _inverted(checked / n, n, mu, distance, draw, confidence, seed)


def soft_distance_interval(
    probabilities: MeanProbabilities | Rows | ArrayLike,
    target: ArrayLike,
    distance: Distance = kl_to_target,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the distance of mean probabilities to `target` with its interval, from probability vectors (N, K).

    The mean of the N vectors is assumed to be normal, with their sample covariance. See `distance_interval` for the
    other arguments and the errors.
    """
    moments, mu = MeanProbabilities.of(probabilities), check_target(target)
    if moments.n < 2:
        raise TooFewSamplesError(f"a mean probability needs at least 2 samples, got {moments.n}")
    values, axes = np.linalg.eigh(moments.covariance / moments.n)
    root = axes * np.sqrt(np.maximum(values, 0))

    def draw(shares: Vector, rng: np.random.Generator) -> Vector:
        moved = np.maximum(shares + rng.standard_normal((resamples, len(mu))) @ root.T, 0)
        return np.asarray(moved / moved.sum(axis=1, keepdims=True))

    return _inverted(moments.mean, moments.n, mu, distance, draw, confidence, seed)


def distance_difference(
    counts_a: ArrayLike,
    counts_b: ArrayLike,
    target: ArrayLike,
    distance: Distance = kl_to_target,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return ``distance(a) - distance(b)`` of two independent samplers with its bootstrap interval and p-value.

    The p-value is twice the fraction of the resampled differences on the other side of zero.

    Args:
        counts_a: number of samples per class from the first sampler, (K,).
        counts_b: number of samples per class from the second sampler, (K,).
        target: target shares, (K,), all positive.
        distance: vectorised distance from shares (R, K) to the target.
        confidence: coverage probability of the interval.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
    """
    mu, values, resampled = check_target(target), [], []
    for name, counts in (("a", check_counts(counts_a)), ("b", check_counts(counts_b))):
        values.append(float(distance(counts / counts.sum(), mu)))
        draws = distance(resample_shares(counts, resamples, seed, "difference", name), mu)
        resampled.append(draws - (draws.mean() - values[-1]))
    differences = resampled[0] - resampled[1]
    low, high = quantiles(differences, confidence)
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * (float(beyond) + 1) / (resamples + 1))
    return Difference(values[0] - values[1], float(low), float(high), p_value)


def check_target(target: ArrayLike) -> Vector:
    """Return target shares, (K,), as float64.

    Raises:
        DataError: a target share is not positive, or the target shares do not sum to one.
    """
    mu = np.asarray(target, dtype=np.float64)
    if mu.ndim != 1 or not (mu > 0).all() or abs(mu.sum() - 1) > 1e-6:
        raise DataError(f"target shares must be positive and sum to 1, got {mu.tolist()}")
    return mu


def _inverted(
    observed: Vector, n: int, mu: Vector, distance: Distance, draw: Draw, confidence: float, seed: int
) -> Estimate:
    """Return the distance of the shares of `n` samples, (K,), with the interval that inverts its bootstrap."""
    value, tail = float(distance(observed, mu)), (1 - confidence) / 2
    direction = _direction(observed, n, mu)

    def member(t: float) -> Vector:
        log_shares = np.log(mu) + t * direction
        shares = np.exp(log_shares - log_shares.max())
        return np.asarray(shares / shares.sum())

    def simulate(shares: Vector) -> Vector:
        return distance(draw(shares, random_stream(seed, "interval")), mu)

    by_chance = float(np.quantile(simulate(member(0.0)), confidence))

    def too_near(t: float) -> bool:
        shares = member(t)
        beyond_chance = float(distance(shares, mu)) > by_chance
        return float((simulate(shares) >= value).mean()) < (tail if beyond_chance else 2 * tail)

    def near_enough(t: float) -> bool:
        shares = member(t)
        return float(distance(shares, mu)) <= by_chance or float((simulate(shares) <= value).mean()) >= tail

    farthest = 1.0
    while near_enough(farthest) and farthest < FARTHEST:
        farthest *= 2
    low = 0.0 if value <= by_chance else float(distance(member(_last(too_near, 2.0)), mu))
    high = float(distance(member(_last(near_enough, farthest)), mu))
    return Estimate(value, min(low, value), max(high, value))


def _direction(observed: Vector, n: int, mu: Vector) -> Vector:
    """Return the log-ratio, (K,), from the target to the observed shares, stretched to at least one standard error.

    Half a sample is added to every class, so that the log-ratio of empty classes is finite.
    """
    ratio = np.log((n * observed + 0.5) / (n + len(mu) / 2) / mu)
    length = math.sqrt(float(mu @ np.square(ratio)))
    if length < 1e-9:  # at the target itself, any direction will do
        ratio, length = np.eye(len(mu))[0], math.sqrt(mu[0])
    return np.asarray(ratio * max(1.0, 1 / (length * math.sqrt(n))))


def _last(holds: Callable[[float], bool], end: float) -> float:
    """Return the largest t in [0, end] at which `holds` is true, by bisection; beyond it, `holds` is false."""
    low, high = 0.0, end
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def _pair(observed: ArrayLike, target: ArrayLike) -> tuple[Vector, Vector]:
    s, mu = np.asarray(observed, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if mu.ndim != 1 or s.ndim < 1 or s.shape[-1] != len(mu):
        raise DataError(f"shares {s.shape} and target {mu.shape} must have the same number of classes in the last axis")
    return s, mu

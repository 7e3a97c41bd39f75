"""All bias metrics of a sampler at once, from labels, from probabilities, or from batches as they arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from promptgen.metrics.distances import (
    Distance,
    check_target,
    discrepancy,
    distance_interval,
    kl_to_target,
    noise_floor,
    noise_floor_kl,
    soft_distance_interval,
    total_variation,
)
from promptgen.metrics.estimate import Estimate, Vector, check_counts
from promptgen.metrics.probabilities import MeanProbabilities
from promptgen.metrics.rows import Rows
from promptgen.metrics.shares import (
    share_estimates,
    soft_share_estimates,
)

DISTANCES: dict[str, Distance] = {
    "kl": kl_to_target,
    "total_variation": total_variation,
    "discrepancy": discrepancy,
}


@dataclass(frozen=True)
class Bias:
    """All bias metrics of one attribute (or product of attributes) as read by one classifier.

    Attributes:
        n: number of labelled samples.
        shares: share of each class with its interval.
        target: target share of each class.
        kl: KL from the target, nats.
        total_variation: total variation distance to the target, in [0, 1].
        discrepancy: Euclidean distance to the target.
        noise_floors: mean of each distance, by name, for labels drawn from exactly the target.
    """

    n: int
    shares: tuple[Estimate, ...]
    target: tuple[float, ...]
    kl: Estimate
    total_variation: Estimate
    discrepancy: Estimate
    noise_floors: dict[str, float]


def measure_bias(
    counts: ArrayLike, target: ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Bias:
    """Return all bias metrics for class counts (K,) and target shares (K,).

    Args:
        counts: number of samples per class; for intersections of attributes, ``joint_table(...).ravel()``.
        target: target shares, all positive.
        confidence: coverage probability of all intervals.
        resamples: number of resamples; see `promptgen.metrics.distances.distance_interval`.
        seed: seed of the simulations.

    Raises:
        DataError: a target share is not positive, or the target shares do not sum to one.
        TooFewSamplesError: there are no samples.

    Example:
        >>> bias = measure_bias([80, 20], target=[0.5, 0.5], resamples=100)
        >>> bias.shares[0].value, round(bias.kl.value, 4), round(bias.total_variation.value, 4)
        (0.8, 0.1927, 0.3)
    """
    checked, mu = check_counts(counts), check_target(target)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    distances = {name: distance_interval(checked, mu, distance, **options) for name, distance in DISTANCES.items()}
    shares = share_estimates(checked, confidence)
    return _bias(int(checked.sum()), shares, mu, distances, resamples, seed)


def measure_soft_bias(
    probabilities: MeanProbabilities | Rows | ArrayLike,
    target: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Bias:
    """Return all bias metrics for mean probabilities, from probability vectors (N, K); see `measure_bias`."""
    moments, mu = MeanProbabilities.of(probabilities), check_target(target)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    distances = {name: soft_distance_interval(moments, mu, distance, **options) for name, distance in DISTANCES.items()}
    return _bias(moments.n, soft_share_estimates(moments, confidence), mu, distances, resamples, seed)


def _bias(
    n: int, shares: list[Estimate], mu: Vector, distances: dict[str, Estimate], resamples: int, seed: int
) -> Bias:
    floors = {
        name: noise_floor(mu, n, distance, resamples=resamples, seed=seed)
        for name, distance in DISTANCES.items()
        if name != "kl"
    }
    return Bias(
        n=n,
        shares=tuple(shares),
        target=tuple(mu.tolist()),
        noise_floors={"kl": noise_floor_kl(len(mu), n), **floors},
        **distances,
    )

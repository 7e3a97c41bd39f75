"""All bias figures of a sampler in one go, from labels, from probabilities, or from batches as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError
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
from promptgen.metrics.estimate import Estimate, check_counts
from promptgen.metrics.shares import (
    check_probabilities,
    class_counts,
    contains_target,
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
    """All bias figures of one attribute (or product of attributes) by one classifier.

    Attributes:
        n: number of labelled samples.
        shares: share of each class with its interval.
        target: wanted share of each class.
        kl: KL to the target, nats.
        total_variation: in [0, 1].
        discrepancy: Euclidean distance.
        noise_floors: mean of each distance that labels of exactly the target show by chance, by its name.
    """

    n: int
    shares: tuple[Estimate, ...]
    target: tuple[float, ...]
    kl: Estimate
    total_variation: Estimate
    discrepancy: Estimate
    noise_floors: dict[str, float]

    @property
    def noise_floor(self) -> float:
        """KL expected by chance alone, nats."""
        return self.noise_floors["kl"]

    @property
    def contains_target(self) -> bool:
        """Tell whether every share's interval contains its wanted share."""
        return contains_target(self.shares, self.target)


def measure_bias(
    counts: ArrayLike, target: ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Bias:
    """Return every bias figure for class counts (K,) and wanted shares (K,).

    Args:
        counts: how often each class occurred; a joint table's ravel for intersections of attributes.
        target: wanted shares, all positive.
        confidence: of every interval.
        resamples: see `distance_interval`.
        seed: seed of the simulations.

    Raises:
        DataError: a wanted share is not positive, or they do not sum to one.
        TooFewSamplesError: there are no samples.
    """
    checked, mu = check_counts(counts), check_target(target)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    distances = {name: distance_interval(checked, mu, each, **options) for name, each in DISTANCES.items()}
    shares = share_estimates(checked, confidence)
    return _bias(int(checked.sum()), shares, mu, distances, resamples, seed)


def measure_soft_bias(
    probabilities: ArrayLike, target: ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Bias:
    """Return every bias figure for mean probabilities, from probability vectors (N, K); otherwise as `measure_bias`."""
    rows, mu = check_probabilities(probabilities), check_target(target)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    distances = {name: soft_distance_interval(rows, mu, each, **options) for name, each in DISTANCES.items()}
    return _bias(len(rows), soft_share_estimates(rows, confidence), mu, distances, resamples, seed)


class BiasCounter:
    """Bias figures of labels that come in batches; the result is that of all labels at once.

    Args:
        target: wanted shares, (K,), all positive.

    Example:
        >>> counter = BiasCounter([0.5, 0.5])
        >>> counter.update([0, 1, 1])
        >>> counter.update([1])
        >>> counter.compute().shares[0].value
        0.25
    """

    def __init__(self, target: ArrayLike) -> None:
        self.target = check_target(target)
        self.counts: NDArray[np.int64] = np.zeros(len(self.target), dtype=np.int64)

    def update(self, labels: ArrayLike) -> None:
        """Take class indices, (B,).

        Raises:
            DataError: an index is not that of a class.
        """
        self.counts = self.counts + class_counts(labels, len(self.target))

    def merge(self, other: BiasCounter) -> None:
        """Take what another counter of the same target has seen.

        Raises:
            DataError: the targets differ.
        """
        if not np.array_equal(self.target, other.target):
            raise DataError(f"counters of the targets {self.target.tolist()} and {other.target.tolist()} do not merge")
        self.counts = self.counts + other.counts

    def compute(self, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Bias:
        """Return every bias figure of the labels so far; see `measure_bias`."""
        return measure_bias(self.counts, self.target, confidence=confidence, resamples=resamples, seed=seed)


def _bias(
    n: int, shares: list[Estimate], mu: ArrayLike, distances: dict[str, Estimate], resamples: int, seed: int
) -> Bias:
    target = check_target(mu)
    floors = {
        name: noise_floor(target, n, each, resamples=resamples, seed=seed)
        for name, each in DISTANCES.items()
        if name != "kl"
    }
    return Bias(
        n=n,
        shares=tuple(shares),
        target=tuple(target.tolist()),
        noise_floors={"kl": noise_floor_kl(len(target), n), **floors},
        **distances,
    )

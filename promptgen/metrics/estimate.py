"""Estimates with confidence intervals, and the resampling behind the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.seeding import derive

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its confidence interval, in the same unit.

    Example:
        >>> Estimate(0.4, low=0.3, high=0.5).contains(0.5)
        True
    """

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        """Return whether `number` lies in the closed interval."""
        return self.low <= number <= self.high

    def as_dict(self) -> dict[str, float]:
        """Return the three numbers under the names ``value``, ``low`` and ``high``."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference with the ends of its confidence interval and the two-sided p-value of no difference."""

    p_value: float

    def as_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {**super().as_dict(), "p_value": self.p_value}


def by_label(labels: Sequence[str], estimates: Sequence[Estimate]) -> dict[str, dict[str, float]]:
    """Return estimates as plain dicts, keyed by the label of their class."""
    return {label: estimate.as_dict() for label, estimate in zip(labels, estimates, strict=True)}


def check_counts(counts: ArrayLike) -> Vector:
    """Return `counts`, (K,), as floats.

    Raises:
        DataError: the counts are not a vector of non-negative whole numbers.
        TooFewSamplesError: the counts sum to zero.
    """
    array = np.asarray(counts, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or (array != np.round(array)).any():
        raise DataError(f"counts must be a vector of whole numbers, 0 or more, got {array.tolist()}")
    if array.sum() == 0:
        raise TooFewSamplesError("all counts are zero: label at least one sample")
    return array


def resample_shares(counts: ArrayLike, resamples: int, seed: int, *names: str | int) -> Vector:
    """Draw bootstrap shares, (resamples, K), from the multinomial distribution with the observed shares.

    Args:
        counts: counts, or expected counts, whose sum is the sample size, (K,).
        resamples: number of resamples.
        seed: seed of the stream.
        names: names of the stream; different names give independent draws.
    """
    array = np.asarray(counts, dtype=np.float64)
    n = round(array.sum())
    return np.asarray(random_stream(seed, *names).multinomial(n, array / array.sum(), size=resamples) / n)


def quantiles(values: Vector, confidence: float) -> tuple[Vector, Vector]:
    """Return the lower and upper ends of the central `confidence` interval of `values`, (R, ...)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def resampled_means(values: ArrayLike, resamples: int, seed: int, *names: str | int) -> Vector:
    """Draw bootstrap means, (resamples, ...), of values (N, ...).

    Args:
        values: one or more numbers per sample.
        resamples: number of resamples.
        seed: seed of the stream.
        names: names of the stream; different names give independent draws.

    Raises:
        DataError: a value is not finite; the message names the sample.
        TooFewSamplesError: there are no samples.
    """
    array, rng = np.asarray(values, dtype=np.float64), random_stream(seed, *names)
    if not len(array):
        raise TooFewSamplesError("a mean needs at least one sample, got none")
    if (wrong := np.argwhere(~np.isfinite(array))).size:
        raise DataError(f"a mean needs finite numbers, got {array[tuple(wrong[0])]} for sample {wrong[0][0]}")
    return np.stack([array[rng.integers(len(array), size=len(array))].mean(axis=0) for _ in range(resamples)])


def mean_interval(values: ArrayLike, *, resamples: int, confidence: float, seed: int, name: str) -> Estimate:
    """Return the mean of values, (N,), with a bootstrap interval from the random stream `name`.

    Raises:
        DataError: a value is not finite.
        TooFewSamplesError: there are no values.
    """
    low, high = quantiles(resampled_means(values, resamples, seed, name), confidence)
    return Estimate(float(np.asarray(values, dtype=np.float64).mean()), float(low), float(high))


def random_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy counterpart of `promptgen.seeding.stream`, for draws that torch lacks (Poisson, Dirichlet)."""
    return np.random.default_rng(derive(seed, *names))


def student_quantile(n: int, confidence: float) -> float:
    """Return half the width, in standard errors estimated from `n` values, of the interval of their mean."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(n - 1, 0.5 + confidence / 2))

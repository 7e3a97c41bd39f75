"""An estimated number with its confidence interval, and the resampling that intervals are made from."""

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
    """A number with the ends of its confidence interval, in the same unit."""

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        """Tell whether `number` lies in the closed interval."""
        return self.low <= number <= self.high

    def as_dict(self) -> dict[str, float]:
        """Return the three numbers under the names ``value``, ``low`` and ``high``."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference with the ends of its confidence interval, and the p-value of there being none (two-sided)."""

    p_value: float

    def as_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {**super().as_dict(), "p_value": self.p_value}


def by_label(labels: Sequence[str], estimates: Sequence[Estimate]) -> dict[str, dict[str, float]]:
    """Return estimates as plain dicts, by the label of their class."""
    return {label: each.as_dict() for label, each in zip(labels, estimates, strict=True)}


def check_counts(counts: ArrayLike) -> Vector:
    """Return `counts`, (K,), as floats.

    Raises:
        DataError: they are not a vector of whole numbers from 0 on.
        TooFewSamplesError: they sum to zero.
    """
    array = np.asarray(counts, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or (array != np.round(array)).any():
        raise DataError(f"counts must be a vector of whole numbers from 0 on, got {array.tolist()}")
    if array.sum() == 0:
        raise TooFewSamplesError("all counts are zero: give at least one labelled sample")
    return array


def resample_shares(counts: ArrayLike, resamples: int, seed: int, *names: str | int) -> Vector:
    """Draw bootstrap shares, (resamples, K): multinomial with the observed shares, so no sample is touched again.

    Args:
        counts: counts, or expected counts, whose sum is the sample size, (K,).
        resamples: how many.
        seed: seed of the stream.
        names: names of the stream; different names give independent draws.
    """
    array = np.asarray(counts, dtype=np.float64)
    n = round(array.sum())
    return np.asarray(random_stream(seed, *names).multinomial(n, array / array.sum(), size=resamples) / n)


def quantiles(values: Vector, confidence: float) -> tuple[Vector, Vector]:
    """Return the two quantiles between which the middle part `confidence` of `values`, (R, ...), lies."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def resampled_means(values: ArrayLike, resamples: int, seed: int, *names: str | int) -> Vector:
    """Draw bootstrap means, (resamples, ...), of values (N, ...).

    Args:
        values: one number, or several, per sample.
        resamples: how many.
        seed: seed of the stream.
        names: names of the stream; different names give independent draws.

    Raises:
        TooFewSamplesError: there are no samples.
    """
    array, rng = np.asarray(values, dtype=np.float64), random_stream(seed, *names)
    if not len(array):
        raise TooFewSamplesError("a mean needs at least one sample, got none")
    return np.stack([array[rng.integers(len(array), size=len(array))].mean(axis=0) for _ in range(resamples)])


def mean_interval(values: ArrayLike, *, resamples: int, confidence: float, seed: int, name: str) -> Estimate:
    """Return the mean of values, (N,), with a bootstrap interval from the stream called `name`.

    Raises:
        TooFewSamplesError: there are no values.
    """
    low, high = quantiles(resampled_means(values, resamples, seed, name), confidence)
    return Estimate(float(np.asarray(values, dtype=np.float64).mean()), float(low), float(high))


def random_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy counterpart of `promptgen.seeding.stream`, which lacks multinomial and Poisson draws."""
    return np.random.default_rng(derive(seed, *names))

"""Undoing the errors of the classifier that counted.

With the confusion ``A[i, j] = P(predicted j | true i)`` measured on labelled data, predicted shares are ``A^T s``, so

    s_true = (A^T)^-1 s_predicted,    two classes: p_0 = (m - (1 - a_1)) / (a_0 + a_1 - 1).

Source of the two-class form and of its interval: Teo, Abdollahzadeh, Cheung, *On Measuring Fairness in Generative
Models* (CLEAM), NeurIPS 2023, arXiv 2310.19297. Beyond it, `corrected_shares` carries the uncertainty of A as well.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, check_counts, quantiles, random_stream

LEAST_DETERMINANT = 1e-6
"""Below this determinant a classifier's answers say nothing about the shares."""


def cleam(share: float, accuracies: tuple[float, float]) -> float:
    """Return the true share of class 0 in [0, 1] from its predicted share and the accuracies on classes 0 and 1.

    Raises:
        DataError: the accuracies do not sum to more than 1, so the classifier is no better than chance.
    """
    a0, a1 = accuracies
    if not a0 + a1 > 1:
        raise DataError(f"the accuracies {a0:g} and {a1:g} must sum to more than 1: use a better classifier")
    return min(max((share - (1 - a1)) / (a0 + a1 - 1), 0.0), 1.0)


def cleam_interval(
    mean: float, deviation: float, runs: int, accuracies: tuple[float, float], confidence: float = 0.95
) -> Estimate:
    """Return CLEAM's corrected share of class 0; its interval takes the accuracies as known exactly.

    Args:
        mean: mean of the predicted shares of several runs.
        deviation: their standard deviation.
        runs: how many runs (30 in the paper).
        accuracies: P(predicted 0 | true 0) and P(predicted 1 | true 1).
        confidence: probability that the interval covers.
    """
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation / math.sqrt(runs)
    value, low, high = (cleam(share, accuracies) for share in (mean, mean - half, mean + half))
    return Estimate(value, low, high)


def invert_confusion(predicted: ArrayLike, confusion: ArrayLike) -> Vector:
    """Return true shares, (..., K), from predicted ones, (..., K), and ``P(predicted j | true i)``, (..., K, K).

    Raises:
        DataError: a determinant is not positive; for two classes, the accuracies do not sum to more than 1.
    """
    shares, matrix = np.asarray(predicted, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    if (np.linalg.det(matrix) < LEAST_DETERMINANT).any():
        raise DataError("the confusion is no better than chance: use a better classifier or label more samples")
    solved = np.linalg.solve(np.swapaxes(matrix, -1, -2), shares[..., None])[..., 0]
    return project_to_simplex(solved)


def project_to_simplex(points: ArrayLike) -> Vector:
    """Return the nearest probability vectors, (..., K), in Euclidean distance, of points (..., K).

    Source: Duchi et al., *Efficient projections onto the l1-ball for learning in high dimensions*, ICML 2008.
    """
    array = np.asarray(points, dtype=np.float64)
    descending = -np.sort(-array, axis=-1)
    excess = (np.cumsum(descending, axis=-1) - 1) / np.arange(1, array.shape[-1] + 1)
    last = (descending > excess).sum(axis=-1, keepdims=True) - 1
    return np.asarray(np.maximum(array - np.take_along_axis(excess, last, axis=-1), 0))


def corrected_shares(
    counts: ArrayLike, confusion_counts: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Return the true share of each class; its interval carries the sampling of the shares and of the confusion.

    Both are drawn from their posteriors under Jeffreys' prior, so that a cell that never occurred is not taken for
    impossible.

    Args:
        counts: how often each class was predicted, (K,).
        confusion_counts: labelled samples by true class (rows) and predicted class, (K, K).
        confidence: probability that an interval covers.
        resamples: number of draws.
        seed: seed of the draws.

    Raises:
        TooFewSamplesError: a true class has no labelled sample.
        DataError: the confusion cannot be inverted.
    """
    predicted, table = check_counts(counts), np.asarray(confusion_counts, dtype=np.float64)
    if table.shape != (len(predicted), len(predicted)):
        raise DataError(f"expected a confusion table for {len(predicted)} classes, got shape {table.shape}")
    if (table.sum(axis=1) == 0).any():
        raise TooFewSamplesError(f"true class {int(np.argmin(table.sum(axis=1)))} has no labelled sample")
    rng = random_stream(seed, "correction")
    shares = rng.dirichlet(predicted + 0.5, size=resamples)
    confusions = np.stack([rng.dirichlet(row + 0.5, size=resamples) for row in table], axis=1)
    values = invert_confusion(predicted / predicted.sum(), table / table.sum(axis=1, keepdims=True))
    low, high = quantiles(invert_confusion(shares, confusions), confidence)
    return [Estimate(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in zip(values, low, high, strict=True)]

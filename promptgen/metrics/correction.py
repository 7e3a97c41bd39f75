"""Undoing the errors of the classifier that counted.

With the confusion ``A[i, j] = P(predicted j | true i)`` measured on labelled data, predicted shares are ``A^T s``, so

    s_true = (A^T)^-1 s_predicted,    two classes: p_0 = (m - (1 - a_1)) / (a_0 + a_1 - 1).

Source of the two-class form and of its interval: Teo, Abdollahzadeh, Cheung, *On Measuring Fairness in Generative
Models* (CLEAM), NeurIPS 2023, arXiv 2310.19297. Beyond it, `corrected_shares` carries the uncertainty of A as well, and
`impossible_classes` tells where no true shares at all could have given the predicted ones.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    _check_determinants(matrix)
    return project_to_simplex(_solve(shares, matrix))


def _check_determinants(confusion: Vector) -> None:
    if not _is_sound(confusion).all():
        raise DataError("the confusion is no better than chance: use a better classifier or label more samples")


def _is_sound(confusion: Vector) -> NDArray[np.bool_]:
    """Tell, (...), whether confusions, (..., K, K), are better than chance."""
    return np.asarray(np.linalg.det(confusion) >= LEAST_DETERMINANT)


def _solve(predicted: Vector, confusion: Vector) -> Vector:
    """Return the numbers, (..., K), that the confusion turns into the predicted shares; some may lie outside [0, 1]."""
    return np.asarray(np.linalg.solve(np.swapaxes(confusion, -1, -2), predicted[..., None])[..., 0])


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
    impossible. A drawn confusion that is no better than chance allows any share: it counts as 0 for the lower ends and
    as 1 for the upper ones.

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
    predicted, table = _check(counts, confusion_counts)
    shares, confusions = _posteriors(predicted + 0.5, table + 0.5, resamples, seed)
    values = invert_confusion(predicted / predicted.sum(), table / table.sum(axis=1, keepdims=True))
    sound = _is_sound(confusions)
    found = project_to_simplex(_solve(shares[sound], confusions[sound]))
    (low, _), (_, high) = (
        quantiles(np.vstack([found, np.full_like(shares[~sound], end)]), confidence) for end in (0.0, 1.0)
    )
    return [Estimate(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in zip(values, low, high, strict=True)]


def impossible_classes(
    counts: ArrayLike, confusion_counts: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[int]:
    """Return the classes whose counts no true shares could have given: for them, the confusion table does not hold.

    An example is a class that was predicted more rarely than the classifier takes the others for it. Undoing the errors
    takes the share of such a class below 0. `corrected_shares` then answers 0, which hides that the table was measured
    on other samples than those that were counted.

    Each class is tested for a share below 0 and for one above 1, each at the level (1 - `confidence`) / K. No more than
    K of these 2 K tests can be at the edge of what they test, so by Bonferroni the list is empty in at least
    `confidence` of all cases in which the table holds: over all classes together, also where true shares are 0. Two
    classes are thus named where the equal-tailed interval of that confidence lies wholly outside.

    The draws are those of `corrected_shares` but for the prior. Here it adds 1 to what makes shares possible (counts,
    and right answers in the table) and 0 to what makes them impossible (errors), which for one cell gives the limits of
    Clopper and Pearson. Jeffreys' half an error in every cell of the table would, with many classes, add up to errors
    that nobody has seen.

    An empty list is no proof that the table holds, as a wrong table mostly gives possible shares, only wrong ones.

    Args:
        counts: how often each class was predicted, (K,).
        confusion_counts: labelled samples by true class (rows) and predicted class, (K, K).
        confidence: least probability that no class is named where the table holds.
        resamples: number of draws.
        seed: seed of the draws.

    Returns:
        Indices of classes, ascending. With two classes it is both or none.

    Raises:
        TooFewSamplesError: a true class has no labelled sample.
        DataError: the confusion cannot be inverted.
    """
    predicted, table = _check(counts, confusion_counts)
    classes = len(predicted)
    _check_determinants(table / table.sum(axis=1, keepdims=True))
    shares, confusions = _posteriors(predicted + 1, table + np.eye(classes), resamples, seed)
    sound = _is_sound(confusions)  # any other draw explains everything
    solved = _solve(shares[sound], confusions[sound])
    level = (1 - confidence) / classes
    beyond = [(outside.sum(axis=0) / resamples) > 1 - level for outside in (solved < 0, solved > 1)]
    return [int(index) for index in np.flatnonzero(beyond[0] | beyond[1])]


def _check(counts: ArrayLike, confusion_counts: ArrayLike) -> tuple[Vector, Vector]:
    """Return counts, (K,), and a confusion table that goes with them, (K, K)."""
    predicted, table = check_counts(counts), np.asarray(confusion_counts, dtype=np.float64)
    if table.shape != (len(predicted), len(predicted)):
        raise DataError(f"expected a confusion table for {len(predicted)} classes, got shape {table.shape}")
    if (table.sum(axis=1) == 0).any():
        raise TooFewSamplesError(f"true class {int(np.argmin(table.sum(axis=1)))} has no labelled sample")
    return predicted, table


def _posteriors(counts: Vector, table: Vector, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Draw shares, (R, K), and confusions, (R, K, K), by Dirichlet's distribution of counts with the prior's added."""
    rng = random_stream(seed, "correction")
    shares = rng.dirichlet(counts, size=resamples)
    return shares, np.stack([rng.dirichlet(row, size=resamples) for row in table], axis=1)

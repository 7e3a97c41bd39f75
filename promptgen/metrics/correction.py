"""Correct class shares for the errors of the classifier that counted them.

With the confusion ``A[i, j] = P(predicted j | true i)`` measured on labelled data, predicted shares are ``A^T s``, so

    s_true = (A^T)^-1 s_predicted,    two classes: p_0 = (m - (1 - a_1)) / (a_0 + a_1 - 1).

Source of the two-class form: Teo, Abdollahzadeh, Cheung, *On Measuring Fairness in Generative Models* (CLEAM), NeurIPS
2023, arXiv 2310.19297. In addition, the intervals of `corrected_shares` include the uncertainty of A, and
`impossible_classes` finds predicted shares that no true shares could have produced.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, check_counts, quantiles, random_stream

LEAST_DETERMINANT = 1e-6
"""Below this determinant of its confusion, a classifier's predictions say nothing about the shares."""


def invert_confusion(predicted: ArrayLike, confusion: ArrayLike) -> Vector:
    """Return true shares, (..., K), from predicted ones, (..., K), and ``P(predicted j | true i)``, (..., K, K).

    Raises:
        DataError: a determinant is not positive; with two classes, the accuracies do not sum to more than 1.
    """
    shares, matrix = np.asarray(predicted, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    _check_determinants(matrix)
    return project_to_simplex(_solve(shares, matrix))


def _check_determinants(confusion: Vector) -> None:
    if not _is_sound(confusion).all():
        raise DataError("the confusion is no better than chance: use a better classifier or label more samples")


def _is_sound(confusion: Vector) -> NDArray[np.bool_]:
    """Return whether each confusion, (..., K, K), is better than chance, (...)."""
    return np.asarray(np.linalg.det(confusion) >= LEAST_DETERMINANT)


def _solve(predicted: Vector, confusion: Vector) -> Vector:
    """Return the numbers, (..., K), that the confusion maps to the predicted shares; some may lie outside [0, 1]."""
    return np.asarray(np.linalg.solve(np.swapaxes(confusion, -1, -2), predicted[..., None])[..., 0])


def project_to_simplex(points: ArrayLike) -> Vector:
    """Return the probability vectors, (..., K), closest to points (..., K) in Euclidean distance.

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
    """Return the true share of each class; its interval includes the sampling error of the shares and the confusion.

    Shares and confusions are drawn from their posteriors under Jeffreys' prior, so a cell that never occurred is not
    treated as impossible. A drawn confusion that is no better than chance allows any share: it counts as 0 for the
    lower ends and as 1 for the upper ends.

    Args:
        counts: number of predictions per class, (K,).
        confusion_counts: labelled samples by true class (rows) and predicted class, (K, K).
        confidence: coverage probability of the intervals.
        resamples: number of draws.
        seed: seed of the draws.

    Raises:
        TooFewSamplesError: a true class has no labelled sample.
        DataError: the confusion cannot be inverted.

    Example:
        The classifier recognises 90 % of class 0 and 80 % of class 1, so 55 % predicted means 50 % true:

        >>> shares = corrected_shares([550, 450], [[90, 10], [20, 80]], resamples=200)
        >>> round(shares[0].value, 6), shares[0].contains(0.5)
        (0.5, True)
    """
    predicted, table = _check(counts, confusion_counts)
    shares, confusions = _posteriors(predicted + 0.5, table + 0.5, resamples, seed)
    values = invert_confusion(predicted / predicted.sum(), table / table.sum(axis=1, keepdims=True))
    sound = _is_sound(confusions)
    corrected = project_to_simplex(_solve(shares[sound], confusions[sound]))
    (low, _), (_, high) = (
        quantiles(np.vstack([corrected, np.full_like(shares[~sound], end)]), confidence) for end in (0.0, 1.0)
    )
    return [Estimate(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in zip(values, low, high, strict=True)]


def impossible_classes(
    counts: ArrayLike, confusion_counts: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[int]:
    """Return the classes whose counts no true shares could have produced, so that the confusion table cannot apply.

    For example, a class may be predicted less often than the classifier's mistakes on the other classes alone would
    predict it. The correction then gives it a share below 0. `corrected_shares` returns 0, which hides that the table
    was measured on a different kind of samples.

    Each class is tested for a share below 0 and for a share above 1, each at the level (1 - `confidence`) / K. At most
    K of these 2 K null hypotheses can be tight, so by Bonferroni the list is empty with a probability of at least
    `confidence` if the table applies: jointly over all classes, and even if some true shares are 0. With two classes,
    both are listed if the equal-tailed interval of that confidence lies entirely outside [0, 1].

    The draws are those of `corrected_shares` except for the prior. Here it adds 1 to counts and to correct predictions,
    which make shares possible, and 0 to errors, which make them impossible. For a single cell this gives the limits of
    Clopper and Pearson. Jeffreys' prior adds half an error to every cell, which with many classes would amount to
    errors that were never observed.

    An empty list does not prove that the table applies: a wrong table usually gives possible, but wrong, shares.

    Args:
        counts: number of predictions per class, (K,).
        confusion_counts: labelled samples by true class (rows) and predicted class, (K, K).
        confidence: smallest probability that no class is listed if the table applies.
        resamples: number of draws.
        seed: seed of the draws.

    Returns:
        Indices of classes, ascending. With two classes, either both or none.

    Raises:
        TooFewSamplesError: a true class has no labelled sample.
        DataError: the confusion cannot be inverted.

    Example:
        10 % of class 1 are mistaken for class 0, so class 0 cannot be predicted in only 1 % of cases:

        >>> impossible_classes([10, 990], [[900, 100], [100, 900]], resamples=200)
        [0, 1]
    """
    predicted, table = _check(counts, confusion_counts)
    classes = len(predicted)
    _check_determinants(table / table.sum(axis=1, keepdims=True))
    shares, confusions = _posteriors(predicted + 1, table + np.eye(classes), resamples, seed)
    sound = _is_sound(confusions)  # the other draws allow any share
    solved = _solve(shares[sound], confusions[sound])
    level = (1 - confidence) / classes
    beyond = [(outside.sum(axis=0) / resamples) > 1 - level for outside in (solved < 0, solved > 1)]
    return [int(index) for index in np.flatnonzero(beyond[0] | beyond[1])]


def _check(counts: ArrayLike, confusion_counts: ArrayLike) -> tuple[Vector, Vector]:
    """Return counts, (K,), and a matching confusion table, (K, K), as floats."""
    predicted, table = check_counts(counts), np.asarray(confusion_counts, dtype=np.float64)
    if table.shape != (len(predicted), len(predicted)):
        raise DataError(f"expected a confusion table for {len(predicted)} classes, got shape {table.shape}")
    if (table.sum(axis=1) == 0).any():
        empty = int(np.argmin(table.sum(axis=1)))
        raise TooFewSamplesError(f"true class {empty} has no labelled sample: label at least one of every class")
    return predicted, table


def _posteriors(counts: Vector, table: Vector, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Draw shares, (R, K), and confusions, (R, K, K), from Dirichlet distributions with these counts as parameters."""
    rng = random_stream(seed, "correction")
    shares = rng.dirichlet(counts, size=resamples)
    return shares, np.stack([rng.dirichlet(row, size=resamples) for row in table], axis=1)

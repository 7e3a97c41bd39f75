"""Landing on target shares: multipliers from many samples of a surrogate, corrected by true evaluations.

The share of a class under a flow is its mean predicted probability over many samples, which make no image, plus the
mean of (true label - predicted probability) over evaluated samples: a control variate. Its error is that of the
surrogate's mistakes, not that of the shares themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptgen.metrics.estimate import Vector

LARGEST_STEP, MOST_STEPS = 1.0, 100
"""Largest change of a multiplier in a Newton step, nats, and most steps."""

LEAST_SHARE = 1e-4
"""Shares that a correction would make smaller, or negative, become this large."""


def one_hot(probabilities: Tensor) -> Tensor:
    """Return the most probable class of each row, (N, K), as a one-hot vector, (N, K)."""
    hot: Tensor = torch.nn.functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).to(probabilities)
    return hot


@dataclass(frozen=True)
class Residuals:
    """What is counted minus predicted probabilities, for evaluated samples.

    Attributes:
        mean: mean difference, (K,).
        error: its standard error, (K,).
        n: number of samples.
    """

    mean: Vector
    error: Vector
    n: int

    @classmethod
    def of(cls, differences: Tensor) -> Residuals:
        """Return the residuals of differences between what is counted and predicted probabilities, (N, K)."""
        n = len(differences)
        values = differences.double().cpu().numpy()
        return cls(values.mean(axis=0), values.std(axis=0) / np.sqrt(max(n - 1, 1)), n)


def positive_shares(shares: Vector) -> Vector:
    """Return shares, (K,), that are positive and sum to 1; a share that is not positive becomes small."""
    clipped = np.clip(shares, LEAST_SHARE, None)
    return np.asarray(clipped / clipped.sum())


def least_move(jacobian: Tensor, change: Tensor) -> Tensor:
    """Return the shortest move of parameters, (P,), that changes shares by `change`, (K,), to first order.

    Args:
        jacobian: derivatives of the shares with respect to the parameters, (K, P), whose rows sum to zero.
        change: wanted change of the shares, (K,), which sums to zero.

    Example:
        >>> least_move(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]), torch.tensor([0.5, -0.5])).tolist()
        [0.06, 0.08]
    """
    rows = jacobian.double()
    weights = torch.linalg.pinv(rows @ rows.T, rtol=1e-6, hermitian=True) @ change.double()
    return (weights @ rows).to(jacobian)


def solve_multipliers(predicted: Vector, target: Vector, start: Vector) -> Vector:
    """Return beta, (K,) with mean zero, for which samples weighted by ``exp(beta . predicted)`` have the target shares.

    Newton's method, with steps of at most `LARGEST_STEP`: the mean probabilities change with beta by their covariance.

    Args:
        predicted: class probabilities, (M, K), whose weighted mean are the shares.
        target: target shares, (K,), positive.
        start: first guess, (K,).

    Example:
        Of 100 samples, 80 are certainly of the first class, and both classes should be equally frequent:

        >>> predicted = np.repeat([[1.0, 0.0], [0.0, 1.0]], [80, 20], axis=0)
        >>> solve_multipliers(predicted, np.array([0.5, 0.5]), np.zeros(2)).round(4).tolist()  # -log(2), log(2)
        [-0.6931, 0.6931]
    """
    beta = start - start.mean()
    for _ in range(MOST_STEPS):
        scores = predicted @ beta
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        shares = weights @ predicted
        if np.abs(target - shares).max() < 1e-7:
            break
        covariance = (predicted * weights[:, None]).T @ predicted - np.outer(shares, shares)
        step = np.linalg.lstsq(covariance, target - shares, rcond=1e-6)[0]
        step -= step.mean()
        beta = beta + step * min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), 1e-12))
    return np.asarray(beta)

"""Directions of the latent that an energy depends on, and what a flow confined to them gives away.

With gradients in units of the prior, let ``H = E_{p*}[grad E grad E']``. Of all densities that differ from the prior
along the columns of U alone, let p*_U be the closest one to p*. Then

    ``KL(p* || p*_U) <= tr((I - U U') H) / 2 = E_{p*}[|(I - U U') grad E|^2] / 2``,

which is half the sum of the smaller eigenvalues if U has the leading eigenvectors of H. No matrix of all directions is
held: the gradients of n records have a thin singular value decomposition.

O. Zahm, T. Cui, K. Law, A. Spantini, Y. Marzouk, "Certified dimension reduction in nonlinear Bayesian inverse
problems", Mathematics of Computation 2022, https://arxiv.org/abs/1807.03712
P. G. Constantine, "Active Subspaces", SIAM 2015
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from promptgen.metrics.estimate import Estimate

DENSE = 0.75
"""Above this fraction of all directions, a flow is not confined to the active ones, all images that a surrogate is
fitted to have gradients, and a surrogate that is wrong about the flow gives way to true gradients."""

LEAST_EIGENVALUE = 2e-3
"""Directions with a smaller eigenvalue, as a fraction of the largest one, are ignored."""

MOST_GIVEN_AWAY, HARDLY_LESS = 0.1, 1.1
"""Nats that may be given away by what the exploring records tell; more directions are kept if it is more, until it is
not, or until all directions together would hardly give away less: this factor."""

MOST_DIRECTIONS = 512
"""Most directions that are kept for the sake of the bound."""

LEAST_EFFECTIVE = 0.2
"""Effective sample size, as a fraction, of weighted records; the energy counts less where it would be smaller."""

COLUMNS = 2048
"""Columns of a wide matrix that are converted to double precision at a time."""


def active_directions(gradient: Tensor, scale: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the active directions, orthonormal columns (D, R) in units of the prior, and their scales, (R,).

    Gradients of steep features differ by orders of magnitude, so each is divided by its length plus the median length.

    Args:
        gradient: gradients with respect to the latent, (N, D); rows of zeros are ignored.
        scale: standard deviations of the latent's prior, (D,).
        rank: number of directions R, at least 2, if there are as many; None ignores those of a negligible eigenvalue.
    """
    nonzero = gradient.any(dim=1)
    rows = (gradient if bool(nonzero.all()) else gradient[nonzero]) * scale
    length = rows.double().norm(dim=1, keepdim=True) if len(rows) >= rows.shape[1] else rows.norm(dim=1, keepdim=True)
    singular, directions = _principal(rows, length + length.median(), lambda values: rank or _clear(values))
    return directions, (singular[: directions.shape[1]] / singular[0]).clamp(min=1e-3).to(gradient)


def enough_directions(gradient: Tensor, scale: Tensor, log_weight: Tensor) -> int | None:
    """Return how many active directions give away little by the bound, None if those of `active_directions` do.

    Each half of the records tells what directions that the other half chooses give away. Few records with a steep
    gradient dominate the estimate, so it is its lower end that counts.

    Args:
        gradient: gradients of the energy with respect to the latent, nats, (N, D).
        scale: standard deviations of the latent's prior, (D,).
        log_weight: log weights of the records as samples of p*, (N,).
    """
    least = active_directions(gradient, scale)[0].shape[1]
    halves = gradient[::2], gradient[1::2]
    outside = [_outside_each(*pair, scale, max(least, MOST_DIRECTIONS)) for pair in (halves, halves[::-1])]
    most = min(squares.shape[1] for squares in outside)
    squares = torch.cat([squares[:, :most] for squares in outside])
    left, half = _weighted_mean(0.5 * squares, tempered(torch.cat([log_weight[1::2], log_weight[::2]])))
    low = left - half
    if float(low[min(least, most) - 1]) <= MOST_GIVEN_AWAY:
        return None
    little = low <= max(MOST_GIVEN_AWAY, HARDLY_LESS * float(low[-1]))
    return max(least, int(little.long().argmax()) + 1)


def _outside_each(choosing: Tensor, telling: Tensor, scale: Tensor, most: int) -> Tensor:
    """Return the squared lengths, (N, R), that the second gradients have outside the first 1, 2, ... directions."""
    directions, _ = active_directions(choosing, scale, rank=most)
    rows = telling * scale
    along = (rows @ directions).double().square().cumsum(dim=1)
    return (rows.double().square().sum(dim=1, keepdim=True) - along).clamp(min=0)


def tempered(log_weight: Tensor) -> Tensor:
    """Return log weights, (N,), times the largest factor up to 1 at which few samples do not outweigh the others."""
    low, high = 0.0, 1.0
    if _effective(log_weight) >= LEAST_EFFECTIVE:
        return log_weight
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _effective(middle * log_weight) >= LEAST_EFFECTIVE else (low, middle)
    return low * log_weight


def outside(rows: Tensor, directions: Tensor) -> Tensor:
    """Return the squared length, (N,), of what rows, (N, D), have outside the span of orthonormal columns (D, R)."""
    return (rows - (rows @ directions) @ directions.T).square().sum(dim=1)


def given_away(squares: Tensor, log_weight: Tensor, confidence: float = 0.95) -> Estimate:
    """Return the bound on ``KL(p* || p*_U)``, nats, with a normal interval.

    Args:
        squares: squared length of the energy's gradient outside the directions, in units of the prior, (N,), at samples
            that have not chosen the directions.
        log_weight: log weights of the samples, ``log p*/q`` up to a constant, (N,).
        confidence: probability with which the interval holds the bound.

    Example:
        >>> round(given_away(torch.tensor([0.2, 0.2, 0.2]), torch.zeros(3)).value, 6)  # half of 0.2
        0.1
    """
    value, half = map(float, _weighted_mean(0.5 * squares.double(), log_weight, confidence))
    return Estimate(value, max(0.0, value - half), value + half)


def _weighted_mean(values: Tensor, log_weight: Tensor, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the weighted mean over the first dimension of values, (N, ...), and half the width of its interval."""
    weights = log_weight.to(values).softmax(dim=0)
    mean = torch.tensordot(weights, values, 1)
    error = torch.tensordot(weights.square(), (values - mean).square(), 1).sqrt()
    return mean, NormalDist().inv_cdf(0.5 + confidence / 2) * error


def _principal(rows: Tensor, length: Tensor, rank: Callable[[Tensor], int]) -> tuple[Tensor, Tensor]:
    """Return the singular values of rows, (N, D), divided by `length`, (N, 1), and the leading directions, (D, R).

    With fewer rows than columns, they come from the eigenvectors of the N x N matrix of inner products, which takes a
    tenth of the memory.

    Args:
        rows: the rows.
        length: by what each row is divided.
        rank: returns how many directions are kept, given all singular values.
    """
    if len(rows) >= rows.shape[1]:
        _, singular, directions = torch.linalg.svd(rows.double() / length, full_matrices=False)
        return singular, directions[: rank(singular)].T.to(rows)
    rows = rows / length
    gram = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, COLUMNS, dim=1):
        gram += part.double() @ part.double().T
    eigenvalues, left = torch.linalg.eigh(gram)
    singular = eigenvalues.flip(0).clamp(min=0).sqrt()
    directions = rows.T @ left.flip(1)[:, : rank(singular)].to(rows)
    return singular, torch.linalg.qr(directions)[0]  # those of small singular values are not quite orthogonal yet


def _clear(singular: Tensor) -> int:
    """Return how many eigenvalues are not negligible; at least 2, as a flow needs two directions."""
    return max(2, int((singular.square() > LEAST_EIGENVALUE * singular[0].square()).sum()))


def _effective(log_weight: Tensor) -> float:
    weights = log_weight.double().softmax(dim=0)
    return 1 / (float(weights.square().sum()) * len(weights))

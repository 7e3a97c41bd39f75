"""Landing on target shares: multipliers from many samples of a surrogate, corrected by true evaluations.

The share of a class under a flow is its mean predicted probability over many samples, which make no image, plus the
mean of (true label - predicted probability) over evaluated samples: a control variate. Its error is that of the
surrogate's mistakes, not that of the shares themselves.

A descent leaves shares that hang on the noise of its last steps. Predicted shares are smooth functions of the flow's
parameters, so a short move of the parameters, found by a damped Newton's method, then gives the target shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.surrogate import Surrogate
from promptgen.labels import FeatureKind
from promptgen.metrics.estimate import Vector

LARGE, CHUNK = 40_960, 4096
"""Samples behind predicted shares, which make no image, and how many are predicted at a time."""

TOLERANCE, MOST_MOVES, LEAST_GAIN = 0.0005, 6, 0.2
"""Largest difference between expected and target shares that needs no move of the flow, most moves, and the fraction of
the difference that a move has to make up for to be followed by another one."""

RIDGE = 0.05
"""Ridge of a move, as a fraction of the largest eigenvalue: shares that only a long move would change are left as they
are, since it would spoil the flow."""

DAMPING = 0.7
"""Fraction of the shares that the flow has beyond those of the tilt for which the next tilt makes up."""

LARGEST_STEP, MOST_STEPS = 1.0, 100
"""Largest change of a multiplier in a Newton step, nats, and most steps."""

LEAST_SHARE = 1e-4
"""Shares that a correction would make smaller, or negative, become this large."""


@dataclass(frozen=True)
class Target:
    """Target shares of class probabilities.

    Attributes:
        shares: the shares, (K,), positive.
        kind: whether they are of labels ("hard") or mean probabilities ("soft").
    """

    shares: Vector
    kind: FeatureKind = "hard"

    def counted(self, probabilities: Tensor) -> Tensor:
        """Return what is averaged to shares, (N, K), of class probabilities, (N, K)."""
        return one_hot(probabilities) if self.kind == "hard" else probabilities


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


@dataclass
class Landing:
    """What is known of a flow's shares, and how it gets the target ones.

    Attributes:
        target: the target shares.
        beta: multipliers of the tilt, nats per unit of probability, (K,), which `tilt` moves.
        start: the distribution that the flow starts from.
        proposal: has the flow.
    """

    target: Target
    beta: Vector
    start: Proposal
    proposal: Proposal
    offset: Vector = field(init=False)  # shares that the flow has beyond those of the tilt
    differences: list[Tensor] = field(default_factory=list)  # what is counted minus what is predicted, (N, K)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what the flow misses, so that the next tilt has the target shares itself."""
        self.offset = np.zeros_like(self.target.shares)

    def use(self, surrogate: Surrogate) -> None:
        """Predict by this surrogate from now on."""
        self.surrogate = surrogate
        self.start_predicted = self._predictions(self.start, "tilt")

    def tilt(self) -> None:
        """Choose the multipliers whose tilt has the target shares, less what the flow adds to them."""
        shares = positive_shares(self.target.shares - self.offset - self._known_error)
        self.beta = solve_multipliers(self.start_predicted, shares, self.beta)

    def make_up(self) -> None:
        """Choose multipliers that make up for the shares that the flow misses, as it cannot follow a tilt exactly."""
        self.offset = self.offset + DAMPING * self.missed_shares()
        self.tilt()

    def aim(self) -> None:
        """Move the flow's parameters as little as possible towards the target shares; keep the closest flow."""
        parameters = self._parameters()
        closest, least = parameters_to_vector(parameters).detach(), math.inf
        for _ in range(MOST_MOVES):
            missed, now, last = self.missed_shares(), parameters_to_vector(parameters).detach(), least
            if self._size(missed) < least:
                closest, least = now, self._size(missed)
            if least <= TOLERANCE or least > (1 - LEAST_GAIN) * last:
                break
            vector_to_parameters(now + short_move(self._share_gradients(), torch.as_tensor(-missed)), parameters)
        vector_to_parameters(closest, parameters)

    def misses(self, tolerance: float) -> bool:
        """Return whether a share is further than `tolerance` from its target."""
        return self._size(self.missed_shares()) > tolerance

    @staticmethod
    def _size(missed: Vector) -> float:
        return float(np.abs(missed).max())

    def learn(self, base: Tensor, probabilities: Tensor) -> None:
        """Take true probabilities, (N, K), of the flow's samples into account, whose base latents are (N, D)."""
        self.differences.append(self.difference(base, probabilities))

    @torch.no_grad()
    def difference(self, base: Tensor, probabilities: Tensor) -> Tensor:
        """Return what is counted of true probabilities, (N, K), minus the predicted ones."""
        return self.target.counted(probabilities) - self.surrogate(base)

    def predicted_shares(self) -> Vector:
        """Return the flow's mean predicted probabilities, (K,)."""
        return np.asarray(self._predictions(self.proposal, "shares").mean(axis=0))

    def missed_shares(self) -> Vector:
        """Return the flow's shares minus the target ones, (K,), by predictions and what is known of their error."""
        return self.predicted_shares() + self._known_error - self.target.shares

    @property
    def _known_error(self) -> Vector:
        """Mean of what is counted minus what is predicted, (K,); zeros before anything has been counted."""
        return Residuals.of(torch.cat(self.differences)).mean if self.differences else np.zeros_like(self.target.shares)

    @torch.no_grad()
    def _predictions(self, proposal: Proposal, name: str) -> Vector:
        """Return predicted probabilities of many samples, (M, K)."""
        chunks = [self.surrogate(proposal.draw(CHUNK, name, number).base) for number in range(LARGE // CHUNK)]
        return np.asarray(torch.cat(chunks).double().cpu().numpy())

    def _share_gradients(self) -> Tensor:
        """Return the derivatives of the predicted shares with respect to the flow's parameters, (K, P)."""
        parameters = self._parameters()
        shares = self.surrogate(self.proposal.draw(CHUNK, "shares", 0).base).mean(dim=0)
        rows = [torch.autograd.grad(share, parameters, retain_graph=True) for share in shares]
        return torch.stack([parameters_to_vector(row) for row in rows])

    def _parameters(self) -> list[torch.nn.Parameter]:
        assert self.proposal.flow is not None
        return list(self.proposal.flow.parameters())


def one_hot(probabilities: Tensor) -> Tensor:
    """Return the most probable class of each row, (N, K), as a one-hot vector, (N, K)."""
    hot: Tensor = torch.nn.functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).to(probabilities)
    return hot


def positive_shares(shares: Vector) -> Vector:
    """Return shares, (K,), that are positive and sum to 1; a share that is not positive becomes small."""
    clipped = np.clip(shares, LEAST_SHARE, None)
    return np.asarray(clipped / clipped.sum())


def short_move(jacobian: Tensor, change: Tensor) -> Tensor:
    """Return a short move of parameters, (P,), that changes shares by about `change`, (K,), to first order.

    It minimises ``|J move - change|^2 + r |move|^2``, where r is `RIDGE` times the largest eigenvalue of ``J J'``.
    Where no parameter changes any share, nothing moves.

    Args:
        jacobian: derivatives of the shares with respect to the parameters, J, (K, P).
        change: wanted change of the shares, (K,).

    Example:
        >>> short_move(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]), torch.tensor([0.5, -0.5])).mul(1 + RIDGE)
        tensor([0.0600, 0.0800])
    """
    rows = jacobian.double()
    gram = rows @ rows.T
    ridge = (RIDGE * torch.linalg.matrix_norm(gram, 2)).clamp(min=1e-30)
    weights: Tensor = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), change.to(gram))
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

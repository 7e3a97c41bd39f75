"""What is true of a task, by quadrature in the six features that matter.

The quadrature points are a scrambled Sobol sequence, mapped to N(0, I): for expectations in six dimensions, including
those of hard labels, its error falls nearly as 1 / n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from benchmarks.scene import FEATURES, Score, image_of
from promptgen.energies.base import Energy, Sample
from promptgen.labels import features
from promptgen.metrics.estimate import Vector
from promptgen.perception.base import Classifier

POINTS = 20
"""Logarithm to base 2 of the number of quadrature points."""


@dataclass(frozen=True)
class Truth:
    """The wanted density ``p(z) exp(-E) / Z``, exactly.

    Attributes:
        log_z: log Z, nats.
        prior_ess: effective sample size of the prior weighted by ``exp(-E)``, as a fraction.
        prior_shares: shares of the hard labels under the prior, (K,).
        shares: shares of the hard labels under the wanted density, (K,).
        bystander: share of the bystander under the wanted density.
    """

    log_z: float
    prior_ess: float
    prior_shares: Vector
    shares: Vector
    bystander: float


@cache
def points() -> Tensor:
    """Return the quadrature points, (2^20, 6), standard normal."""
    sobol = qmc.MultivariateNormalQMC([0.0] * FEATURES, rng=0)
    return torch.from_numpy(sobol.random(2**POINTS)).float()


def boundaries(score: Score, shares: tuple[float, ...], energy: Energy | None = None) -> tuple[float, ...]:
    """Return where a score has to be cut, (K - 1,), so that the classes have these shares, (K,).

    Args:
        score: the score.
        shares: their shares, which sum to 1.
        energy: the shares are those under ``p exp(-E)``; None means under the prior.
    """
    values, order = score(points()).sort()
    mass = density(energy)[0][order].cumsum(dim=0) if energy else torch.linspace(0, 1, len(values), dtype=torch.float64)
    below = torch.tensor(shares[:-1], dtype=torch.float64).cumsum(dim=0)
    return tuple(values[torch.searchsorted(mass, below)].tolist())


def density(energy: Energy) -> tuple[Tensor, float]:
    """Return the probabilities of the quadrature points under ``p exp(-E) / Z``, (n,) float64, and log Z in nats."""
    log_w = -energy(Sample(points(), image_of(points()))).double()
    log_z = float(log_w.logsumexp(dim=0) - torch.tensor(float(len(log_w))).log())
    return log_w.softmax(dim=0), log_z


def truth_of(energy: Energy, classifier: Classifier, attribute: str, bystander: str) -> Truth:
    """Compute the truth of a wanted density by quadrature.

    Args:
        energy: its energy.
        classifier: reads attribute and bystander.
        attribute: attribute or product whose shares count.
        bystander: attribute of two classes; its share is that of the second.
    """
    probabilities, log_z = density(energy)
    logits = classifier(image_of(points()))
    labels = features(logits, [attribute], "hard").double()
    return Truth(
        log_z=log_z,
        prior_ess=float(1 / (probabilities.square().sum() * len(probabilities))),
        prior_shares=labels.mean(dim=0).numpy(),
        shares=(probabilities @ labels).numpy(),
        bystander=float(probabilities @ features(logits, [bystander], "hard")[:, 1].double()),
    )


def multipliers(soft: Tensor, hard: Tensor, target: Vector) -> Vector | None:
    """Return the multipliers of the tilt ``exp(beta . P(class))`` under which hard labels have the wanted shares.

    Args:
        soft: class probabilities of samples of the prior, (n, K) float64.
        hard: their hard labels, one-hot, (n, K) float64.
        target: wanted shares, (K,), all positive.

    Returns:
        beta, (K,), with mean zero; None if a class does not occur.
    """
    wanted, beta = torch.from_numpy(target), torch.zeros(len(target), dtype=torch.float64)
    if not bool(hard.any(dim=0).all()):
        return None
    for _ in range(100):
        weights = (soft @ beta).softmax(dim=0)
        shares = weights @ hard
        if float((shares / wanted - 1).abs().max()) < 1e-6:
            break
        slope = (hard * weights[:, None]).T @ (soft - weights @ soft)  # d shares / d beta, singular along ones
        step = torch.linalg.pinv(slope, rtol=1e-6) @ (wanted - shares)
        beta = beta + step * min(1.0, 2.0 / float(step.abs().max()))
    return np.asarray(beta - beta.mean())


def both_features(logits: Mapping[str, Tensor], attribute: str) -> tuple[Tensor, Tensor]:
    """Return class probabilities and one-hot labels, both (n, K) float64, of an attribute or product."""
    return features(logits, [attribute], "soft").double(), features(logits, [attribute], "hard").double()

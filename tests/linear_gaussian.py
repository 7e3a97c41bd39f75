"""A linear generator with a quadratic energy: everything about its target is known in closed form.

With image ``x = A z`` and energy ``|x - y|^2 / (2 s^2)``, the target ``N(z; 0, I) exp(-E) / Z`` is Gaussian.
"""

import math

import torch
from torch import nn

from promptgen.conditions import Condition
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream


def box(n, size=2.0):
    """Return a condition of `n` coordinates, each within +-size."""
    return Condition(dict.fromkeys(("first", "second", "third")[:n], (-size, size)))


class LinearGenerator(nn.Module):
    """Images (B, 3, 1, 1) that are linear in latents (B, D)."""

    image_shape = (3, 1, 1)

    def __init__(self, dim=4, seed=0, scale=None):
        super().__init__()
        self.register_buffer("matrix", torch.randn(3, dim, generator=stream(seed, "matrix"), dtype=torch.float64))
        scale = torch.ones(dim, dtype=torch.float64) if scale is None else scale
        self.prior = GaussianPrior(scale)
        self.images = 0

    def forward(self, latent, *, noise=None):
        self.images += len(latent)
        return (latent @ self.matrix.T)[:, :, None, None]


class Quadratic(nn.Module):
    """``|x - y|^2 / (2 s^2)`` in nats."""

    def __init__(self, target=(1.0, -0.5, 0.5), width=0.7):
        super().__init__()
        self.register_buffer("target", torch.tensor(target, dtype=torch.float64))
        self.width = width

    def forward(self, sample):
        return (sample.image.flatten(1) - self.target).square().sum(dim=1) / (2 * self.width**2)


def closed_form(generator, energy):
    """Return mean (D,), covariance (D, D) and log Z, nats, of the target."""
    a, s = generator.matrix, energy.width
    prior = generator.prior.scale.square().diag()
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + a.T @ a / s**2)
    mean = covariance @ a.T @ energy.target / s**2
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.float64), a @ prior @ a.T + s**2 * torch.eye(3, dtype=torch.float64)
    )
    return mean, covariance, float(marginal.log_prob(energy.target)) + 1.5 * math.log(2 * math.pi * s**2)

"""The scene: which heads there are, how often, and which latent shows which head.

A latent z of dimension D is read through its direction only, as StyleGAN2 does (it normalises z first):

    d = z / sqrt(mean(z^2)),   u = R d,

with R a fixed random rotation. Each u_i has the same symmetric distribution on [-sqrt(D), sqrt(D)], nearly N(0, 1),
whose quantiles are exact (u_i^2 / D is Beta(1/2, (D - 1) / 2)). A class is a threshold on one u_i, so the world's
shares are exactly those of `SceneConfig`, and every latent has *true* attributes. Around a threshold the look changes
over a short ramp, so that a generator can follow it; on either side it still varies a little, as hair or make-up does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.stats import beta as beta_distribution
from torch import Tensor

from promptgen.rotations import random_rotation
from promptgen.seeding import stream
from promptgen.world.config import ATTRIBUTES as ATTRIBUTES
from promptgen.world.config import CONTINUOUS as CONTINUOUS
from promptgen.world.config import COORDINATES as COORDINATES
from promptgen.world.config import IDENTITY as IDENTITY
from promptgen.world.config import SceneConfig as SceneConfig


class Scene:
    """The map from latents to looks and to true attributes."""

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        self.index = {name: i for i, name in enumerate(COORDINATES)}
        self.rotation = random_rotation(config.latent_dim, stream(config.seed, "scene", "rotation")).float()
        self.thresholds = _thresholds(config)

    def coordinates(self, latent: Tensor) -> dict[str, Tensor]:
        """Return u, (B,), by name for latents (B, D)."""
        direction = latent * torch.rsqrt(latent.square().mean(dim=1, keepdim=True) + 1e-8)
        u = direction @ self.rotation.to(latent).T
        return {name: u[:, i] for name, i in self.index.items()}

    def steps(self, latent: Tensor) -> dict[str, Tensor]:
        """Return, for each attribute, how far each threshold is passed, (B, K - 1), in [-1, 1]: ramps, not jumps."""
        u = self.coordinates(latent)
        return {name: self._step(name, u) for name in ATTRIBUTES}

    def truth(self, latent: Tensor) -> dict[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents (B, D)."""
        return {name: (step > 0).sum(dim=1) for name, step in self.steps(latent).items()}

    def looks(self, latent: Tensor) -> dict[str, Tensor]:
        """Return what the renderer draws, (B,) by name: each attribute's amount in [0, 1] and the continuous
        coordinates.

        The amount of an attribute with K classes lies within 0.15 / (K - 1) of k / (K - 1) for class k, but on a ramp.
        """
        u = self.coordinates(latent)
        looks = {}
        for name in ATTRIBUTES:
            step = self._step(name, u)
            level = ((step + 1) / 2).mean(dim=1)
            variation = 0.06 * u[name].clamp(-2, 2) / step.shape[1]
            looks[name] = 0.12 / step.shape[1] + (1 - 0.24 / step.shape[1]) * level + variation
        for name in CONTINUOUS:
            looks[name] = u[name].clamp(-2.5, 2.5)
        return looks | {"yaw": looks["yaw"] * self.config.yaw, "pitch": looks["pitch"] * self.config.pitch}

    def _step(self, name: str, u: Mapping[str, Tensor]) -> Tensor:
        distance = u[name][:, None] - self.thresholds[name].to(u[name])
        if name == "makeup":  # its threshold moves with the hair
            hair = self._step("hair", u)
            distance = u[name][:, None] - makeup_threshold(self.thresholds[name], hair)
        step: Tensor = distance / self.config.ramp
        return step.clamp(-1, 1)


def makeup_threshold(thresholds: Tensor, hair: Tensor) -> Tensor:
    """Return the threshold of make-up, (B, 1), between that of short hair (hair = -1) and of long hair (hair = 1)."""
    short, long = thresholds.to(hair).unbind()
    return (short + long) / 2 + (long - short) / 2 * hair


def quantile(p: float, dim: int) -> float:
    """Return the p-quantile of one coordinate of a uniform direction of length sqrt(dim)."""
    radius = (dim * beta_distribution.ppf(abs(2 * p - 1), 0.5, (dim - 1) / 2)) ** 0.5
    return float(radius if p > 0.5 else -radius)


def _thresholds(config: SceneConfig) -> dict[str, Tensor]:
    def cuts(*shares: float) -> Tensor:
        cumulative = torch.tensor(shares, dtype=torch.float64).cumsum(0)[:-1]
        return torch.tensor([quantile(float(p), config.latent_dim) for p in cumulative])

    by_hair = [cuts(1 - config.makeup[hair], config.makeup[hair]) for hair in ATTRIBUTES["hair"]]
    return {
        "hair": cuts(1 - config.long_hair, config.long_hair),
        "glasses": cuts(1 - config.glasses, config.glasses),
        "makeup": torch.cat(by_hair),
        "skin": cuts(*config.skin),
        "age": cuts(*config.age),
    }

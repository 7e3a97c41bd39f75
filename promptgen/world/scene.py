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
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.stats import beta as beta_distribution
from torch import Tensor

from promptgen.seeding import stream

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "hair": ("short", "long"),
    "glasses": ("without", "with"),
    "makeup": ("without", "with"),
    "skin": ("1", "2", "3", "4", "5", "6"),
    "age": ("young", "middle", "old"),
}
"""Class labels of every attribute of the world, in the order of all logits."""

CONTINUOUS: Final[tuple[str, ...]] = (
    "face_width",
    "jaw",
    "eye_spacing",
    "eye_size",
    "nose",
    "mouth_width",
    "brows",
    "eye_colour",
    "hair_colour",
    "yaw",
    "pitch",
    "light",
    "background_hue",
    "background_value",
    "clothes",
)
"""Coordinates without classes: identity (the first nine), pose, light, surroundings."""

IDENTITY: Final[tuple[str, ...]] = CONTINUOUS[:9]
COORDINATES: Final[tuple[str, ...]] = (*ATTRIBUTES, *CONTINUOUS)


class SceneConfig(BaseModel):
    """The joint distribution of the world's attributes.

    Attributes:
        latent_dim: dimension D of the latent.
        seed: seed of the rotation R.
        long_hair: P(hair = long).
        makeup: P(makeup = with | hair), by hair label.
        glasses: P(glasses = with).
        skin: shares of the six skin tones, light to dark.
        age: shares of young, middle, old.
        ramp: half width, in units of u, over which the look changes from one class to the next.
        yaw, pitch: standard deviation of the head's pose, radians.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_dim: int = Field(64, ge=len(COORDINATES))
    seed: int = 7
    long_hair: float = Field(0.42, gt=0, lt=1)
    makeup: dict[str, float] = {"short": 0.15, "long": 0.60}
    glasses: float = Field(0.30, gt=0, lt=1)
    skin: tuple[float, ...] = (0.26, 0.22, 0.18, 0.14, 0.11, 0.09)
    age: tuple[float, ...] = (0.45, 0.35, 0.20)
    ramp: float = Field(0.10, gt=0, lt=1)
    yaw: float = Field(0.16, gt=0, lt=0.6)
    pitch: float = Field(0.08, gt=0, lt=0.4)

    @model_validator(mode="after")
    def _shares_are_distributions(self) -> SceneConfig:
        for name in ("skin", "age"):
            shares = getattr(self, name)
            if len(shares) != len(ATTRIBUTES[name]) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"{name} needs {len(ATTRIBUTES[name])} positive shares that sum to 1, got {shares}")
        if set(self.makeup) != set(ATTRIBUTES["hair"]):
            raise ValueError(f"makeup needs a share for each of {ATTRIBUTES['hair']}, got {tuple(self.makeup)}")
        return self


class Scene:
    """The map from latents to looks and to true attributes.

    Args:
        config: the joint distribution.
    """

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        self.index = {name: i for i, name in enumerate(COORDINATES)}
        self.rotation = _rotation(config.latent_dim, config.seed)
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


def _rotation(dim: int, seed: int) -> Tensor:
    square = torch.randn(dim, dim, generator=stream(seed, "scene", "rotation"), dtype=torch.float64)
    q, r = torch.linalg.qr(square)
    rotation: Tensor = q * r.diagonal().sign()  # a unique factorisation, whatever the linear-algebra library
    return rotation.to(torch.float32)


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

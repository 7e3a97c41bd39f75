"""The contract every image generator keeps, and the priors of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from promptgen.conditions import Condition
from promptgen.errors import DataError


class GaussianPrior(nn.Module):
    """Centred Gaussian with independent coordinates, the prior of a generator's flat latent.

    Args:
        scale: standard deviations, (D,), all positive.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        if scale.ndim != 1 or not bool((scale > 0).all()):
            raise ValueError(f"scale must be a vector of positive numbers, got shape {tuple(scale.shape)}")
        self.register_buffer("scale", scale.detach().clone())

    @classmethod
    def standard(cls, dim: int) -> GaussianPrior:
        """Return N(0, I) in `dim` dimensions."""
        return cls(torch.ones(dim))

    @property
    def dim(self) -> int:
        return self.scale.numel()

    def require(self, latent: Tensor) -> None:
        """Refuse what cannot be latents of this prior.

        Raises:
            DataError: `latent` is not of shape (B, D).
        """
        if latent.ndim != 2 or latent.shape[1] != self.dim:
            raise DataError(f"expected latents of shape (B, {self.dim}), got {tuple(latent.shape)}")

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw `n` latents, (n, D), from the stream `rng`."""
        noise = torch.randn(n, self.dim, generator=rng, device=rng.device, dtype=self.scale.dtype)
        return noise.to(self.scale.device) * self.scale

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density in nats, (B,), of latents (B, D)."""
        standardised = latent / self.scale
        constant = 0.5 * self.dim * math.log(2 * math.pi) + self.scale.log().sum()
        return -0.5 * standardised.square().sum(dim=1) - constant


class Generator(Protocol):
    """A frozen map from a flat latent to an image, differentiable from the latent to the image.

    For type checkers only: from Python 3.12 on, `isinstance` would not find a `prior` that is a submodule.

    Attributes:
        prior: distribution of the latent, (B, D).
        image_shape: (3, H, W).
    """

    prior: GaussianPrior
    image_shape: tuple[int, int, int]

    def __call__(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1] and not clamped, of latents (B, D).

        Args:
            latent: latents, (B, D).
            noise: stream for generators that add random noise; None means their fixed noise, so that the image is a
                function of the latent alone.
        """
        ...


@runtime_checkable
class Conditional(Protocol):
    """A generator that can be told a condition, as one with a conditional flow on it.

    Attributes:
        condition: the coordinates that it can be told.
    """

    condition: Condition

    def __call__(
        self, latent: Tensor, *, noise: torch.Generator | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Return images as a `Generator` does; `context` are conditions, (B, C), and None the null condition."""
        ...


@runtime_checkable
class HasTruth(Protocol):
    """A generator whose latents have known attributes. Only for measuring: training never asks for the truth.

    Its class labels, in the order of the indices, are what `truth_classes` returns.
    """

    def truth(self, latent: Tensor) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents (B, D)."""
        ...


def condition_of(generator: Generator) -> Condition:
    """Return what a generator can be told; an empty condition for a plain one."""
    return generator.condition if isinstance(generator, Conditional) else Condition()


def conditioned_images(
    generator: Generator, latent: Tensor, context: Tensor | None, *, noise: torch.Generator | None = None
) -> Tensor:
    """Return images, (B, 3, H, W), of latents (B, D) under conditions (B, C); None stands for the null condition.

    Raises:
        DataError: the conditions are not those that the generator takes.
    """
    if context is None:
        return generator(latent, noise=noise)
    if context.shape != (expected := (len(latent), len(condition_of(generator)))):
        raise DataError(f"this generator takes conditions of shape {expected}, got {tuple(context.shape)}")
    return cast(Conditional, generator)(latent, noise=noise, context=context)


def truth_classes(generator: HasTruth) -> Mapping[str, Sequence[str]] | None:
    """Return the class labels by attribute, in the order of the true indices; None if the generator does not tell.

    It tells them as its `attributes`, as a classifier does.
    """
    return cast("Mapping[str, Sequence[str]] | None", getattr(generator, "attributes", None))


def conditioned_truth(generator: HasTruth, latent: Tensor, context: Tensor | None) -> Mapping[str, Tensor]:
    """Return the truth, as `HasTruth` does, of latents (B, D) under conditions (B, C), or the null condition (None)."""
    return generator.truth(latent) if context is None else cast(Any, generator).truth(latent, context)

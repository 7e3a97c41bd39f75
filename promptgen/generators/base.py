"""The protocol of image generators, and the prior of their latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from promptgen.conditions import Condition
from promptgen.errors import DataError


class GaussianPrior(nn.Module):
    """Zero-mean Gaussian with independent coordinates: the prior of a generator's flat latent.

    Args:
        scale: standard deviations, (D,), all positive.

    Example:
        >>> prior = GaussianPrior(torch.tensor([1.0, 2.0]))
        >>> round(prior.log_prob(torch.zeros(1, 2)).item(), 4)  # -log(2 pi) - log(2)
        -2.531
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
        """Check the shape of latents.

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
    """A frozen, differentiable map from a flat latent to an image.

    This protocol is for type checkers only: from Python 3.12 on, `isinstance` does not find a `prior` that is a
    submodule.

    Attributes:
        prior: distribution of the latent, (B, D).
        image_shape: (3, H, W).

    Example:
        Any callable with these attributes is a generator. This one draws a square whose brightness is the latent's
        first coordinate:

        >>> class Brightness:
        ...     prior, image_shape = GaussianPrior.standard(2), (3, 4, 4)
        ...     def __call__(self, latent, *, noise=None):
        ...         return latent[:, :1, None, None].sigmoid().expand(-1, 3, 4, 4)
        >>> generator: Generator = Brightness()
        >>> generator(torch.zeros(5, 2)).shape
        torch.Size([5, 3, 4, 4])
    """

    prior: GaussianPrior
    image_shape: tuple[int, int, int]

    def __call__(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1] but not clamped, of latents (B, D).

        Args:
            latent: latents, (B, D).
            noise: random stream for generators that add noise; None means fixed noise, so that the image depends on
                the latent alone.
        """
        ...


@runtime_checkable
class Conditional(Protocol):
    """A generator that takes a condition, such as a generator behind a conditional flow.

    Attributes:
        condition: the coordinates of the condition.
    """

    condition: Condition

    def __call__(
        self, latent: Tensor, *, noise: torch.Generator | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Return images, as a `Generator` does, under conditions `context`, (B, C); None means the null condition."""
        ...


@runtime_checkable
class HasTruth(Protocol):
    """A generator that can return the true attributes of its latents. Only evaluation uses them, never training.

    `truth_classes` returns the class labels in the order of the indices.
    """

    def truth(self, latent: Tensor) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents (B, D)."""
        ...


def condition_of(generator: Generator) -> Condition:
    """Return the condition of a generator; it has no coordinates if the generator is unconditional."""
    return generator.condition if isinstance(generator, Conditional) else Condition()


def held_by(generator: Generator) -> int:
    """Return how many last coordinates of a generator's latent flows leave as they are; most generators have none.

    They draw what an image is not continuous in, such as the class of a class-conditional generator.
    """
    return cast(int, getattr(generator, "held", 0))


def conditioned_images(
    generator: Generator, latent: Tensor, context: Tensor | None, *, noise: torch.Generator | None = None
) -> Tensor:
    """Return images, (B, 3, H, W), of latents (B, D) under conditions (B, C); None means the null condition.

    Raises:
        DataError: the conditions have the wrong shape for this generator.
    """
    if context is None:
        return generator(latent, noise=noise)
    if context.shape != (expected := (len(latent), len(condition_of(generator)))):
        raise DataError(f"this generator takes conditions of shape {expected}, got {tuple(context.shape)}")
    return cast(Conditional, generator)(latent, noise=noise, context=context)


def truth_classes(generator: HasTruth) -> Mapping[str, Sequence[str]] | None:
    """Return the class labels by attribute, in the order of the true indices; None if the generator has none.

    The labels are the generator's `attributes`, as for a classifier.
    """
    return cast("Mapping[str, Sequence[str]] | None", getattr(generator, "attributes", None))


def conditioned_truth(generator: HasTruth, latent: Tensor, context: Tensor | None) -> Mapping[str, Tensor]:
    """Return the true class indices of latents (B, D) under conditions (B, C); None means the null condition."""
    return generator.truth(latent) if context is None else cast(Any, generator).truth(latent, context)

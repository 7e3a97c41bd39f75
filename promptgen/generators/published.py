"""What published generators share: a standard normal latent, classes, truncated styles, and noise that may be fixed."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from promptgen.generators.base import GaussianPrior
from promptgen.generators.classes import ClassChoice, class_shares, class_vectors, drawn_classes
from promptgen.generators.mapping.config import TruncatedConfig
from promptgen.generators.mapping.network import MappingNetwork
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream
from promptgen.strict import Section

MEAN_SAMPLES = 10_000
"""Number of latents averaged for the centre of the truncation of a network with random weights."""

C = TypeVar("C", bound=Section)
T = TypeVar("T", bound=TruncatedConfig)


class PublishedGenerator(FrozenModule, Generic[C]):
    """A network as a generator whose prior is standard normal.

    Args:
        config: shape of the network, and how it is sampled.
        size: height and width of the images, pixels.
        latent_dim: coordinates of the latent.

    Attributes:
        prior: N(0, I) over the latent, (B, D).
        image_shape: (3, size, size).
    """

    def __init__(self, config: C, size: int, latent_dim: int) -> None:
        super().__init__()
        self.config: C = config
        self.image_shape = (3, size, size)
        self.prior = GaussianPrior.standard(latent_dim)
        # A constant: left out of the state dict, which then is exactly the published layout.
        self.prior.register_buffer("scale", self.prior.scale, persistent=False)


class ClassConditional(PublishedGenerator[C]):
    """A published generator that may have classes.

    The latent is z, followed by one coordinate that draws the class if more than one can be drawn
    (`promptgen.generators.classes`).

    Args:
        config: as of `PublishedGenerator`.
        size: as of `PublishedGenerator`.
        z_dim: coordinates of z.
        class_count: number of classes of the network; 0 for an unconditional one.
        classes: the class of the images, or the shares by which classes are drawn, if the network has classes.

    Attributes:
        held: trailing coordinates of the latent that draw the class; flows leave them as they are.

    Raises:
        ConfigError: `classes` does not fit the network.
    """

    def __init__(self, config: C, size: int, z_dim: int, class_count: int, classes: ClassChoice | None) -> None:
        shares = class_shares(classes, class_count, "the network")
        held = 1 if drawn_classes(shares) else 0
        super().__init__(config, size, z_dim + held)
        self.z_dim, self.class_count, self.shares, self.held = z_dim, class_count, shares, held

    def inputs(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return z, (B, z_dim), and class vectors, (B, class_count), or None, of latents, (B, D).

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        self.prior.require(latent)
        count = self.class_count
        vectors = class_vectors(latent, self.z_dim, self.shares, count) if count else None
        return latent[:, : self.z_dim], vectors


class StyledGenerator(ClassConditional[T]):
    """A published generator with a mapping network.

    Attributes:
        family: name of its random streams.
        mapping: the mapping network, which subclasses build.
    """

    family: ClassVar[str]
    mapping: MappingNetwork

    def styles(self, latent: Tensor) -> Tensor:
        """Return styles w, (B, w_dim), of latents, (B, D), with the configured truncation.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        w: Tensor = self.mapping(*self.inputs(latent))
        return w if self.config.truncation == 1 else torch.lerp(self.mapping.w_avg, w, self.config.truncation)

    @torch.no_grad()
    def measure_mean_w(self, seed: int) -> None:
        """Set the centre of the truncation to the mean w over the prior; published files contain their own centre."""
        latent = self.prior.sample(MEAN_SAMPLES, stream(seed, self.family, "mean w"))
        self.mapping.w_avg.copy_(self.mapping(*self.inputs(latent)).mean(dim=0))


def noise_of(stored: Tensor, count: int, rng: torch.Generator | None) -> Tensor:
    """Return noise of `count` images, (count, ...): the stored noise, (1, ...), for all, or drawn from a stream."""
    shape = (count, *stored.shape[1:])
    if rng is None:
        return stored.expand(shape)
    return torch.randn(shape, generator=rng, device=rng.device, dtype=stored.dtype).to(stored.device)

"""StyleGAN3: latent z -> style w -> image that moves with its features, with the layout of the published files.

Waves on a grid, moved by the style, pass through layers that keep their maps free of aliasing. Nothing is random but z,
and the class where there are classes.

Source: *Alias-Free Generative Adversarial Networks* (Karras, Aittala, Laine, Harkonen, Hellsten, Lehtinen, Aila,
NeurIPS 2021, https://arxiv.org/abs/2106.12423). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from promptgen.generators.base import GaussianPrior
from promptgen.generators.classes import ClassChoice, class_coordinates, class_shares, class_vectors
from promptgen.generators.mapping_network import MappingNetwork
from promptgen.generators.recomputation import recomputed
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.generators.stylegan3.file import read_stylegan3
from promptgen.generators.stylegan3.layers import FourierInput, SynthesisLayer
from promptgen.loading.published import load_strictly, require_shape
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream
from promptgen.strict import validate

MEAN_SAMPLES = 10_000
"""Number of latents averaged for the centre of the truncation of a network with random weights."""

MAGNITUDE_SAMPLES = 2
"""Number of styles whose maps give the magnitudes of a network with random weights."""


class Synthesis(nn.Module):
    """Map styles to the image.

    Args:
        config: shape of the network.
        rng: stream of the initial weights.
    """

    def __init__(self, config: StyleGAN3Config, rng: torch.Generator) -> None:
        super().__init__()
        first, layers = config.geometry
        self.output_scale = config.output_scale
        self.input = FourierInput(first, config.w_dim, rng)
        self.layer_names = [layer.name for layer in layers]
        for layer in layers:
            self.add_module(layer.name, SynthesisLayer(layer, config.w_dim, rng))

    def features(self, w: Tensor) -> Iterator[Tensor]:
        """Yield the map of the input, then that of each layer, the last one the image before its scale.

        Args:
            w: styles, (B, w_dim), or one for each slot, (B, S, w_dim): the input's first, then one for each layer.
        """
        slots = w.unbind(1) if w.ndim == 3 else [w] * (len(self.layer_names) + 1)
        x = self.input(slots[0])
        yield x
        for name, style in zip(self.layer_names, slots[1:], strict=True):
            x = recomputed(self.get_submodule(name), x, style)
            yield x

    def forward(self, w: Tensor) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [-1, 1], of styles as of `features`."""
        *_, x = self.features(w)
        return x * self.output_scale


class StyleGAN3(FrozenModule):
    """StyleGAN3 as a generator.

    Args:
        config: shape of the network and truncation.
        seed: seed of the initial weights.
        classes: the class of the images, or the shares by which classes are drawn, if the network has classes.

    Attributes:
        prior: N(0, I) over the latent, (B, D): z, then one coordinate that draws the class if there are shares.
        held: trailing coordinates of the latent that draw the class; flows leave them as they are.
        image_shape: (3, size, size).

    Raises:
        ConfigError: `classes` does not fit the network.
    """

    def __init__(self, config: StyleGAN3Config, seed: int = 0, classes: ClassChoice | None = None) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (3, config.size, config.size)
        self.shares = class_shares(classes, config.class_count, "the network")
        self.held = class_coordinates(classes)
        self.prior = GaussianPrior.standard(config.latent_dim + self.held)
        # A constant: left out of the state dict, which then is exactly the published layout.
        self.prior.register_buffer("scale", self.prior.scale, persistent=False)
        rng = stream(seed, "stylegan3", "initial weights")
        self.mapping = MappingNetwork(
            config.latent_dim,
            config.w_dim,
            config.mapping_layers,
            rng,
            width=config.mapping_width,
            rate=config.mapping_rate,
            class_count=config.class_count,
            embedding_dim=config.embedding_dim,
        )
        self.synthesis = Synthesis(config, rng)

    def styles(self, latent: Tensor) -> Tensor:
        """Return styles w, (B, w_dim), of latents, (B, D), with the configured truncation.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        w = self._untruncated(latent)
        return w if self.config.truncation == 1 else torch.lerp(self.mapping.w_avg, w, self.config.truncation)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [0, 1] and not clamped.

        Args:
            latent: latents, (B, D).
            noise: unused; the image depends on the latent alone.
        """
        image: Tensor = self.synthesis(self.styles(latent))
        return (image + 1) / 2

    @torch.no_grad()
    def measure_mean_w(self, samples: int = MEAN_SAMPLES, seed: int = 0) -> None:
        """Set the centre of the truncation to the mean w over the prior; published files contain their own centre."""
        latent = self.prior.sample(samples, stream(seed, "stylegan3", "mean w"))
        self.mapping.w_avg.copy_(self._untruncated(latent).mean(dim=0))

    @torch.no_grad()
    def measure_magnitudes(self, samples: int = MAGNITUDE_SAMPLES, seed: int = 0) -> None:
        """Set the mean square of each layer's input to that of standard normal w; published files contain their own.

        The filters take away a part of each map. Without this division, the image of a network with random weights is
        all but constant. The styles are not those of the prior, so that weights do not depend on the classes drawn.
        """
        styles = torch.randn(samples, self.config.w_dim, generator=stream(seed, "stylegan3", "magnitudes"))
        # A map is computed when it is asked for: each layer has its magnitude before the next map is computed.
        for name, x in zip(self.synthesis.layer_names, self.synthesis.features(styles), strict=False):
            layer = cast(SynthesisLayer, self.synthesis.get_submodule(name))
            layer.magnitude_ema.copy_(x.square().mean())

    def _untruncated(self, latent: Tensor) -> Tensor:
        self.prior.require(latent)
        dim, count = self.config.latent_dim, self.config.class_count
        w: Tensor = self.mapping(latent[:, :dim], class_vectors(latent, dim, self.shares, count) if count else None)
        return w


def load_stylegan3(
    path: Path,
    truncation: float = 1.0,
    *,
    size: int | None = None,
    variant: Literal["t", "r"] | None = None,
    class_count: int | None = None,
    classes: ClassChoice | None = None,
) -> StyleGAN3:
    """Load a published generator and freeze it, without running any code in the file.

    Args:
        path: see `read_stylegan3`.
        truncation: see `StyleGAN3Config`.
        size: height and width of the images that the file must have; None accepts any.
        variant: variant that the file must have, see `StyleGAN3Config`; None accepts both.
        class_count: number of classes that the file must have; None accepts any.
        classes: see `StyleGAN3`.

    Raises:
        ConfigError: `classes` does not fit the file.
        ModelFileError: the file cannot be read, is not a StyleGAN3, or its keys or shapes do not match its settings.
    """
    config, tensors = read_stylegan3(path)
    require_shape(config, {"size": size, "variant": variant, "class_count": class_count}, path)
    class_shares(classes, config.class_count, path)
    model = StyleGAN3(config.model_copy(update={"truncation": truncation}), classes=classes)
    load_strictly(model, tensors, source=path)
    model.freeze()
    return model


def random_stylegan3(
    truncation: float = 1.0, *, seed: int = 0, classes: ClassChoice | None = None, **fields: Any
) -> StyleGAN3:
    """Return a frozen network with random weights, for dry runs and benchmarks.

    Args:
        truncation: see `StyleGAN3Config`.
        seed: seed of the weights, of the magnitudes and of the centre of the truncation.
        classes: see `StyleGAN3`.
        fields: other fields of `StyleGAN3Config`, such as `size`.

    Raises:
        ConfigError: a field is unknown or out of range, or `classes` does not fit the network.
    """
    model = StyleGAN3(validate(StyleGAN3Config, {"truncation": truncation, **fields}), seed, classes)
    model.measure_magnitudes(seed=seed)
    if truncation != 1:
        model.measure_mean_w(seed=seed)
    model.freeze()
    return model

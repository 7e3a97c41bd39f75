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

from promptgen.generators.classes import ClassChoice, class_shares
from promptgen.generators.mapping.network import MappingNetwork
from promptgen.generators.published import StyledGenerator
from promptgen.generators.recomputation import recomputed
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.generators.stylegan3.file import read_stylegan3
from promptgen.generators.stylegan3.layers import FourierInput, SynthesisLayer
from promptgen.loading.checks import load_strictly, require_shape
from promptgen.seeding import stream
from promptgen.strict import validate

MAGNITUDE_SAMPLES = 2
"""Number of styles whose maps give the magnitudes of a network with random weights."""


class Synthesis(nn.Module):
    """Map styles to the image."""

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


class StyleGAN3(StyledGenerator[StyleGAN3Config]):
    """StyleGAN3 as a generator; arguments as of `promptgen.generators.published.ClassConditional`."""

    family = "stylegan3"

    def __init__(self, config: StyleGAN3Config, seed: int = 0, classes: ClassChoice | None = None) -> None:
        super().__init__(config, config.size, config.latent_dim, config.class_count, classes)
        rng = stream(seed, "stylegan3", "initial weights")
        self.mapping = MappingNetwork(config, rng)
        self.synthesis = Synthesis(config, rng)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [0, 1] and not clamped; `noise` is not used."""
        image: Tensor = self.synthesis(self.styles(latent))
        return (image + 1) / 2

    @torch.no_grad()
    def measure_magnitudes(self, seed: int) -> None:
        """Set the mean square of each layer's input to that of standard normal w; published files contain their own.

        The filters take away a part of each map. Without this division, the image of a network with random weights is
        all but constant. The styles are not those of the prior, so that weights do not depend on the classes drawn.
        """
        styles = torch.randn(MAGNITUDE_SAMPLES, self.config.w_dim, generator=stream(seed, "stylegan3", "magnitudes"))
        # A map is computed when it is asked for: each layer has its magnitude before the next map is computed.
        for name, x in zip(self.synthesis.layer_names, self.synthesis.features(styles), strict=False):
            layer = cast(SynthesisLayer, self.synthesis.get_submodule(name))
            layer.magnitude_ema.copy_(x.square().mean())


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
    return model.frozen()


def random_stylegan3(
    truncation: float = 1.0, *, seed: int = 0, classes: ClassChoice | None = None, **fields: Any
) -> StyleGAN3:
    """Return a frozen network with random weights, for dry runs; `fields` are those of `StyleGAN3Config`.

    Raises:
        ConfigError: a field is unknown or out of range, or `classes` does not fit the network.
    """
    model = StyleGAN3(validate(StyleGAN3Config, {"truncation": truncation, **fields}), seed, classes)
    model.measure_magnitudes(seed=seed)
    if truncation != 1:
        model.measure_mean_w(seed=seed)
    return model.frozen()

"""StyleGAN2: latent z -> style w -> image, with the state-dict layout of the published PyTorch checkpoints.

Source: *Analyzing and Improving the Image Quality of StyleGAN* (Karras, Laine, Aittala, Hellsten, Lehtinen, Aila,
CVPR 2020, https://arxiv.org/abs/1912.04958). An independent implementation.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from promptgen.errors import ConfigError
from promptgen.frozen import FrozenModule
from promptgen.generators.base import GaussianPrior
from promptgen.generators.stylegan2_layers import ConstantInput, MappingLayer, PixelNorm, StyledConv, ToRGB
from promptgen.loading.published import load_strictly, read_state
from promptgen.seeding import stream
from promptgen.strict import Section, validate

_log = logging.getLogger(__name__)

MAPPING_RATE = 0.01
"""Learning-rate multiplier of the mapping layers."""

MEAN_BLOCK = 4096
"""Batch size of the latents whose styles are averaged for the centre of the truncation."""

NOISES = "noises."
"""Key prefix of the noise maps."""

PUBLISHED_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
"""Feature channels by resolution; the channel multiplier applies from 64 pixels on."""


class StyleGAN2Config(Section):
    """Shape and sampling of a StyleGAN2.

    Attributes:
        size: height and width of the image, a power of two of at least 8.
        latent_dim: coordinates of z and of w.
        mapping_layers: linear layers from z to w.
        channels: feature channels at each resolution from 4 to `size`; None means the published table.
        channel_multiplier: factor of the published table from 64 pixels on (2 in all published files).
        truncation: factor in ``mean + truncation * (w - mean)``, which replaces w; 1 leaves w unchanged.
    """

    size: int = Field(ge=8)
    latent_dim: int = Field(default=512, gt=0)
    mapping_layers: int = Field(default=8, gt=0)
    channels: dict[int, int] | None = None
    channel_multiplier: int = Field(default=2, gt=0)
    truncation: float = Field(default=1.0, ge=0.0, le=1.0)

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(f"size must be a power of two, got {size}")
        return size

    @model_validator(mode="after")
    def _check_channels(self) -> StyleGAN2Config:
        channels = PUBLISHED_CHANNELS if self.channels is None else self.channels
        missing = [resolution for resolution in self.resolutions if resolution not in channels]
        if missing:
            raise ValueError(f"channels are missing for the resolutions {missing}; add them to channels")
        return self

    @property
    def resolutions(self) -> list[int]:
        """Resolutions of the synthesis network, 4, 8, ..., size."""
        return [2**power for power in range(2, self.size.bit_length())]

    def channels_at(self, resolution: int) -> int:
        """Return the number of feature channels at `resolution`."""
        if self.channels is not None:
            return self.channels[resolution]
        return PUBLISHED_CHANNELS[resolution] * (self.channel_multiplier if resolution >= 64 else 1)


class StyleGAN2(FrozenModule):
    """StyleGAN2 generator; it can be trained until `freeze()` is called.

    Args:
        config: shape of the network and truncation.
        seed: seed of the initial weights and of the stored noise maps.

    Attributes:
        prior: N(0, I) over z, (B, latent_dim).
        image_shape: (3, size, size).
        mean_w: centre of the truncation, (latent_dim,); None until `set_mean_w` or, if truncation needs it, `freeze`.
    """

    mean_w: Tensor | None

    def __init__(self, config: StyleGAN2Config, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.prior = GaussianPrior.standard(config.latent_dim)
        # A constant: left out of the state dict, which then is exactly the published layout.
        self.prior.register_buffer("scale", self.prior.scale, persistent=False)
        self.image_shape = (3, config.size, config.size)
        self.register_buffer("mean_w", None, persistent=False)
        rng = stream(seed, "stylegan2", "initial weights")
        dim = config.latent_dim
        layers = [MappingLayer(dim, dim, rng, rate=MAPPING_RATE) for _ in range(config.mapping_layers)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        first = config.channels_at(4)
        self.input = ConstantInput(first, rng)
        self.conv1 = StyledConv(first, first, dim, rng)
        self.to_rgb1 = ToRGB(first, dim, rng, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4, generator=rng))
        for below, resolution in itertools.pairwise(config.resolutions):
            fan_in, channels = config.channels_at(below), config.channels_at(resolution)
            self.convs.append(StyledConv(fan_in, channels, dim, rng, upsample=True))
            self.convs.append(StyledConv(channels, channels, dim, rng))
            self.to_rgbs.append(ToRGB(channels, dim, rng))
            for index in (len(self.convs) - 1, len(self.convs)):
                noise = torch.randn(1, 1, resolution, resolution, generator=rng)
                self.noises.register_buffer(f"noise_{index}", noise)

    def mapping(self, latent: Tensor) -> Tensor:
        """Return styles w, (B, latent_dim), of latents z, (B, latent_dim), before truncation.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        self.prior.require(latent)
        w: Tensor = self.style(latent)
        return w

    def synthesis(self, w: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), of styles; truncation is not applied.

        The network's raw output is nominally in [-1, 1]; ``(x + 1) / 2`` maps it to [0, 1] without clamping.

        Args:
            w: styles, (B, latent_dim).
            noise: stream of fresh noise for every image, layer and pixel; None means the stored noise maps.
        """
        *_, image = self.skip_images(w, noise)
        return (image + 1) / 2

    def skip_images(self, w: Tensor, noise: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield the image accumulated up to each resolution r = 4, ..., size: (B, 3, r, r), nominally in [-1, 1]."""
        x = self.conv1(self.input(len(w)), w, self._noise(0, len(w), noise))
        image = self.to_rgb1(x, w)
        yield image
        for level, to_rgb in enumerate(self.to_rgbs):
            for index in (2 * level, 2 * level + 1):
                x = self.convs[index](x, w, self._noise(index + 1, len(w), noise))
            image = to_rgb(x, w, image)
            yield image

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [0, 1] and not clamped.

        Args:
            latent: latents z, (B, latent_dim).
            noise: stream of fresh noise; None means the stored noise maps, so the image depends on the latent alone.
        """
        return self.synthesis(self.truncate(self.mapping(latent)), noise)

    def truncate(self, w: Tensor) -> Tensor:
        """Return styles, (B, latent_dim), moved towards `mean_w` by the configured truncation.

        Raises:
            ConfigError: the truncation is not 1 and `mean_w` has not been set.
        """
        if self.config.truncation == 1:
            return w
        if self.mean_w is None:
            raise ConfigError(f"truncation {self.config.truncation} needs mean_w: call freeze() or set_mean_w() first")
        return torch.lerp(self.mean_w, w, self.config.truncation)

    @torch.no_grad()
    def set_mean_w(self, mean_w: Tensor | None = None, *, samples: int = 50_000, seed: int = 0) -> None:
        """Set the centre of the truncation.

        Args:
            mean_w: the centre, (latent_dim,); None averages the mapping of latents drawn from the prior.
            samples: number of latents to average over; 50 000 as in the published code.
            seed: seed of the latents' stream.
        """
        if mean_w is None:
            rng = stream(seed, "stylegan2", "mean_w")
            blocks = (min(MEAN_BLOCK, samples - done) for done in range(0, samples, MEAN_BLOCK))
            sums = [self.mapping(self.prior.sample(n, rng)).sum(dim=0) for n in blocks]
            mean_w = torch.stack(sums).sum(dim=0) / samples
        self.mean_w = mean_w.to(self.input.input)

    def freeze(self) -> None:
        """Freeze the weights for good; measure the centre of the truncation if it is needed and not yet set."""
        super().freeze()
        if self.config.truncation != 1 and self.mean_w is None:
            self.set_mean_w()

    def _noise(self, index: int, batch: int, rng: torch.Generator | None) -> Tensor:
        stored: Tensor = self.noises.get_buffer(f"noise_{index}")
        if rng is None:
            return stored
        shape = (batch, *stored.shape[1:])
        return torch.randn(shape, generator=rng, device=rng.device, dtype=stored.dtype).to(stored.device)


def load_stylegan2(
    path: Path,
    size: int,
    truncation: float = 1.0,
    *,
    latent_dim: int = 512,
    mapping_layers: int = 8,
    channel_multiplier: int = 2,
    mean_w: Tensor | None = None,
) -> StyleGAN2:
    """Load a published checkpoint and freeze it.

    Args:
        path: file whose entry `g_ema` is the generator's state dict; other entries are ignored. If the file has no
            noise maps, like some converted files, they are drawn from a fixed seed.
        size: height and width of the images.
        truncation: see `StyleGAN2Config`.
        latent_dim: coordinates of z and of w.
        mapping_layers: linear layers from z to w.
        channel_multiplier: see `StyleGAN2Config`.
        mean_w: centre of the truncation, (latent_dim,); None measures it if it is needed.

    Raises:
        ModelFileError: the file cannot be read, or its keys or shapes differ from the configured network's.
    """
    config = StyleGAN2Config(
        size=size,
        latent_dim=latent_dim,
        mapping_layers=mapping_layers,
        channel_multiplier=channel_multiplier,
        truncation=truncation,
    )
    model = StyleGAN2(config)
    state = read_state(path, "g_ema")
    if not any(key.startswith(NOISES) for key in state):
        _log.warning("%s has no noise maps, like some converted files: drawing them from a fixed seed", path)
        state |= {key: value for key, value in model.state_dict().items() if key.startswith(NOISES)}
    load_strictly(model, state, path, hint=_described(state))
    if mean_w is not None:
        model.set_mean_w(mean_w)
    model.freeze()
    return model


def _described(state: Mapping[str, Tensor]) -> str:
    """Return the configuration that a state dict's shapes imply, as a hint for an error message."""
    levels = sum(re.fullmatch(r"to_rgbs\.\d+\.conv\.weight", key) is not None for key in state)
    layers = sum(re.fullmatch(r"style\.\d+\.weight", key) is not None for key in state)
    size = 4 << min(levels, 8)
    arguments = {"size": size, "mapping_layers": layers}
    first, last = state.get("style.1.weight"), state.get(f"to_rgbs.{levels - 1}.conv.weight")
    if first is not None and first.ndim == 2:
        arguments["latent_dim"] = first.shape[1]
    if last is not None and last.ndim == 5 and size >= 64 and last.shape[2] % PUBLISHED_CHANNELS[size] == 0:
        arguments["channel_multiplier"] = last.shape[2] // PUBLISHED_CHANNELS[size]
    if not levels or not layers:
        return ""
    return f"its shapes imply {', '.join(f'{name} {value}' for name, value in arguments.items())}"


def random_stylegan2(size: int, truncation: float = 1.0, *, seed: int = 0, **fields: Any) -> StyleGAN2:
    """Return a frozen network with random weights, for dry runs and benchmarks.

    Args:
        size: height and width of the images.
        truncation: see `StyleGAN2Config`.
        seed: seed of the weights and of the noise maps.
        fields: other fields of `StyleGAN2Config`.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    model = StyleGAN2(validate(StyleGAN2Config, {"size": size, "truncation": truncation, **fields}), seed)
    colours = [model.to_rgb1, *model.to_rgbs]
    with torch.no_grad():
        for to_rgb in colours:  # the image is their sum; aim at a standard deviation of about 0.25
            to_rgb.conv.weight.mul_(0.5 * len(colours) ** -0.5)
    model.freeze()
    return model

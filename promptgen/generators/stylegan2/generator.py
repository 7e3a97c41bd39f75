"""StyleGAN2: latent z -> style w -> image, with the state-dict layout of the converted PyTorch checkpoints.

NVIDIA's own pickles hold the same network under other names (`promptgen.generators.stylegan2.file`), some with classes.

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
from torch import Tensor, nn

from promptgen.errors import ConfigError, ModelFileError
from promptgen.generators.classes import ClassChoice, class_shares
from promptgen.generators.published import ClassConditional, noise_of
from promptgen.generators.stylegan2.config import PUBLISHED_CHANNELS
from promptgen.generators.stylegan2.config import StyleGAN2Config as StyleGAN2Config
from promptgen.generators.stylegan2.file import is_published, read_stylegan2
from promptgen.generators.stylegan2.layers import ConstantInput, EqualLinear, MappingLayer, PixelNorm, StyledConv, ToRGB
from promptgen.loading.checks import load_strictly, require_shape
from promptgen.loading.published import read_state
from promptgen.seeding import stream
from promptgen.strict import validate

_log = logging.getLogger(__name__)

MEAN_SAMPLES, MEAN_BLOCK = 50_000, 4096
"""Latents whose styles are averaged for the centre of the truncation, and how many at a time."""

NOISES = "noises."
"""Key prefix of the noise maps."""


class StyleGAN2(ClassConditional[StyleGAN2Config]):
    """StyleGAN2 generator; it can be trained until `freeze()` is called.

    Args:
        config: shape of the network and truncation.
        seed: seed of the initial weights and of the stored noise maps.
        classes: as of `promptgen.generators.published.ClassConditional`.

    Attributes:
        mean_w: centre of the truncation, (w_dim,); None until `set_mean_w` or, if truncation needs it, `freeze`.
    """

    mean_w: Tensor | None

    def __init__(self, config: StyleGAN2Config, seed: int = 0, classes: ClassChoice | None = None) -> None:
        super().__init__(config, config.size, config.latent_dim, config.class_count, classes)
        self.register_buffer("mean_w", None, persistent=False)
        rng = stream(seed, "stylegan2", "initial weights")
        dim, clamp, widths = config.w_dim, config.clamp, config.mapping_widths
        layers = [MappingLayer(*pair, rng, rate=config.mapping_rate) for pair in itertools.pairwise(widths)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        if config.class_count:
            self.embed = EqualLinear(config.class_count, config.embedded, rng)
        first = config.channels_at(4)
        self.input = ConstantInput(first, rng)
        self.conv1 = StyledConv(first, first, dim, rng, clamp=clamp)
        self.to_rgb1 = ToRGB(first, dim, rng, upsample=False, clamp=clamp)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4, generator=rng))
        for below, resolution in itertools.pairwise(config.resolutions):
            fan_in, channels = config.channels_at(below), config.channels_at(resolution)
            self.convs.append(StyledConv(fan_in, channels, dim, rng, upsample=True, clamp=clamp))
            self.convs.append(StyledConv(channels, channels, dim, rng, clamp=clamp))
            self.to_rgbs.append(ToRGB(channels, dim, rng, clamp=clamp))
            for index in (len(self.convs) - 1, len(self.convs)):
                noise = torch.randn(1, 1, resolution, resolution, generator=rng)
                self.noises.register_buffer(f"noise_{index}", noise)

    def mapping(self, latent: Tensor) -> Tensor:
        """Return styles w, (B, w_dim), of latents, (B, D), before truncation.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        (z, vectors), normalise = self.inputs(latent), self.style[0]
        x = normalise(z)
        if vectors is not None:
            x = torch.cat([x, normalise(self.embed(vectors))], dim=1)
        w: Tensor = self.style[1:](x)
        return w

    def synthesis(self, w: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), of styles; truncation is not applied.

        The network's raw output is nominally in [-1, 1]; ``(x + 1) / 2`` maps it to [0, 1] without clamping.

        Args:
            w: styles, (B, w_dim), or one for each slot, (B, S, w_dim); see `skip_images`.
            noise: stream of fresh noise for every image, layer and pixel; None means the stored noise maps.
        """
        *_, image = self.skip_images(w, noise)
        return (image + 1) / 2

    def skip_images(self, w: Tensor, noise: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield the image accumulated up to each resolution r = 4, ..., size: (B, 3, r, r), nominally in [-1, 1].

        The convolutions take the slots of w in order, and each layer of colours the slot of the next convolution.
        """
        slots = w.unbind(1) if w.ndim == 3 else [w] * (len(self.convs) + 2)
        x = self.conv1(self.input(len(w)), slots[0], self._noise(0, len(w), noise))
        image = self.to_rgb1(x, slots[1])
        yield image
        for level, to_rgb in enumerate(self.to_rgbs):
            for index in (2 * level, 2 * level + 1):
                x = self.convs[index](x, slots[index + 1], self._noise(index + 1, len(w), noise))
            image = to_rgb(x, slots[2 * level + 3], image)
            yield image

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [0, 1] and not clamped.

        Args:
            latent: latents, (B, D).
            noise: stream of fresh noise; None means the stored noise maps, so the image depends on the latent alone.
        """
        return self.synthesis(self.truncate(self.mapping(latent)), noise)

    def truncate(self, w: Tensor) -> Tensor:
        """Return styles, (B, w_dim), moved towards `mean_w` by the configured truncation.

        Raises:
            ConfigError: the truncation is not 1 and `mean_w` has not been set.
        """
        if self.config.truncation == 1:
            return w
        if self.mean_w is None:
            raise ConfigError(f"truncation {self.config.truncation} needs mean_w: call freeze() or set_mean_w() first")
        return torch.lerp(self.mean_w, w, self.config.truncation)

    @torch.no_grad()
    def set_mean_w(self, mean_w: Tensor | None = None) -> None:
        """Set the centre of the truncation.

        Args:
            mean_w: the centre, (w_dim,); None averages the mapping of `MEAN_SAMPLES` latents drawn from the prior.
        """
        if mean_w is None:
            rng = stream(0, "stylegan2", "mean_w")
            blocks = (min(MEAN_BLOCK, MEAN_SAMPLES - done) for done in range(0, MEAN_SAMPLES, MEAN_BLOCK))
            sums = [self.mapping(self.prior.sample(n, rng)).sum(dim=0) for n in blocks]
            mean_w = torch.stack(sums).sum(dim=0) / MEAN_SAMPLES
        self.mean_w = mean_w.to(self.input.input)

    def freeze(self) -> None:
        """Freeze the weights for good; measure the centre of the truncation if it is needed and not yet set."""
        super().freeze()
        if self.config.truncation != 1 and self.mean_w is None:
            self.set_mean_w()

    def _noise(self, index: int, batch: int, rng: torch.Generator | None) -> Tensor:
        return noise_of(self.noises.get_buffer(f"noise_{index}"), batch, rng)


def load_stylegan2(
    path: Path,
    size: int | None = None,
    truncation: float = 1.0,
    *,
    latent_dim: int | None = None,
    mapping_layers: int | None = None,
    channel_multiplier: int | None = None,
    class_count: int | None = None,
    classes: ClassChoice | None = None,
    mean_w: Tensor | None = None,
) -> StyleGAN2:
    """Load a published checkpoint and freeze it; no code in it is run.

    Args:
        path: NVIDIA's pickle, which says everything about its network; or a file whose entry `g_ema` is the
            generator's state dict. Other entries are ignored. If a state dict has no noise maps, like some converted
            files, they are drawn from a fixed seed.
        size: height and width of the images; a state dict needs it, and a pickle must have it if it is given.
        truncation: see `StyleGAN2Config`.
        latent_dim: coordinates of z, 512 in a state dict; a pickle must have them if they are given.
        mapping_layers: linear layers from z to w, 8 in a state dict; a pickle must have them if they are given.
        channel_multiplier: see `StyleGAN2Config`; for a state dict alone.
        class_count: number of classes that the file must have; None accepts any.
        classes: see `StyleGAN2`.
        mean_w: centre of the truncation, (w_dim,); None takes that of a pickle, and measures it otherwise if needed.

    Raises:
        ConfigError: `classes` does not fit the file.
        ModelFileError: the file cannot be read, or its keys or shapes differ from the configured network's.
    """
    if is_published(path):
        file = read_stylegan2(path)
        expected = {"size": size, "latent_dim": latent_dim, "mapping_layers": mapping_layers}
        require_shape(file.config, expected | {"class_count": class_count}, path)
        config, state, hint = file.config.model_copy(update={"truncation": truncation}), file.state, ""
        mean_w = file.mean_w if mean_w is None else mean_w
    else:
        config, state = _state_dict_of(path, size, truncation, latent_dim, mapping_layers, channel_multiplier)
        require_shape(config, {"class_count": class_count}, path)
        hint = _described(state)
    class_shares(classes, config.class_count, path)
    model = StyleGAN2(config, classes=classes)
    if not any(key.startswith(NOISES) for key in state):
        _log.warning("%s has no noise maps, like some converted files: drawing them from a fixed seed", path)
        state |= {key: value for key, value in model.state_dict().items() if key.startswith(NOISES)}
    load_strictly(model, state, path, hint=hint)
    if mean_w is not None:
        model.set_mean_w(mean_w)
    return model.frozen()


def _state_dict_of(
    path: Path,
    size: int | None,
    truncation: float,
    latent_dim: int | None,
    mapping_layers: int | None,
    channel_multiplier: int | None,
) -> tuple[StyleGAN2Config, dict[str, Tensor]]:
    """Return the configuration and the state dict of a converted checkpoint; arguments as of `load_stylegan2`."""
    state = read_state(path, "g_ema")
    if size is None:
        raise ModelFileError(f"{path}: a state dict needs the size of its images; write it on the card")
    shape = {"latent_dim": latent_dim, "mapping_layers": mapping_layers, "channel_multiplier": channel_multiplier}
    fields = {name: value for name, value in shape.items() if value is not None}
    return validate(StyleGAN2Config, {"size": size, "truncation": truncation, **fields}), state


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


def random_stylegan2(
    size: int, truncation: float = 1.0, *, seed: int = 0, classes: ClassChoice | None = None, **fields: Any
) -> StyleGAN2:
    """Return a frozen network with random weights, for dry runs; `fields` are those of `StyleGAN2Config`.

    Raises:
        ConfigError: a field is unknown or out of range, or `classes` does not fit the network.
    """
    model = StyleGAN2(validate(StyleGAN2Config, {"size": size, "truncation": truncation, **fields}), seed, classes)
    colours = [model.to_rgb1, *model.to_rgbs]
    with torch.no_grad():
        for to_rgb in colours:  # the image is their sum; aim at a standard deviation of about 0.25
            to_rgb.conv.weight.mul_(0.5 * len(colours) ** -0.5)
    return model.frozen()

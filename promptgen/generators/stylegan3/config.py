"""Configuration of StyleGAN3, and the sampling of its layers.

Each layer goes from one grid to the next. Its features are limited to a frequency, its *cutoff*, which grows
geometrically from layer to layer up to that of the image; grids extend beyond the image by a margin.

Source: *Alias-Free Generative Adversarial Networks* (Karras, Aittala, Laine, Harkonen, Hellsten, Lehtinen, Aila,
NeurIPS 2021, https://arxiv.org/abs/2106.12423). An independent implementation.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from promptgen.generators.mapping.config import MappingConfig, Width
from promptgen.strict import Section

LAYERS, CRITICAL = 14, 2
"""Layers before that of the colours in the published networks, and how many of these are critically sampled."""

FIRST_CUTOFF, FIRST_STOPBAND, LAST_STOPBAND = 2.0, 2**2.1, 2**0.3
"""Cutoff and stop band of the first layer; stop band of the last, as a multiple of its cutoff."""

MARGIN = 10
"""Pixels by which a grid extends beyond the image on each side."""

TAPS = 6
"""Taps of a filter per factor of its resampling."""

LARGEST = 2048
"""Largest height and width of images."""

LARGEST_GRID = 8 * LARGEST
"""Largest height and width of a grid."""

Padding = tuple[int, int, int, int]


class InputConfig(Section):
    """The Fourier features from which images grow.

    Attributes:
        channels: number of frequencies.
        size: height and width of the grid, pixels.
        sampling_rate: pixels per height of the image.
        bandwidth: frequency, periods per height of the image, below which features keep their full amplitude.
    """

    channels: Width
    size: Annotated[int, Field(gt=0, le=LARGEST_GRID)]
    sampling_rate: float = Field(gt=0.0)
    bandwidth: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _check(self) -> InputConfig:
        if self.bandwidth == self.sampling_rate / 2:
            raise ValueError("bandwidth must differ from half the sampling_rate")
        return self


class LayerConfig(Section):
    """A layer: convolution, upsampling, leaky ReLU, downsampling.

    Attributes:
        name: its name in the published files, which counts it and states its output's size and channels.
        in_channels: input channels.
        out_channels: output channels.
        kernel: height and width of the convolution's kernel.
        up: factor of the upsampling.
        up_taps: length of its filter; 1 means no filter.
        down: factor of the downsampling.
        down_taps: length of its filter; 1 means no filter.
        radial: whether the filter of the downsampling is radially symmetric, and not separable.
        padding: zeros added before the upsampling's filter: left, right, top, bottom; negative ones crop.
        clamp: largest absolute activation; None means no bound.
        colours: whether it is the last layer, which has neither demodulation nor leaky ReLU.
        filters: design of both filters; None if they come from a file.
    """

    name: Annotated[str, Field(pattern=r"^L\d{1,4}_\d{1,5}_\d{1,5}$")]
    in_channels: Width
    out_channels: Width
    kernel: Annotated[int, Field(gt=0, le=7)]
    up: Annotated[int, Field(gt=0, le=16)]
    up_taps: Annotated[int, Field(gt=0, le=256)]
    down: Annotated[int, Field(gt=0, le=16)]
    down_taps: Annotated[int, Field(gt=0, le=256)]
    radial: bool = False
    padding: Padding = (0, 0, 0, 0)
    clamp: float | None = Field(default=256.0, gt=0.0)
    colours: bool = False
    filters: FilterDesign | None = None

    def size_after(self, size: int) -> tuple[int, int]:
        """Return height and width of its output for an input of height and width `size`."""
        left, right, top, bottom = self.padding
        longest = (size + self.kernel - 1) * self.up - self.up_taps - self.down_taps + 2
        return -(-(longest + top + bottom) // self.down), -(-(longest + left + right) // self.down)


class FilterDesign(Section):
    """What the low-pass filters of a layer are designed for; frequencies are in periods per height of the image.

    Attributes:
        rate: sampling rate between the filters.
        in_cutoff: frequency at which the upsampling's filter has half its gain.
        in_width: width of its transition.
        out_cutoff: the same of the downsampling's filter.
        out_width: the same of the downsampling's filter.
    """

    rate: float
    in_cutoff: float
    in_width: float
    out_cutoff: float
    out_width: float


class StyleGAN3Config(MappingConfig):
    """Shape and sampling of a StyleGAN3.

    Attributes:
        size: height and width of the image.
        variant: ``t`` is equivariant to translation, ``r`` also to rotation (1 x 1 convolutions, radial filters).
        channel_base: twice the product of a layer's channels and its cutoff, before the bound applies; None means that
            published for `variant` and `size`.
        channel_max: largest number of channels; None means the published one.
        input: the Fourier features; None means the published ones.
        layers: the layers, the last one that of the colours; None means the published ones.
        output_scale: factor of the image.
    """

    size: Annotated[int, Field(ge=16, le=LARGEST)]
    variant: Literal["t", "r"] = "t"
    mapping_layers: Annotated[int, Field(gt=0, le=64)] = 2
    channel_base: Annotated[int, Field(gt=0)] | None = None
    channel_max: Width | None = None
    input: InputConfig | None = None
    layers: Annotated[tuple[LayerConfig, ...], Field(min_length=1, max_length=64)] | None = None
    output_scale: float = 0.25

    @model_validator(mode="after")
    def _check(self) -> StyleGAN3Config:
        if (self.input is None) != (self.layers is None):
            raise ValueError("input and layers must be given together")
        if self.layers is None and self.size & (self.size - 1):
            raise ValueError(f"size must be a power of two, got {self.size}")
        first, layers = self.geometry
        sizes, channels = (first.size, first.size), first.channels
        for layer in layers:
            if layer.in_channels != channels:
                raise ValueError(
                    f"{layer.name} takes {layer.in_channels} channels, and the layer before gives {channels}"
                )
            if sizes[0] * layer.up > LARGEST_GRID:
                raise ValueError(f"{layer.name} works on {sizes[0] * layer.up} pixels, expected at most {LARGEST_GRID}")
            sizes, channels = layer.size_after(sizes[0]), layer.out_channels
            if sizes[0] != sizes[1] or not 0 < sizes[0] <= LARGEST_GRID:
                raise ValueError(f"{layer.name} gives {sizes[1]} x {sizes[0]} pixels, expected a square")
        if sizes[0] != self.size or channels != 3 or not layers[-1].colours:
            raise ValueError(f"the layers give {channels} channels of {sizes[0]} pixels, expected 3 of {self.size}")
        return self

    @property
    def geometry(self) -> tuple[InputConfig, tuple[LayerConfig, ...]]:
        """The Fourier features and the layers."""
        if self.input is not None and self.layers is not None:
            return self.input, self.layers
        return _published(self)


def _published(config: StyleGAN3Config) -> tuple[InputConfig, tuple[LayerConfig, ...]]:
    """Return the Fourier features and the layers of the published networks of a size and variant."""
    size, rotates = config.size, config.variant == "r"
    base = config.channel_base or (32768 if size > 256 else 16384) * (2 if rotates else 1)
    most = config.channel_max or (1024 if rotates else 512)
    exponents = [min(index / (LAYERS - CRITICAL), 1) for index in range(LAYERS + 1)]
    cutoffs = [FIRST_CUTOFF * (size / 2 / FIRST_CUTOFF) ** exponent for exponent in exponents]
    stops = [FIRST_STOPBAND * (size / 2 * LAST_STOPBAND / FIRST_STOPBAND) ** exponent for exponent in exponents]
    rates = [2 ** math.ceil(math.log2(min(2 * stop, size))) for stop in stops]
    halves = [max(stop, rate / 2) - cutoff for stop, rate, cutoff in zip(stops, rates, cutoffs, strict=True)]
    sizes = [*(rate + 2 * MARGIN for rate in rates[:-2]), size, size]
    channels = [*(round(min(base / 2 / cutoff, most)) for cutoff in cutoffs[:-1]), 3]
    layers = []
    for index in range(LAYERS + 1):
        before, colours = max(index - 1, 0), index == LAYERS
        rate = max(rates[before], rates[index]) * (1 if colours else 2)
        up, down = rate // rates[before], rate // rates[index]
        up_taps, down_taps = (TAPS * factor if factor > 1 and not colours else 1 for factor in (up, down))
        kernel = 1 if rotates or colours else 3
        total = (sizes[index] - 1) * down + 1 - (sizes[before] + kernel - 1) * up + up_taps + down_taps - 2
        low = (total + up) // 2
        layers.append(
            LayerConfig(
                name=f"L{index}_{sizes[index]}_{channels[index]}",
                in_channels=channels[before],
                out_channels=channels[index],
                kernel=kernel,
                up=up,
                up_taps=up_taps,
                down=down,
                down_taps=down_taps,
                radial=rotates and index < LAYERS - CRITICAL,
                padding=(low, total - low, low, total - low),
                colours=colours,
                filters=FilterDesign(
                    rate=rate,
                    in_cutoff=cutoffs[before],
                    in_width=2 * halves[before],
                    out_cutoff=cutoffs[index],
                    out_width=2 * halves[index],
                ),
            )
        )
    first = InputConfig(channels=channels[0], size=sizes[0], sampling_rate=rates[0], bandwidth=cutoffs[0])
    return first, tuple(layers)

"""Configuration of a diffusion autoencoder: its shape, noise schedules, and choice of the latent.

Source: *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation* (Preechakul, Chatthee, Wizadwongsa,
Suwajanakorn, CVPR 2022, https://arxiv.org/abs/2111.15640). An independent implementation.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from promptgen.strict import Section

Count = Annotated[int, Field(gt=0, le=8192)]
Even = Annotated[int, Field(gt=0, le=8192, multiple_of=2)]
Multipliers = Annotated[tuple[Count, ...], Field(min_length=1, max_length=10)]
Variance = Annotated[float, Field(gt=0, lt=1)]

NORM_GROUPS = 32
"""Groups of each group normalisation; with fewer channels, each channel is its own group."""

PUBLISHED_MULTIPLIERS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    128: ((1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4)),
    256: ((1, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4, 4)),
}
"""Channel multipliers of the image network and of the encoder, by image size."""


class NoiseSchedule(Section):
    """Noise schedule of a diffusion: the variance `beta` of the noise that each step adds, linear in the step.

    Attributes:
        first: beta of the first step.
        last: beta of the last step.
        length: number of steps.
    """

    first: Variance = 1e-4
    last: Variance = 0.02
    length: Annotated[int, Field(ge=2, le=10_000)] = 1000

    @property
    def retained(self) -> list[float]:
        """Fraction of the data's variance left after each step: the cumulative product of ``1 - beta``."""
        slope = (self.last - self.first) / (self.length - 1)
        return list(itertools.accumulate((1 - self.first - slope * step for step in range(self.length)), float.__mul__))

    def spaced(self, number: int) -> list[int]:
        """Return `number` steps of the schedule, 0, s, 2s, ..., with the smallest stride s that yields this number.

        Raises:
            ValueError: no stride yields this number of steps; the message names the nearest possible numbers.
        """
        stride = math.ceil(self.length / number)
        if number < 2 or math.ceil(self.length / stride) != number:
            possible = {math.ceil(self.length / stride) for stride in range(1, self.length)}
            nearest = sorted(sorted(possible, key=lambda count: abs(count - number))[:2])
            raise ValueError(f"no stride gives {number} steps of {self.length}; the nearest possible are {nearest}")
        return list(range(0, self.length, stride))


class LatentNetworkConfig(Section):
    """Shape of the network that predicts the noise in codes.

    Attributes:
        layers: number of linear layers.
        width: units of each hidden layer.
        skip_layers: indices of the layers that also receive the network's input; None means all but the first.
        time_channels: channels of the sinusoidal encoding of the time step.
        condition_bias: constant added to the scales that the time step determines.
        layer_norm: whether all layers but the last are normalised.
    """

    layers: Annotated[int, Field(ge=2, le=256)] = 10
    width: Count = 2048
    skip_layers: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    time_channels: Even = 64
    condition_bias: float = 1.0
    layer_norm: bool = True

    @model_validator(mode="after")
    def _check(self) -> LatentNetworkConfig:
        if max(self.skips, default=0) >= self.layers:
            raise ValueError(f"skip_layers must be less than {self.layers} (the layers), got {self.skip_layers}")
        return self

    @property
    def skips(self) -> frozenset[int]:
        """Indices of the layers that also receive the network's input."""
        return frozenset(range(1, self.layers) if self.skip_layers is None else self.skip_layers)


class DiffAEConfig(Section):
    """Shape of a diffusion autoencoder, its sampling, and the choice of its latent.

    Attributes:
        image_size: height and width of the image.
        base_channels: channels of the image network at the image's size, and of the sinusoidal time encoding.
        multipliers: factor of `base_channels` at each size, from fine to coarse; None means those published for
            `image_size`.
        encoder_multipliers: the same for the encoder.
        residual_blocks: residual blocks at each size (one more in the upsampling half).
        attention_resolutions: feature sizes with attention.
        embedding: coordinates of the time step's embedding.
        style_channels: coordinates of the semantic code.
        latent_network: shape of the network that predicts the noise in codes.
        image_schedule: noise schedule of images.
        latent_schedule: noise schedule of codes.
        latent: ``code``: the latent is the noise of the code; the image noise is fixed, or fresh if the caller passes
            a noise stream. ``code_and_noise``: the latent is the noise of the code followed by that of the image.
        latent_steps: sampling steps of the code.
        image_steps: sampling steps of the image.
        checkpointing: whether the backward pass recomputes each step instead of storing its activations; the gradient
            is the same, and only one step's activations are in memory.
    """

    image_size: Count = 256
    base_channels: Even = 128
    multipliers: Multipliers | None = None
    encoder_multipliers: Multipliers | None = None
    residual_blocks: Annotated[int, Field(gt=0, le=16)] = 2
    attention_resolutions: tuple[Count, ...] = (16,)
    embedding: Count = 512
    style_channels: Count = 512
    latent_network: LatentNetworkConfig = LatentNetworkConfig()
    image_schedule: NoiseSchedule = NoiseSchedule()
    latent_schedule: NoiseSchedule = NoiseSchedule(first=0.008, last=0.008)
    latent: Literal["code", "code_and_noise"] = "code"
    latent_steps: Count = 5
    image_steps: Count = 5
    checkpointing: bool = True

    @model_validator(mode="after")
    def _check(self) -> DiffAEConfig:
        if None in (self.multipliers, self.encoder_multipliers) and self.image_size not in PUBLISHED_MULTIPLIERS:
            sizes = " and ".join(map(str, PUBLISHED_MULTIPLIERS))
            raise ValueError(f"set multipliers and encoder_multipliers; only {sizes} pixels have published ones")
        halvings = max(len(self.channels), len(self.encoder_channels)) - 1
        if self.image_size % 2**halvings:
            raise ValueError(f"image_size must be a multiple of {2**halvings}, got {self.image_size}")
        for width in sorted(self._normalised_widths()):
            if width % min(NORM_GROUPS, width):
                raise ValueError(f"the multipliers give {width} channels, expected a multiple of {NORM_GROUPS}")
        self.latent_schedule.spaced(self.latent_steps)
        self.image_schedule.spaced(self.image_steps)
        return self

    @property
    def channels(self) -> list[int]:
        """Channels of the image network at each size, from fine to coarse."""
        return [self.base_channels * factor for factor in self.multipliers or PUBLISHED_MULTIPLIERS[self.image_size][0]]

    @property
    def encoder_channels(self) -> list[int]:
        """Channels of the encoder at each size, from fine to coarse."""
        factors = self.encoder_multipliers or PUBLISHED_MULTIPLIERS[self.image_size][1]
        return [self.base_channels * factor for factor in factors]

    @property
    def noise_dim(self) -> int:
        """Coordinates of an image's noise."""
        return 3 * self.image_size**2

    @property
    def latent_dim(self) -> int:
        """Coordinates of the generator's latent."""
        return self.style_channels + (self.noise_dim if self.latent == "code_and_noise" else 0)

    def _normalised_widths(self) -> set[int]:
        """Return the channel counts of all group normalisations, those after a skip connection included."""
        neighbours = itertools.pairwise([self.channels[0], *self.channels, self.channels[-1]])
        sums = {first + second for first, second in neighbours} | {2 * width for width in self.channels}
        return {*self.channels, *self.encoder_channels} | sums

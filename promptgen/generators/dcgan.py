"""DCGAN: latent z -> image through transposed convolutions, with the state-dict layout of PyTorch's tutorial.

Each of the transposed convolutions after the first doubles the resolution. In evaluation, batch normalisation is an
affine map of channels, which `freeze` folds into the convolution before it.

Source: *Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks* (Radford, Metz,
Chintala, ICLR 2016, https://arxiv.org/abs/1511.06434). An independent implementation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from promptgen.errors import ModelFileError
from promptgen.generators.published import PublishedGenerator
from promptgen.loading.checks import load_strictly
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.published import read_state
from promptgen.seeding import stream
from promptgen.strict import Section, validate

ENTRY = "netG_state_dict"
"""Entry of the published file that holds the generator."""

FIRST = 4
"""Height and width of the first features, pixels."""

KERNEL = 4
MAX_LEVELS = 8
"""Most resolutions before that of the image, which then has 1024 pixels."""

LAYERS_PER_LEVEL = 3
"""Convolution, normalisation and ReLU, which the published keys count."""

RANDOM_GAIN = 0.5
"""Standard deviation of random networks before the tanh, which keeps it from saturating."""

Width = Annotated[int, Field(gt=0)]


class DCGANConfig(Section):
    """Shape of a DCGAN; the defaults are the published one of 64 pixels.

    Attributes:
        latent_dim: coordinates of z.
        channels: feature channels at each resolution from 4 pixels on, each twice the one before; the image is twice as
            large as the last.
    """

    latent_dim: Width = 100
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=MAX_LEVELS)] = (512, 256, 128, 64)

    @property
    def size(self) -> int:
        """Height and width of the image, pixels."""
        return FIRST << len(self.channels)


class DCGAN(PublishedGenerator[DCGANConfig]):
    """DCGAN as a generator; it has the published layout until `freeze()` folds the normalisation."""

    def __init__(self, config: DCGANConfig, seed: int = 0) -> None:
        super().__init__(config, config.size, config.latent_dim)
        rng = stream(seed, "dcgan", "initial weights")
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise((config.latent_dim, *config.channels)):
            gain = math.sqrt(2) if layers else 1.0  # of the ReLU before it
            layers += [_convolution(fan_in, fan_out, rng, gain, first=not layers), nn.BatchNorm2d(fan_out), nn.ReLU()]
        image = _convolution(config.channels[-1], 3, rng, RANDOM_GAIN * math.sqrt(2))
        self.main = nn.Sequential(*layers, image, nn.Tanh())

    def freeze(self) -> None:
        """Freeze the weights for good and fold the normalisation into the convolutions."""
        super().freeze()
        folded: list[Any] = []
        for layer in self.main:
            if isinstance(layer, nn.BatchNorm2d):
                folded[-1] = fuse_conv_bn_eval(folded[-1], layer, transpose=True)
            else:
                folded.append(layer)
        self.main = nn.Sequential(*folded).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), in [0, 1]: the network ends in a tanh; `noise` is not used."""
        self.prior.require(latent)
        image: Tensor = self.main(latent[:, :, None, None])
        return (image + 1) / 2


def load_dcgan(path: Path, latent_dim: int | None = None, channels: tuple[int, ...] | None = None) -> DCGAN:
    """Load a published file, whose shapes say which network it is of, and freeze it.

    Args:
        path: ``torch.save`` file that holds a state dict under `ENTRY` or is one; other entries are ignored.
        latent_dim: the latent length that the file must have; None accepts any.
        channels: the channels that the file must have; None accepts any.

    Raises:
        ModelFileError: the file cannot be read, is of another network, or has another shape than the given one.
    """
    state = read_state(path, ENTRY)
    config = _config_of(state, path)
    expected = (latent_dim or config.latent_dim, tuple(channels or config.channels))
    if (got := (config.latent_dim, config.channels)) != expected:
        raise ModelFileError(
            f"{path}: it has latents of {got[0]} and channels {got[1]}, expected {expected[0]} and {expected[1]}; "
            "correct the arguments on its card"
        )
    model = DCGAN(config)
    load_strictly(nn.ModuleDict({"main": model.main}), state, path)
    model.freeze()
    if not all(bool(value.isfinite().all()) for value in model.main.parameters()):
        raise ModelFileError(f"{path}: a variance of its batch normalisation is negative; fetch it again")
    return model


def random_dcgan(*, seed: int = 0, **fields: Any) -> DCGAN:
    """Return a frozen network with random weights, for dry runs; `fields` are those of `DCGANConfig`.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    return DCGAN(validate(DCGANConfig, fields), seed).frozen()


def _convolution(
    fan_in: int, fan_out: int, rng: torch.Generator, gain: float, *, first: bool = False
) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles the resolution, or gives the first features of one pixel."""
    stride, padding = (1, 0) if first else (2, 1)
    layer: nn.ConvTranspose2d = skip_init(  # type: ignore[no-untyped-call]
        nn.ConvTranspose2d, fan_in, fan_out, KERNEL, stride, padding, bias=False
    )
    reached_by = fan_in * (1 if first else (KERNEL // stride) ** 2)  # inputs of one output
    nn.init.normal_(layer.weight, std=gain / math.sqrt(reached_by), generator=rng)
    return layer


def _config_of(state: Mapping[str, Tensor], path: Path) -> DCGANConfig:
    """Return the shape of the network that a state dict is of.

    Raises:
        ModelFileError: it is of another network.
    """
    shapes: list[tuple[int, ...]] = []
    while (weight := state.get(f"main.{LAYERS_PER_LEVEL * len(shapes)}.weight")) is not None:
        shapes.append(tuple(weight.shape))
    wanted = "a DCGAN, whose main.0.weight has the shape (latent, channels, 4, 4)"
    if len(shapes) < 2 or any(len(shape) != 4 or min(shape) < 1 for shape in shapes):
        got = visible(str(shapes)) if shapes else "no such key"
        raise ModelFileError(f"{path}: expected {wanted}, found {got}; is it another model's file?")
    if len(shapes) > MAX_LEVELS + 1:
        raise ModelFileError(
            f"{path}: it has {len(shapes)} convolutions, expected at most {MAX_LEVELS + 1}; is it another model's file?"
        )
    if shapes[-1][1] != 3:
        raise ModelFileError(f"{path}: its images have {shapes[-1][1]} colours, expected 3; use another file")
    return DCGANConfig(latent_dim=shapes[0][0], channels=tuple(shape[1] for shape in shapes[:-1]))

"""Layers of R3GAN, with the parameter names of the published files.

Source: *The GAN is dead; long live the GAN! A Modern Baseline GAN* (Huang, Gokaslan, Kuleshov, Tompkin, NeurIPS 2024,
https://arxiv.org/abs/2501.05441). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.generators.plain import convolution, linear
from promptgen.generators.r3gan.config import FIRST, R3GANConfig
from promptgen.generators.recomputation import recomputed
from promptgen.generators.stylegan2.layers import LEAK, blur_kernel
from promptgen.networks.precision import exact


class Convolution(nn.Module):
    """A convolution without bias, under the name that the published files have for it."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, rng: torch.Generator, groups: int = 1) -> None:
        super().__init__()
        self.Layer = convolution(fan_in, fan_out, kernel, rng, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.Layer(x)
        return y


class BiasedActivation(nn.Module):
    """Bias per channel, then a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.Bias[:, None, None].to(x.dtype), LEAK)


class ResidualBlock(nn.Module):
    """Adds to a map what a wider, grouped convolution makes of it."""

    def __init__(self, width: int, groups: int, config: R3GANConfig, rng: torch.Generator) -> None:
        super().__init__()
        expanded = width * config.expansion
        self.LinearLayer1 = Convolution(width, expanded, 1, rng)
        self.LinearLayer2 = Convolution(expanded, expanded, config.kernel, rng, groups=groups)
        self.LinearLayer3 = Convolution(expanded, width, 1, rng)
        self.NonLinearity1 = BiasedActivation(expanded)
        self.NonLinearity2 = BiasedActivation(expanded)

    def forward(self, x: Tensor) -> Tensor:
        y = self.NonLinearity1(self.LinearLayer1(x))
        y = self.LinearLayer3(self.NonLinearity2(self.LinearLayer2(y)))
        summed: Tensor = x + y
        return summed


class Basis(nn.Module):
    """The first map: learned features of 4 x 4 pixels, scaled by linear functions of the latent."""

    def __init__(self, inputs: int, width: int, rng: torch.Generator) -> None:
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(width, FIRST, FIRST, generator=rng))
        self.LinearLayer = linear(inputs, width, rng, bias=False)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.Basis * self.LinearLayer(x)[:, :, None, None]
        return scaled.contiguous(memory_format=torch.channels_last)


class Resampler(nn.Module):
    """Doubles the resolution: inserts zeros between pixels, then applies a low-pass filter, (4, 4), with sum 1."""

    Kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("Kernel", blur_kernel() / 4)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = (4 * self.Kernel).expand(channels, 1, *self.Kernel.shape)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class UpsampleLayer(nn.Module):
    """Changes the number of channels, if that differs, and then doubles the resolution."""

    def __init__(self, fan_in: int, fan_out: int, rng: torch.Generator) -> None:
        super().__init__()
        self.Resampler = Resampler()
        self.LinearLayer = Convolution(fan_in, fan_out, 1, rng) if fan_in != fan_out else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.LinearLayer is None else self.LinearLayer(x)
        larger: Tensor = self.Resampler(x)
        return larger


class Stage(nn.Module):
    """A first layer, which reaches the resolution, and residual blocks."""

    def __init__(self, start: nn.Module, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        self.Layers = nn.ModuleList([start, *blocks])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.Layers:
            x = recomputed(layer, x)
        return x

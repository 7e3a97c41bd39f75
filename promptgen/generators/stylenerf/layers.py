"""Layers of StyleNeRF, with the parameter names of the published files.

Every convolution of the network is 1 x 1: a linear map of the channels. The channels are therefore always the last
axis: (B, rays, samples, C) in the fields, (B, H, W, C) in the upsampling blocks.

Source: *StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis* (Gu, Liu, Wang, Theobalt,
ICLR 2022, https://arxiv.org/abs/2110.08985). An independent implementation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.generators.stylegan2.layers import EPSILON, GAIN, LEAK, EqualLinear, blur_kernel


class EqualConv(nn.Module):
    """Linear map of the channels; the stored weights have unit variance and are scaled at use."""

    def __init__(self, fan_in: int, fan_out: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, 1, 1, generator=rng))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def matrix(self) -> Tensor:
        """Return the effective matrix, (fan_out, fan_in)."""
        return self.weight[:, :, 0, 0] / math.sqrt(self.weight.shape[1])


class ModulatedConv(nn.Module):
    """Linear map of the channels, whose inputs are first scaled by a style.

    Args:
        demodulate: whether to divide by the norm of the modulated weights instead of the square root of `fan_in`.
    """

    def __init__(
        self, fan_in: int, fan_out: int, style_dim: int, rng: torch.Generator, *, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, 1, 1, generator=rng))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.affine = EqualLinear(style_dim, fan_in, rng, bias=1.0)

    def matrices(self, w: Tensor) -> Tensor:
        """Return the effective matrix for each style, (B, fan_out, fan_in)."""
        modulated: Tensor = self.weight[:, :, 0, 0] * self.affine(w)[:, None]
        if not self.demodulate:
            return modulated / math.sqrt(modulated.shape[2])
        return modulated * torch.rsqrt(modulated.square().sum(dim=2, keepdim=True) + EPSILON)


class StyledLayer(ModulatedConv):
    """Layer of the foreground field: modulated map, bias, activation."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # The gain multiplies the matrices, which are far smaller than the maps; all layers do so.
        return F.leaky_relu(mapped(x, GAIN * self.matrices(w), GAIN * self.bias), LEAK)


class ReadOut(ModulatedConv):
    """Output layer: modulated map and bias, without demodulation or activation.

    Args:
        clamp: largest absolute output; None means no bound.
    """

    def __init__(
        self, fan_in: int, fan_out: int, style_dim: int, rng: torch.Generator, clamp: float | None = None
    ) -> None:
        super().__init__(fan_in, fan_out, style_dim, rng, demodulate=False)
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return clamped(mapped(x, self.matrices(w), self.bias), self.clamp)


class SynthesisLayer(ModulatedConv):
    """Layer of an upsampling block: magnitude normalisation, modulated map, bias, activation.

    Args:
        clamp: largest absolute output; None means no bound.

    Attributes:
        w_avg: mean square of the input during training.
    """

    w_avg: Tensor

    def __init__(self, fan_in: int, fan_out: int, style_dim: int, rng: torch.Generator, clamp: float | None) -> None:
        super().__init__(fan_in, fan_out, style_dim, rng)
        self.clamp = clamp
        self.register_buffer("w_avg", torch.ones(()))

    def matrices(self, w: Tensor) -> Tensor:
        """Return the effective matrix for each style, (B, fan_out, fan_in), magnitude normalisation included."""
        return super().matrices(w) * self.w_avg.rsqrt()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = mapped(x, GAIN * self.matrices(w), GAIN * self.bias)
        return clamped(F.leaky_relu(x, LEAK), self.clamp)


class UpsamplingLayer(SynthesisLayer):
    """Synthesis layer that doubles height and width before the bias.

    Each pixel becomes four quarters. A quarter is the pixel plus the output of an adapter, whose inputs are the pixel
    and the mean of the two neighbours next to this quarter. A low-pass filter follows.
    """

    resample_filter: Tensor

    def __init__(self, fan_in: int, fan_out: int, style_dim: int, rng: torch.Generator, clamp: float | None) -> None:
        super().__init__(fan_in, fan_out, style_dim, rng, clamp)
        hidden = fan_out // 4
        self.adapter = nn.ModuleList([EqualConv(2 * fan_out, hidden, rng), EqualConv(hidden, fan_out, rng)])
        self.register_buffer("resample_filter", stored_filter())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = mapped(x, self.matrices(w), torch.zeros_like(self.bias))
        quarters = x[:, :, None, :, None] + self._adapted(x)  # (B, H, 2, W, 2, C)
        x = low_pass(quarters.flatten(3, 4).flatten(1, 2), GAIN * self.resample_filter, GAIN * self.bias)
        return clamped(F.leaky_relu(x, LEAK), self.clamp)

    def _adapted(self, x: Tensor) -> Tensor:
        """Return the adapter's output for each quarter, (B, H, 2, W, 2, C), of pixels (B, H, W, C)."""
        first, second = cast(Iterable[EqualConv], self.adapter)
        # The adapter is linear before its activation, so its first layer is applied to the pixels, of which there are
        # four times fewer than quarters.
        of_pixel, of_neighbours = (GAIN * first.matrix()).chunk(2, dim=1)
        from_pixels = F.linear(x, of_pixel, GAIN * first.bias)[:, :, None, :, None]
        hidden = F.leaky_relu(from_pixels + beside(F.linear(x, of_neighbours / 2)), LEAK)
        return F.linear(hidden, second.matrix(), second.bias)


class SynthesisBlock(nn.Module):
    """Upsampling block: doubles the resolution of features and image."""

    resample_filter: Tensor

    def __init__(self, fan_in: int, fan_out: int, style_dim: int, rng: torch.Generator, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", stored_filter())
        self.conv0 = UpsamplingLayer(fan_in, fan_out, style_dim, rng, clamp)
        self.conv1 = SynthesisLayer(fan_out, fan_out, style_dim, rng, clamp)
        self.torgb = ReadOut(fan_out, 3, style_dim, rng, clamp)

    def forward(self, x: Tensor, image: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 2 H, 2 W, C') and image (B, 3, 2 H, 2 W) of features (B, H, W, C), image and styles."""
        x = self.conv1(self.conv0(x, w), w)
        residual = self.torgb(x, w).permute(0, 3, 1, 2)
        kernel = 4 * self.resample_filter.expand(3, 1, 4, 4)
        return x, F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=3) + residual


def stored_filter() -> Tensor:
    """Return the (4, 4) low-pass filter of new networks, with sum 1."""
    return blur_kernel() / 4


def mapped(x: Tensor, matrices: Tensor, bias: Tensor) -> Tensor:
    """Apply one matrix per batch element, (B, C', C), to maps (B, H, W, C); return maps (B, H, W, C')."""
    flat = torch.baddbmm(bias, x.flatten(1, 2), matrices.mT)
    return flat.reshape(*x.shape[:3], -1)


def clamped(x: Tensor, bound: float | None) -> Tensor:
    """Return `x` clamped to +-bound; None means no bound."""
    return x if bound is None else x.clamp(-bound, bound)


def beside(x: Tensor) -> Tensor:
    """Return the sum of each quarter's two neighbouring pixels, (B, H, 2, W, 2, C); pixels outside the map are zero."""
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    above, below = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    upper = torch.stack([left + above, above + right], dim=3)
    lower = torch.stack([left + below, right + below], dim=3)
    return torch.stack([upper, lower], dim=2)


def low_pass(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel of a map, (B, H, W, C), with a kernel, (4, 4), and add a bias, (C,)."""
    channels = x.shape[3]
    planes = F.pad(x.permute(0, 3, 1, 2), (2, 1, 2, 1))
    filtered = F.conv2d(planes, kernel.flip(0, 1).expand(channels, 1, 4, 4), bias, groups=channels)
    return filtered.permute(0, 2, 3, 1)

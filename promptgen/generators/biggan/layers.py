"""Layers of BigGAN-deep, with the parameter names of the published PyTorch checkpoints.

The published files store each spectrally normalised weight `W` with two vectors `u` and `v`; the network uses
``W / (u . W v)``. The weights are frozen, so `fold_spectral_norm` divides once at loading and the layers need no
normalisation. Activations stay in `channels_last` order, which makes convolutions on a CPU several times faster.

Source: *Large Scale GAN Training for High Fidelity Natural Image Synthesis* (Brock, Donahue, Simonyan, ICLR 2019,
https://arxiv.org/abs/1809.11096, appendix B: BigGAN-deep). An independent implementation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.generators.plain import convolution, linear
from promptgen.loading.checks import require_fractions
from promptgen.networks.precision import exact

BOTTLENECK = 4
"""Ratio of a block's channels to those of its 3 x 3 convolutions."""

ATTENTION_KEYS = 8
"""Ratio of the attention layer's channels to those of its keys and queries."""


def fold_spectral_norm(state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state dict that replaces each ``weight_orig, weight_u, weight_v`` by the normalised ``weight``.

    Raises:
        ModelFileError: the shapes of a weight and its vectors do not match; the message names `source`.
    """
    folded = dict(state)
    for key in state:
        name = key.removesuffix("_orig")
        if name == key or f"{name}_u" not in state or f"{name}_v" not in state:
            continue
        require_fractions({f"{name}_{part}": state[f"{name}_{part}"] for part in ("orig", "u", "v")}, source)
        weight, u, v = (folded.pop(f"{name}_{part}") for part in ("orig", "u", "v"))
        if weight.ndim < 2 or u.shape != (len(weight),) or v.shape != (math.prod(weight.shape[1:]),):
            shapes = f"{tuple(weight.shape)}, {tuple(u.shape)} and {tuple(v.shape)}"
            raise ModelFileError(f"{source}: {name}_orig, _u and _v do not belong together ({shapes}); fetch it again")
        folded[name] = weight / (u @ weight.flatten(1) @ v)
    return folded


@dataclass(frozen=True)
class Standing:
    """The activation statistics that a layer stores, and the truncation that selects among them.

    Attributes:
        rows: number of truncations, evenly spaced from 0 to 1, with stored statistics.
        truncation: truncation in use, from 0 to 1.
        epsilon: added to variances.
    """

    rows: int
    truncation: float
    epsilon: float


class Normalisation(nn.Module):
    """Stored statistics of one layer's activations."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, standing: Standing) -> None:
        super().__init__()
        self.standing = standing
        self.register_buffer("running_means", torch.zeros(standing.rows, channels))
        self.register_buffer("running_vars", torch.ones(standing.rows, channels))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each channel, (C,), at the truncation in use.

        Between two rows, the published network swaps the two interpolation weights. This code does the same, so that
        it produces the published images. It also keeps the order of the arithmetic: a truncation of 0.4 hits its row
        exactly, but 0.58 falls just short of its own and uses the row before.
        """
        step = 1.0 / (self.standing.rows - 1)
        fraction, whole = math.modf(self.standing.truncation / step)
        row = int(whole)
        mean, variance = self.running_means[row], self.running_vars[row]
        if fraction:
            mean = fraction * mean + (1 - fraction) * self.running_means[row + 1]
            variance = fraction * variance + (1 - fraction) * self.running_vars[row + 1]
        return mean, (variance + self.standing.epsilon).sqrt()


class BatchNorm(Normalisation):
    """Batch normalisation with standing statistics and learned scales and offsets."""

    def __init__(self, channels: int, standing: Standing) -> None:
        super().__init__(channels, standing)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = self.statistics()
        gain = self.weight / deviation
        return scale_and_shift(x, gain[None], (self.bias - mean * gain)[None])


class ConditionalBatchNorm(Normalisation):
    """Batch normalisation with standing statistics, whose scales and offsets are linear in the condition."""

    def __init__(self, channels: int, condition_dim: int, standing: Standing, rng: torch.Generator) -> None:
        super().__init__(channels, standing)
        self.scale = linear(condition_dim, channels, rng, bias=False)
        self.offset = linear(condition_dim, channels, rng, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return scale_and_shift(x, *self.gain_and_shift(condition))

    @exact
    def gain_and_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factor and the offset of each channel, (B, C), for conditions (B, condition_dim)."""
        mean, deviation = self.statistics()
        gain = (1 + self.scale(condition)) / deviation
        return gain, self.offset(condition) - mean * gain


def scale_and_shift(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Return ``gain * x + shift`` per channel: x (B, C, H, W), the others (B, C) or (1, C)."""
    gain, shift = gain.to(x.dtype), shift.to(x.dtype)
    return torch.addcmul(shift[:, :, None, None], x, gain[:, :, None, None])


class Block(nn.Module):
    """Bottleneck block with a shortcut: convolutions of 1 x 1, 3 x 3 (after optional upsampling), 3 x 3 and 1 x 1.

    The shortcut keeps the first `fan_out` channels; it has no weights of its own.

    Args:
        fan_out: output channels, at most `fan_in`.
        condition_dim: coordinates of the condition.
        standing: layout of the statistics, and the truncation in use.
        upsample: whether height and width are doubled.
    """

    def __init__(
        self, fan_in: int, fan_out: int, condition_dim: int, standing: Standing, rng: torch.Generator, *, upsample: bool
    ) -> None:
        super().__init__()
        self.fan_out = fan_out
        self.upsample = upsample
        inner = fan_in // BOTTLENECK
        widths = (fan_in, inner, inner, inner, fan_out)
        self.bn_0, self.bn_1, self.bn_2, self.bn_3 = (
            ConditionalBatchNorm(width, condition_dim, standing, rng) for width in widths[:-1]
        )
        self.conv_0 = convolution(fan_in, inner, 1, rng)
        self.conv_1 = convolution(inner, inner, 3, rng)
        self.conv_2 = convolution(inner, inner, 3, rng)
        self.conv_3 = convolution(inner, fan_out, 1, rng)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shortcut = self._resized(x[:, : self.fan_out])
        x = self.conv_0(self.bn_0(x, condition).relu())
        x = self.conv_1(self._resized(self.bn_1(x, condition).relu()))
        x = self.conv_2(self.bn_2(x, condition).relu())
        x = self.conv_3(self.bn_3(x, condition).relu())
        return x + shortcut

    def _resized(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.upsample else x


class Attention(nn.Module):
    """Self-attention: each pixel attends to a map of half the size; the result is scaled by a learned `gamma`.

    Args:
        channels: number of channels, divisible by 8.
    """

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        keys = channels // ATTENTION_KEYS
        self.snconv1x1_theta = convolution(channels, keys, 1, rng, bias=False)
        self.snconv1x1_phi = convolution(channels, keys, 1, rng, bias=False)
        self.snconv1x1_g = convolution(channels, channels // 2, 1, rng, bias=False)
        self.snconv1x1_o_conv = convolution(channels // 2, channels, 1, rng, bias=False)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        queries = _pixels(self.snconv1x1_theta(x))
        keys = _pixels(F.max_pool2d(self.snconv1x1_phi(x), 2))
        values = _pixels(F.max_pool2d(self.snconv1x1_g(x), 2))
        attended = torch.softmax(queries @ keys.transpose(1, 2), dim=2) @ values  # unscaled, as in training
        maps = attended.reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        added: Tensor = self.gamma.to(x.dtype) * self.snconv1x1_o_conv(maps)
        return x + added


def _pixels(x: Tensor) -> Tensor:
    """Return the vectors of the pixels, (B, H W, C), of maps (B, C, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)

"""Blocks of the diffusion autoencoder's convolutional networks, with the parameter names of the published checkpoints.

Source: *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation* (Preechakul, Chatthee, Wizadwongsa,
Suwajanakorn, CVPR 2022, https://arxiv.org/abs/2111.15640). An independent implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from promptgen.generators.diffae.config import NORM_GROUPS
from promptgen.generators.plain import convolution, linear

SLOWEST = 10_000
"""Upper bound, not quite reached, of the longest period of the time encoding, in time steps over 2 pi."""

Resample = Callable[[Tensor], Tensor]


class GroupNorm(nn.GroupNorm):
    """Group normalisation in single precision, whose output has the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name of the argument
        return super().forward(input).to(input.dtype)


def group_norm(channels: int) -> GroupNorm:
    """Return the group normalisation of `channels` channels."""
    return GroupNorm(min(NORM_GROUPS, channels), channels)


def halve(x: Tensor) -> Tensor:
    """Return features of half the height and width, (B, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Return features of twice the height and width, (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def waves(step: int, channels: int, like: Tensor) -> Tensor:
    """Return the sinusoidal encoding of a time step of the full schedule: cosines, then sines, (1, channels).

    Args:
        step: the time step, from 0.
        channels: number of cosines and sines, even.
        like: tensor whose device and type the result has.
    """
    half = channels // 2
    position = torch.arange(half, dtype=torch.float32, device=like.device)
    phase = (step * torch.exp(-math.log(SLOWEST) * position / half))[None]
    return torch.cat([phase.cos(), phase.sin()], dim=1).to(like.dtype)


class TimeEmbedding(nn.Module):
    """Embedding of a time step; nested one level deeper than needed, to match the published names."""

    def __init__(self, channels: int, embedding: int, rng: torch.Generator) -> None:
        super().__init__()
        self.channels = channels
        self.time_embed = nn.Sequential(linear(channels, embedding, rng), nn.SiLU(), linear(embedding, embedding, rng))

    def forward(self, step: int, like: Tensor) -> Tensor:
        """Return the embedding, (1, embedding), of a time step, on the device of `like`."""
        embedding: Tensor = self.time_embed(waves(step, self.channels, like))
        return embedding


class ResidualBlock(nn.Module):
    """Residual block of the encoder: normalisation, activation and convolution, added to the input.

    Args:
        resample: function that changes the height and width of both branches; None keeps them.
    """

    def __init__(self, fan_in: int, fan_out: int, rng: torch.Generator, resample: Resample | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(group_norm(fan_in), nn.SiLU(), convolution(fan_in, fan_out, 3, rng))
        self.skip_connection = nn.Identity() if fan_in == fan_out else convolution(fan_in, fan_out, 1, rng)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, residual = self.branches(x)
        return shortcut + residual

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shortcut and the convolution's output, both (B, fan_out, H', W')."""
        norm, activation, convolve = self.in_layers
        residual = activation(norm(x))
        if self.resample is not None:
            x, residual = self.resample(x), self.resample(residual)
        return self.skip_connection(x), convolve(residual)


class ConditionedBlock(ResidualBlock):
    """Residual block whose features are scaled and shifted by the time step and scaled by the semantic code.

    Args:
        embedding: coordinates of the time step's embedding.
        style: coordinates of the semantic code.
        resample: see `ResidualBlock`.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        embedding: int,
        style: int,
        rng: torch.Generator,
        resample: Resample | None = None,
    ) -> None:
        super().__init__(fan_in, fan_out, rng, resample)
        self.emb_layers = nn.Sequential(nn.SiLU(), linear(embedding, 2 * fan_out, rng))
        self.cond_emb_layers = nn.Sequential(nn.SiLU(), linear(style, fan_out, rng))
        # The identity takes the place of the dropout used in training.
        last = convolution(fan_out, fan_out, 3, rng)
        self.out_layers = nn.Sequential(group_norm(fan_out), nn.SiLU(), nn.Identity(), last)

    def forward(self, x: Tensor, embedding: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        """Return features, (B, fan_out, H', W').

        Args:
            x: features, (B, fan_in, H, W).
            embedding: embedding of the time step, (1, embedding).
            code: semantic code, (B, style).
        """
        shortcut, residual = self.branches(x)
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        style_scale = self.cond_emb_layers(code)[:, :, None, None]
        norm, activation, _, convolve = self.out_layers
        residual = (norm(residual) * (1 + scale) + shift) * (1 + style_scale)
        result: Tensor = shortcut + convolve(activation(residual))
        return result


class Attention(nn.Module):
    """Single-head self-attention over all pixels, added to the features."""

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = _pixelwise(channels, 3 * channels, rng)
        self.proj_out = _pixelwise(channels, channels, rng)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)  # (B, C, HW)
        query, key, value = self.qkv(self.norm(flat)).transpose(1, 2).chunk(3, dim=2)  # each (B, HW, C)
        attended = F.scaled_dot_product_attention(query, key, value)
        residual: Tensor = self.proj_out(attended.transpose(1, 2))
        return x + residual.reshape_as(x)


class Stage(nn.Sequential):
    """Sequence of layers, some of which also take the conditions."""

    def forward(self, x: Tensor, embedding: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        """Return features; arguments as in `ConditionedBlock`."""
        for layer in self:
            x = layer(x, embedding, code) if isinstance(layer, ConditionedBlock) else layer(x)
        return x


def _pixelwise(fan_in: int, fan_out: int, rng: torch.Generator) -> nn.Conv1d:
    """Return a linear map of each pixel's features, stored as a 1D convolution as in the published files."""
    layer: nn.Conv1d = skip_init(nn.Conv1d, fan_in, fan_out, 1)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.normal_(std=1 / math.sqrt(fan_in), generator=rng)
        layer.bias.zero_()  # type: ignore[union-attr]
    return layer

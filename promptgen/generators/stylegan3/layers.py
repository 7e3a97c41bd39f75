"""Layers of StyleGAN3, with the parameter names of the published files.

The modulated convolution scales its input by the style, convolves with weights that the whole batch shares, and scales
its output by the demodulation factor, as that of StyleGAN2. The leaky ReLU acts on an upsampled map, between two
low-pass filters, so that the frequencies that it adds do not alias. Maps stay in `channels_last` order, in which a CPU
filters each channel on its own several times faster.

Source: *Alias-Free Generative Adversarial Networks* (Karras, Aittala, Laine, Harkonen, Hellsten, Lehtinen, Aila,
NeurIPS 2021, https://arxiv.org/abs/2106.12423). An independent implementation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.generators.stylegan2.layers import GAIN, LEAK, EqualLinear, bounded, inverse_norm
from promptgen.generators.stylegan3.config import InputConfig, LayerConfig
from promptgen.generators.stylegan3.filters import low_pass, radial_low_pass
from promptgen.networks.precision import exact

TINY = 1e-20
"""Keeps the root mean square of a style of zeros from dividing by zero."""


class FourierInput(nn.Module):
    """Waves of fixed frequencies on a grid, moved by a rotation and a translation that depend on the style.

    Attributes:
        transform: further movement of the image, (3, 3), the inverse of the one that is seen; the identity at first.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, config: InputConfig, style_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.affine = EqualLinear(style_dim, 4, rng)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.weight = nn.Parameter(torch.randn(channels, channels, generator=rng))
        self.register_buffer("transform", torch.eye(3))
        directions = torch.randn(channels, 2, generator=rng)
        radii = config.bandwidth * torch.rand(channels, 1, generator=rng).sqrt()  # uniform in a disc
        self.register_buffer("freqs", directions / directions.norm(dim=1, keepdim=True) * radii)
        self.register_buffer("phases", torch.rand(channels, generator=rng) - 0.5)

    @exact
    def forward(self, w: Tensor) -> Tensor:
        """Return features, (B, C, size, size), of styles, (B, style_dim)."""
        movement = self._movement(w)
        freqs = self.freqs @ movement[:, :2, :2]  # (B, C, 2)
        phases = self.phases + (self.freqs @ movement[:, :2, 2:])[..., 0]  # (B, C)
        config = self.config
        falloff = (freqs.norm(dim=2) - config.bandwidth) / (config.sampling_rate / 2 - config.bandwidth)
        angles = self._grid() @ freqs.mT[:, None] + phases[:, None, None]  # (B, H, W, C)
        waves = (2 * math.pi * angles).sin() * (1 - falloff).clamp(0, 1)[:, None, None]
        mixed: Tensor = waves @ (self.weight / math.sqrt(config.channels)).T
        return mixed.permute(0, 3, 1, 2)

    def _movement(self, w: Tensor) -> Tensor:
        """Return the movement of the coordinates, (B, 3, 3)."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, x, y = t.unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).view(-1, 3, 3)
        return rotation @ shift @ self.transform

    def _grid(self) -> Tensor:
        """Return the coordinates (x, y) of the pixels, (H, W, 2); the image spans 1, centred at 0."""
        size = self.config.size
        steps = (torch.arange(size, device=self.freqs.device, dtype=self.freqs.dtype) + 0.5) / size - 0.5
        line = steps * size / self.config.sampling_rate
        return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=2)


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and a leaky ReLU between two changes of the sampling rate.

    Attributes:
        magnitude_ema: mean square of the inputs in training, a number, by whose root they are divided.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: LayerConfig, style_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        fan_in, fan_out, kernel = config.in_channels, config.out_channels, config.kernel
        self.affine = EqualLinear(style_dim, fan_in, rng, bias=1.0)
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel, generator=rng))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.register_buffer("magnitude_ema", torch.ones([]))
        up, down = _filters(config)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the output's map of an input's map, (B, in_channels, h, w), and styles, (B, style_dim)."""
        config = self.config
        # The gain of the leaky ReLU multiplies the map before the upsampling, which is far smaller.
        gain = 1.0 if config.colours else GAIN
        x = self._convolved(x, self.affine(w), gain)
        x = x + (gain * self.bias[:, None, None]).to(x.dtype)
        left, right, top, bottom = config.padding
        x = upsampled(x, self.up_filter, config.up, (top, bottom), (left, right))
        x = bounded(x if config.colours else F.leaky_relu(x, LEAK), config.clamp)
        return downsampled(x, self.down_filter, config.down)

    def _convolved(self, x: Tensor, style: Tensor, factor: float) -> Tensor:
        """Return the convolution, (B, out_channels, h', w'), of a map, times `factor`."""
        config, gain = self.config, factor * self.magnitude_ema.rsqrt()
        if config.colours:
            style = style / math.sqrt(self.weight[0].numel())
            return F.conv2d(x * (style * gain)[:, :, None, None].to(x.dtype), self.weight, padding=config.kernel - 1)
        weight = self.weight * self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        style = style * (style.square().mean(dim=1, keepdim=True) + TINY).rsqrt()
        x = F.conv2d(x * style[:, :, None, None].to(x.dtype), weight, padding=config.kernel - 1)
        return x * (gain * inverse_norm(style, weight))[:, :, None, None].to(x.dtype)


def upsampled(x: Tensor, taps: Tensor | None, factor: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return maps with zeros inserted and padded, then filtered by a symmetric low-pass filter in both directions.

    Args:
        x: maps, (B, C, h, w).
        taps: the filter, (T,), with sum 1; None means a single tap.
        factor: pixels for each pixel of `x`, the first of which has its value, the others zero.
        rows: rows added before and after; negative ones crop.
        columns: columns added likewise.

    Returns:
        Maps, (B, C, h * factor + sum(rows) - T + 1, w * factor + sum(columns) - T + 1).
    """
    taps, channels = x.new_ones(1) if taps is None else taps, x.shape[1]
    for axis, (before, after) in ((2, rows), (3, columns)):
        shape, stride = [1, 1], [1, 1]
        shape[axis - 2], stride[axis - 2] = len(taps), factor
        kernel = (factor * taps).reshape(1, 1, *shape).expand(channels, 1, *shape)
        full = F.conv_transpose2d(x, kernel, stride=stride, groups=channels)
        # A padded line is as long as the full convolution, but for what it has more or less at its ends.
        pad = (before - len(taps) + 1, factor + after - len(taps))
        x = F.pad(full, pad if axis == 3 else (0, 0, *pad))
    return x


def downsampled(x: Tensor, taps: Tensor | None, factor: int) -> Tensor:
    """Return maps filtered by a symmetric low-pass filter, of which every `factor`-th pixel is kept, from the first on.

    Args:
        x: maps, (B, C, h, w).
        taps: the filter, (T,) for both directions or (T, T), with sum 1; None means a single tap.
        factor: pixels of `x` for each pixel of the output.

    Returns:
        Maps, (B, C, ceil((h - T + 1) / factor), ceil((w - T + 1) / factor)).
    """
    if taps is None:
        return x[:, :, ::factor, ::factor]
    kernels = [(taps, factor)] if taps.ndim == 2 else [(taps[:, None], (factor, 1)), (taps[None], (1, factor))]
    channels = x.shape[1]
    for kernel, stride in kernels:
        x = F.conv2d(x, kernel.expand(channels, 1, *kernel.shape), stride=stride, groups=channels)
    return x


def _filters(config: LayerConfig) -> tuple[Tensor | None, Tensor | None]:
    """Return both filters: as designed, or to be replaced by those of a file."""
    up: Tensor | None = torch.full((config.up_taps,), 1 / config.up_taps)
    shape = (config.down_taps,) * (2 if config.radial else 1)
    down: Tensor | None = torch.full(shape, 1 / config.down_taps ** len(shape))
    if (design := config.filters) is not None:
        up = low_pass(config.up_taps, design.in_cutoff, design.in_width, design.rate)
        make = radial_low_pass if config.radial else low_pass
        down = make(config.down_taps, design.out_cutoff, design.out_width, design.rate)
    return (up if config.up_taps > 1 else None), (down if config.down_taps > 1 else None)

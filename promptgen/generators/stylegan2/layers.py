"""Layers of StyleGAN2, with the parameter names of the published PyTorch checkpoints.

The modulated convolution scales its input by the style, convolves with weights that the whole batch shares, and scales
its output by the demodulation factor. The result equals that of the paper's modulated weights, without a grouped
convolution. Activations stay in `channels_last` order, which makes convolutions on a CPU several times faster.

Source: *Analyzing and Improving the Image Quality of StyleGAN* (Karras, Laine, Aittala, Hellsten, Lehtinen, Aila,
CVPR 2020, https://arxiv.org/abs/1912.04958). An independent implementation.
In half precision, styles, norms and the sum of the colours stay in single precision, as in NVIDIA's code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.networks.precision import exact

GAIN = math.sqrt(2)
LEAK = 0.2
EPSILON = 1e-8


def blur_kernel() -> Tensor:
    """Return the (4, 4) low-pass kernel for upsampling by two: the outer product of [1, 3, 3, 1], with sum 4."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(row, row) / 16


def bounded(x: Tensor, clamp: float | None) -> Tensor:
    """Return values limited to +-`clamp`; None means no limit."""
    return x if clamp is None else x.clamp(-clamp, clamp)


class PixelNorm(nn.Module):
    """Scales each vector of a batch, (B, D), to a root mean square of one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


class EqualLinear(nn.Module):
    """Linear layer with an equalised learning rate: stored weights have unit variance and are scaled at use.

    Args:
        rate: learning-rate multiplier of weight and bias.
        bias: initial value of the effective bias.
    """

    def __init__(
        self, fan_in: int, fan_out: int, rng: torch.Generator, *, rate: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.rate = rate
        self.scale = rate / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, generator=rng) / rate)
        self.bias = nn.Parameter(torch.full((fan_out,), bias / rate))

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class MappingLayer(EqualLinear):
    """Equalised linear layer followed by a leaky ReLU with a gain of sqrt(2)."""

    def forward(self, x: Tensor) -> Tensor:
        return GAIN * F.leaky_relu(super().forward(x), LEAK)


class LowPass(nn.Module):
    """A low-pass filter of each channel on its own."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel())

    def weight(self, channels: int) -> Tensor:
        """Return the kernel for each channel, (channels, 1, 4, 4)."""
        return self.kernel.expand(channels, 1, 4, 4)


class Blur(LowPass):
    """Low-pass filter after a stride-2 transposed convolution: (B, C, 2h + 1, 2w + 1) -> (B, C, 2h, 2w)."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.weight(channels), padding=1, groups=channels)


class Upsample(LowPass):
    """Doubles the resolution of an image: inserts zeros between pixels, then applies the low-pass filter."""

    @exact
    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv_transpose2d(x, self.weight(channels), stride=2, padding=1, groups=channels)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style and whose output is rescaled to unit variance.

    Args:
        kernel: size of the kernel, 1 or 3.
        demodulate: whether to divide by the norm of the modulated weights.
        upsample: whether to double the resolution.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel: int,
        style_dim: int,
        rng: torch.Generator,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(fan_in * kernel**2)
        self.padding = kernel // 2
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.randn(1, fan_out, fan_in, kernel, kernel, generator=rng))
        self.modulation = EqualLinear(style_dim, fan_in, rng, bias=1.0)
        self.blur = Blur() if upsample else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.modulation(w) * self.scale  # (B, fan_in)
        weight = self.weight[0]
        x = x * style[:, :, None, None].to(x.dtype)
        if self.blur is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return x
        return x * inverse_norm(style, weight)[:, :, None, None].to(x.dtype)


@exact
def inverse_norm(style: Tensor, weight: Tensor) -> Tensor:
    """Return one over the norm of weights, (fan_out, fan_in, k, k), scaled by styles, (B, fan_in): (B, fan_out)."""
    return torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).T + EPSILON)


class Noise(nn.Module):
    """Adds a noise map, scaled by one learned strength."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + (self.weight * noise).to(x.dtype)


class Activation(nn.Module):
    """Bias per channel, then a leaky ReLU with a gain of sqrt(2), then the bound, if there is one."""

    def __init__(self, channels: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return bounded(GAIN * F.leaky_relu(x + self.bias[:, None, None].to(x.dtype), LEAK), self.clamp)


class StyledConv(nn.Module):
    """Modulated convolution, noise, activation.

    Args:
        upsample: whether to double the resolution.
        clamp: largest absolute activation; None means no bound.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        style_dim: int,
        rng: torch.Generator,
        *,
        upsample: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(fan_in, fan_out, 3, style_dim, rng, upsample=upsample)
        self.noise = Noise()
        self.activate = Activation(fan_out, clamp)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        activated: Tensor = self.activate(self.noise(self.conv(x, w), noise))
        return activated


class ToRGB(nn.Module):
    """Maps features to colours, bounds them, and adds them to the upsampled image of the previous resolution."""

    def __init__(
        self, fan_in: int, style_dim: int, rng: torch.Generator, *, upsample: bool = True, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.conv = ModulatedConv(fan_in, 3, 1, style_dim, rng, demodulate=False)
        self.upsample = Upsample() if upsample else None

    def forward(self, x: Tensor, w: Tensor, previous: Tensor | None = None) -> Tensor:
        image = bounded(self.conv(x, w) + self.bias, self.clamp)
        if self.upsample is not None:
            image = image + self.upsample(previous)
        return image


class ConstantInput(nn.Module):
    """The learned 4 x 4 feature map from which every image grows."""

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4, generator=rng))

    def forward(self, batch: int) -> Tensor:
        return self.input.repeat(batch, 1, 1, 1).contiguous(memory_format=torch.channels_last)

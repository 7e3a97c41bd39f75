"""Layers of NVAE's decoder, with the parameter names of the published PyTorch checkpoints.

The weights are frozen, so `fold_weight_norm` folds the weight normalisation into them at loading.

Source: *NVAE: A Deep Hierarchical Variational Autoencoder* (Vahdat, Kautz, NeurIPS 2020,
https://arxiv.org/abs/2007.03898). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.generators.plain import convolution, linear
from promptgen.loading.checks import require_fractions

MOMENTUM = 0.05
"""Momentum of the running statistics while they are re-estimated."""

RESIDUAL_GAIN = 0.1
"""Factor of a cell's residual branch."""

NORM = ".log_weight_norm"
EPSILON = 1e-5

Operations = Callable[[int, int, bool, torch.Generator], list[nn.Module]]
"""Builds the layers of a cell from its input channels, output channels, whether it upsamples, and a random stream."""


def fold_weight_norm(state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state dict in which each weight with a stored norm, ``exp(log_weight_norm)``, is scaled to it.

    Raises:
        ModelFileError: the shapes of a weight and its norms do not match; the message names `source`.
    """
    require_fractions(state, source)
    folded = dict(state)
    for key in state:
        if not key.endswith(NORM):
            continue
        name, log_norm = f"{key.removesuffix(NORM)}.weight", folded.pop(key)
        weight = folded.get(name)
        if weight is None or weight.ndim != 4 or log_norm.shape != (len(weight), 1, 1, 1):
            raise ModelFileError(f"{source}: {key} does not belong to a convolution's weight; fetch the file again")
        folded[name] = log_norm.exp() * weight / (weight.flatten(1).norm(dim=1)[:, None, None, None] + EPSILON)
    return folded


class Normalised(nn.Module):
    """Batch normalisation, nested one level deeper to match the published names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn(x)
        return result


class NormalisedSwish(nn.BatchNorm2d):
    """Batch normalisation followed by the activation ``x sigmoid(x)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name of the argument
        return F.silu(super().forward(input))


class ConvSwish(nn.Module):
    """Convolution without bias, batch normalisation, swish."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, rng: torch.Generator, *, groups: int = 1) -> None:
        super().__init__()
        layer = convolution(fan_in, fan_out, kernel, rng, groups=groups, bias=False)
        self.conv = nn.Sequential(layer, NormalisedSwish(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class InvertedResidual(nn.Module):
    """Inverted bottleneck: 1 x 1 convolution to more channels, depthwise or grouped convolution, 1 x 1 back.

    Args:
        expansion: ratio of the inner channels to `fan_in`.
        kernel: height and width of the middle convolution's kernel.
        upsample: whether height and width are doubled first.
        groups: groups of the middle convolution, a divisor of the inner channels; None means depthwise.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        expansion: int,
        kernel: int,
        rng: torch.Generator,
        *,
        upsample: bool,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        inner = expansion * fan_in
        first: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")] if upsample else []
        self.conv = nn.Sequential(
            *first,
            Normalised(fan_in),
            ConvSwish(fan_in, inner, 1, rng),
            ConvSwish(inner, inner, kernel, rng, groups=groups or inner),
            convolution(inner, fan_out, 1, rng, bias=False),
            Normalised(fan_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class ActivatedConv(nn.Module):
    """Activation, optional upsampling, 3 x 3 convolution.

    Args:
        kind: the activation: ``elu``, or ``bnelu`` or ``bnswish`` after batch normalisation.
        upsample: whether height and width are doubled.
    """

    def __init__(self, kind: str, fan_in: int, fan_out: int, rng: torch.Generator, *, upsample: bool) -> None:
        super().__init__()
        self.kind = kind
        self.upsample = upsample
        if kind == "bnelu":
            self.bn = Normalised(fan_in)
        elif kind == "bnswish":
            self.bn_act = NormalisedSwish(fan_in)
        self.conv_0 = convolution(fan_in, fan_out, 3, rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_act(x) if self.kind == "bnswish" else F.elu(self.bn(x) if self.kind == "bnelu" else x)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest") if self.upsample else x
        result: Tensor = self.conv_0(x)
        return result


def inverted(expansion: int, kernel: int, groups: int | None = None) -> Operations:
    """Return a builder of cells with one `InvertedResidual`."""

    def make(fan_in: int, fan_out: int, upsample: bool, rng: torch.Generator) -> list[nn.Module]:
        return [InvertedResidual(fan_in, fan_out, expansion, kernel, rng, upsample=upsample, groups=groups)]

    return make


def activated(kind: str) -> Operations:
    """Return a builder of cells with two `ActivatedConv` layers."""

    def make(fan_in: int, fan_out: int, upsample: bool, rng: torch.Generator) -> list[nn.Module]:
        first = ActivatedConv(kind, fan_in, fan_out, rng, upsample=upsample)
        return [first, ActivatedConv(kind, fan_out, fan_out, rng, upsample=False)]

    return make


class SqueezeExcitation(nn.Module):
    """Scales each channel by a weight in [0, 1] computed from the means of all channels."""

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.se = nn.Sequential(linear(channels, hidden, rng), nn.ReLU(), linear(hidden, channels, rng), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.se(x.mean(dim=(2, 3)))
        return x * weight[:, :, None, None]


class Cell(nn.Module):
    """Residual cell: adds a tenth of its layers' output to its input.

    Args:
        operations: builder of the layers.
        squeeze: whether the channels are weighted at the end.
        upsample: whether height and width are doubled.
    """

    def __init__(
        self, fan_in: int, fan_out: int, operations: Operations, rng: torch.Generator, *, squeeze: bool, upsample: bool
    ) -> None:
        super().__init__()
        self.skip: nn.Module = nn.Identity()
        if upsample:
            double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.skip = nn.Sequential(double, convolution(fan_in, fan_out, 1, rng, bias=False))
        self._ops = nn.Sequential(*operations(fan_in, fan_out, upsample, rng))
        self.se = SqueezeExcitation(fan_out, rng) if squeeze else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.se(self._ops(x))
        shortcut: Tensor = self.skip(x)
        return shortcut + RESIDUAL_GAIN * residual


class Combiner(nn.Module):
    """Combines the features with the latent of a group."""

    def __init__(self, channels: int, latent_channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.conv = convolution(channels + latent_channels, channels, 1, rng)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        result: Tensor = self.conv(torch.cat([x, latent], dim=1))
        return result

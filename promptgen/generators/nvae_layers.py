"""Layers of NVAE's decoder, with the parameter names of the published PyTorch checkpoints.

Weight normalisation is folded into the weights at loading (`fold_weight_norm`), for nothing here is trained.

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
from promptgen.loading.published import require_fractions

MOMENTUM = 0.05
"""Share of a batch in the running statistics, when they are estimated again."""

RESIDUAL_GAIN = 0.1
"""Factor of what a cell adds to its input."""

NORM = ".log_weight_norm"
EPSILON = 1e-5

Operations = Callable[[int, int, bool, torch.Generator], list[nn.Module]]
"""Makes the layers of a cell from its input and output channels, whether it doubles the size, and a random stream."""


def fold_weight_norm(state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state dict in which each weight with a stored norm, ``exp(log_weight_norm)``, has that norm.

    Raises:
        ModelFileError: a weight and its norms do not belong together; names `source`.
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
    """Batch normalisation, one level deeper, as the published names have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn(x)
        return result


class NormalisedSwish(nn.BatchNorm2d):
    """Batch normalisation and then ``x sigmoid(x)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch calls it so
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
    """1 x 1 to many channels, a convolution of each channel or group of channels by itself, 1 x 1 back.

    Args:
        fan_in: input channels.
        fan_out: output channels.
        expansion: the many channels over `fan_in`.
        kernel: side of the middle convolution.
        rng: stream of the initial weights.
        upsample: whether height and width are doubled first.
        groups: number of groups, which divides that of the many channels; None means that each channel is one.
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
        many = expansion * fan_in
        first: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")] if upsample else []
        self.conv = nn.Sequential(
            *first,
            Normalised(fan_in),
            ConvSwish(fan_in, many, 1, rng),
            ConvSwish(many, many, kernel, rng, groups=groups or many),
            convolution(many, fan_out, 1, rng, bias=False),
            Normalised(fan_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class ActivatedConv(nn.Module):
    """Activation, then doubling of the size if wanted, then a convolution of 3 x 3.

    Args:
        kind: the activation: ``elu``, or ``bnelu`` or ``bnswish`` after batch normalisation.
        fan_in: input channels.
        fan_out: output channels.
        rng: stream of the initial weights.
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
    """Return what makes a cell of one `InvertedResidual`."""

    def make(fan_in: int, fan_out: int, upsample: bool, rng: torch.Generator) -> list[nn.Module]:
        return [InvertedResidual(fan_in, fan_out, expansion, kernel, rng, upsample=upsample, groups=groups)]

    return make


def activated(kind: str) -> Operations:
    """Return what makes a cell of two `ActivatedConv`."""

    def make(fan_in: int, fan_out: int, upsample: bool, rng: torch.Generator) -> list[nn.Module]:
        first = ActivatedConv(kind, fan_in, fan_out, rng, upsample=upsample)
        return [first, ActivatedConv(kind, fan_out, fan_out, rng, upsample=False)]

    return make


class SqueezeExcitation(nn.Module):
    """Weights each channel, from 0 to 1, by what the means of all channels say.

    Args:
        channels: number of channels.
        rng: stream of the initial weights.
    """

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.se = nn.Sequential(linear(channels, hidden, rng), nn.ReLU(), linear(hidden, channels, rng), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.se(x.mean(dim=(2, 3)))
        return x * weight[:, :, None, None]


class Cell(nn.Module):
    """Adds to its input a tenth of what its layers make of it.

    Args:
        fan_in: input channels.
        fan_out: output channels.
        operations: what makes its layers.
        rng: stream of the initial weights.
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
        added: Tensor = self.se(self._ops(x))
        kept: Tensor = self.skip(x)
        return kept + RESIDUAL_GAIN * added


class Combiner(nn.Module):
    """Brings the latent of a group into the features.

    Args:
        channels: channels of the features.
        latent_channels: channels of the latent.
        rng: stream of the initial weights.
    """

    def __init__(self, channels: int, latent_channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.conv = convolution(channels + latent_channels, channels, 1, rng)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        result: Tensor = self.conv(torch.cat([x, latent], dim=1))
        return result

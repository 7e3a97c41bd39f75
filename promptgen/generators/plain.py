"""Linear layers and convolutions that draw their initial weights from an explicit stream, not torch's global one."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import skip_init

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def linear(fan_in: int, fan_out: int, rng: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer whose random weights preserve the scale of its inputs; the bias is zero."""
    layer: nn.Linear = skip_init(nn.Linear, fan_in, fan_out, bias=bias)  # type: ignore[no-untyped-call]
    return _drawn(layer, rng)


def convolution(
    fan_in: int, fan_out: int, kernel: int, rng: torch.Generator, *, groups: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Return a convolution that preserves height and width, with random weights as in `linear`.

    Args:
        fan_in: input channels.
        fan_out: output channels.
        kernel: height and width of the kernel, odd.
        rng: stream of the weights.
        groups: groups of a grouped convolution.
        bias: whether the layer has a bias, initially zero.
    """
    layer: nn.Conv2d = skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, fan_in, fan_out, kernel, padding=kernel // 2, groups=groups, bias=bias
    )
    return _drawn(layer, rng)


def _drawn(layer: Layer, rng: torch.Generator) -> Layer:
    with torch.no_grad():
        layer.weight.normal_(std=1 / math.sqrt(layer.weight[0].numel()), generator=rng)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer

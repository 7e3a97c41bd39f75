"""Layers of TensorFlow's networks on images (B, C, H, W): padding that depends on the size, and the resizing before."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resized(image: Tensor, side: int) -> Tensor:
    """Return images, (B, C, side, side), resized bilinearly; those that shrink are antialiased.

    The aspect ratio is ignored.
    """
    height, width = image.shape[-2:]
    if (height, width) == (side, side):
        return image
    shrinks = max(height, width) > side
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=shrinks)


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after, for ceil(length / stride) outputs; the larger half comes after."""
    missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return missing // 2, missing - missing // 2


def convolve(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    *,
    same: bool = True,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of images (B, C, H, W).

    Args:
        image: the images.
        weight: the kernel, (outputs, inputs / groups, height, width).
        bias: (outputs,); None adds nothing.
        stride: vertical and horizontal stride.
        same: whether to pad as TensorFlow's ``SAME`` does; False pads nothing.
        groups: groups of channels.
    """
    image, padding = _padded(image, weight.shape[-2:], stride, 0.0) if same else (image, (0, 0))
    return F.conv2d(image, weight, bias, tuple(stride), padding, groups=groups)


def max_pool(image: Tensor, kernel: Sequence[int], stride: Sequence[int], *, same: bool = True) -> Tensor:
    """Return the largest values in windows of images (B, C, H, W); arguments as in `convolve`."""
    image, padding = _padded(image, kernel, stride, float("-inf")) if same else (image, (0, 0))
    return F.max_pool2d(image, tuple(kernel), tuple(stride), padding)


def _padded(
    image: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float
) -> tuple[Tensor, tuple[int, int]]:
    """Return images, and the padding on both sides that is left to the operation; unequal padding is made here."""
    vertical, horizontal = (same_padding(*sizes) for sizes in zip(image.shape[-2:], kernel, stride, strict=True))
    if vertical[0] == vertical[1] and horizontal[0] == horizontal[1]:
        return image, (vertical[0], horizontal[0])
    return F.pad(image, (*horizontal, *vertical), value=value), (0, 0)

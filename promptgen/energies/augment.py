"""Differentiable augmentations: they change the pixels of an image but not its content.

Without them, patterns that no eye sees would lower a CLIP energy. Colour, translation, resizing and cutout follow
*Differentiable Augmentation for Data-Efficient GAN Training* (Zhao, Liu, Lin, Zhu, Han, NeurIPS 2020,
https://arxiv.org/abs/2006.10738), with the resizing of the method's reference code. All random numbers are arguments.
Nothing is clamped. ``u`` is uniform in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from promptgen.errors import DataError


@dataclass(frozen=True)
class Draws:
    """Random numbers for L augmented copies of each of B images; all (B, L) except `resize`.

    Attributes:
        brightness: u.
        saturation: u.
        contrast: u.
        rows: shift in pixels, int64, uniform in {-s, ..., s} with s = `largest_shift` of the image's side.
        columns: likewise.
        resize: u, (B,): all copies of an image share one ratio.
        cutout_rows: centre of the hole, int64, uniform in {0, ..., `last_centre` of the image's side}.
        cutout_columns: likewise.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    rows: Tensor
    columns: Tensor
    resize: Tensor
    cutout_rows: Tensor
    cutout_columns: Tensor


def draw(images: int, copies: int, side: int, rng: torch.Generator) -> Draws:
    """Draw the random numbers for augmented copies of images: those of each image in turn, however a batch is cut.

    Args:
        images: number of images B.
        copies: number of augmented copies L per image.
        side: height and width of the images.
        rng: random stream; the numbers are on its device.
    """
    shift, centre = largest_shift(side), last_centre(side)
    drawn = torch.rand(images, 1 + 7 * copies, generator=rng, device=rng.device)
    parts = torch.split(drawn[:, 1:], copies, dim=1)
    brightness, saturation, contrast, rows, columns, cutout_rows, cutout_columns = parts

    def integer(u: Tensor, low: int, high: int) -> Tensor:
        return (low + u * (high + 1 - low)).floor().long().clamp(max=high)  # the product may round up to the bound

    return Draws(
        brightness=brightness,
        saturation=saturation,
        contrast=contrast,
        rows=integer(rows, -shift, shift),
        columns=integer(columns, -shift, shift),
        resize=drawn[:, 0],
        cutout_rows=integer(cutout_rows, 0, centre),
        cutout_columns=integer(cutout_columns, 0, centre),
    )


def augment(image: Tensor, draws: Draws) -> Tensor:
    """Return L augmented copies of each image, (B * L, 3, S, S), with the copies of one image adjacent.

    Args:
        image: square images, (B, 3, S, S).
        draws: random numbers of the augmentations.

    Raises:
        DataError: the images are not square.
    """
    if image.shape[2] != image.shape[3]:
        raise DataError(f"augmentations need square images, got {tuple(image.shape)}; set resize_first")
    copies = draws.brightness.shape[1]
    x = image.repeat_interleave(copies, dim=0)
    x = brightness(x, draws.brightness.flatten())
    x = saturation(x, draws.saturation.flatten())
    x = contrast(x, draws.contrast.flatten())
    x = translate(x, draws.rows.flatten(), draws.columns.flatten())
    # A few slices per image cost less than one gather over all of them.
    blocks = zip(torch.split(x, copies), draws.resize.tolist(), strict=True)
    x = torch.cat([resize(block, u) for block, u in blocks])
    return cutout(x, draws.cutout_rows.flatten(), draws.cutout_columns.flatten())


def brightness(image: Tensor, u: Tensor) -> Tensor:
    """Return images, (N, 3, H, W), with all colours shifted by ``u - 0.5``; u is (N,)."""
    return image + (_per_image(u, image) - 0.5)


def saturation(image: Tensor, u: Tensor) -> Tensor:
    """Return images, (N, 3, H, W), with each pixel's distance from grey multiplied by ``2 u``; u is (N,)."""
    grey = image.mean(dim=1, keepdim=True)
    return (image - grey) * (2 * _per_image(u, image)) + grey


def contrast(image: Tensor, u: Tensor) -> Tensor:
    """Return images, (N, 3, H, W), with their distance from their mean multiplied by ``u + 0.5``; u is (N,)."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * (_per_image(u, image) + 0.5) + mean


def translate(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``out[n, :, r, c] = image[n, :, r + rows[n], c + columns[n]]``, zero outside the image.

    Args:
        image: images, (N, 3, S, S).
        rows: shifts in pixels, (N,) int64, at most `largest_shift` of S in absolute value.
        columns: likewise.
    """
    height, width = image.shape[2:]
    margin = max(largest_shift(height), largest_shift(width))
    padded = F.pad(image, (margin,) * 4).unbind()
    corners = zip((rows + margin).tolist(), (columns + margin).tolist(), strict=True)
    return torch.stack(
        [x[:, top : top + height, left : left + width] for x, (top, left) in zip(padded, corners, strict=True)]
    )


def resize(image: Tensor, u: float) -> Tensor:
    """Return images resized by the ratio ``0.8 + 0.4 u`` (bilinear), then zero-padded or cropped to their old size.

    Args:
        image: images, (N, 3, S, S).
        u: random number in [0, 1) that determines the ratio.
    """
    side = image.shape[2]
    new = int((0.8 + 0.4 * u) * side)
    x = F.interpolate(image, (new, new), mode="bilinear", align_corners=False)
    if new < side:
        before = (side - new) // 2
        return F.pad(x, (before, side - new - before) * 2)
    first = (new - side) // 2
    return x[:, :, first : first + side, first : first + side]


def cutout(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images with a square hole of half their side, which the border may cut off, set to zero.

    Args:
        image: images, (N, 3, S, S).
        rows: centre of the square, (N,) int64, in {0, ..., `last_centre` of S}.
        columns: likewise.
    """
    side = image.shape[2]
    hole = _hole(side)
    pixel = torch.arange(side, device=image.device)

    def inside(centre: Tensor) -> Tensor:  # (N, S)
        first = (centre.to(image.device) - hole // 2)[:, None]
        return (pixel >= first) & (pixel < first + hole)

    kept = ~(inside(rows)[:, :, None] & inside(columns)[:, None, :])
    return image * kept[:, None]


def largest_shift(side: int) -> int:
    """Return the largest translation, pixels, of an image with this side."""
    return int(side / 8 + 0.5)


def last_centre(side: int) -> int:
    """Return the last row or column of a hole's centre: one past the image if the hole's side is even."""
    return side - _hole(side) % 2


def _hole(side: int) -> int:
    return int(side / 2 + 0.5)


def _per_image(u: Tensor, image: Tensor) -> Tensor:
    return u.to(image)[:, None, None, None]

"""Differentiable augmentations: what an image shows stays the same, the pixels do not.

Without them an energy of CLIP is lowered by patterns that no eye sees. Colour, translation, resizing and cutout as in
*Differentiable Augmentation for Data-Efficient GAN Training* (Zhao, Liu, Lin, Zhu, Han, NeurIPS 2020,
https://arxiv.org/abs/2006.10738), with the resizing of the method's reference code. Every random number is an argument.
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
    """Random numbers of L augmented copies of each of B images; all (B, L) but `resize`.

    Attributes:
        brightness: u.
        saturation: u.
        contrast: u.
        rows: shift in pixels, int64, uniform in {-s, ..., s} with s = `largest_shift` of the image's side.
        columns: likewise.
        resize: u, (B,): all copies of an image are resized by the same ratio.
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
    """Return the random numbers for `copies` of `images`.

    Args:
        images: number of images B.
        copies: augmented copies L of each.
        side: height and width of the images.
        rng: stream of the numbers; they are on its device.
    """
    shift, centre = largest_shift(side), last_centre(side)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng, device=rng.device)

    def integer(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (images, copies), generator=rng, device=rng.device)

    return Draws(
        brightness=uniform(images, copies),
        saturation=uniform(images, copies),
        contrast=uniform(images, copies),
        rows=integer(-shift, shift),
        columns=integer(-shift, shift),
        resize=uniform(images),
        cutout_rows=integer(0, centre),
        cutout_columns=integer(0, centre),
    )


def augment(image: Tensor, draws: Draws) -> Tensor:
    """Return L augmented copies of each image, (B * L, 3, S, S), the copies of one image side by side.

    Args:
        image: square images, (B, 3, S, S).
        draws: random numbers for them.

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
    """Return images, (N, 3, H, W), all of whose colours are shifted by ``u - 0.5``; u is (N,)."""
    return image + (_per_image(u, image) - 0.5)


def saturation(image: Tensor, u: Tensor) -> Tensor:
    """Return images, (N, 3, H, W), whose distance from grey, pixel by pixel, is multiplied by ``2 u``; u is (N,)."""
    grey = image.mean(dim=1, keepdim=True)
    return (image - grey) * (2 * _per_image(u, image)) + grey


def contrast(image: Tensor, u: Tensor) -> Tensor:
    """Return images, (N, 3, H, W), whose distance from their mean is multiplied by ``u + 0.5``; u is (N,)."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * (_per_image(u, image) + 0.5) + mean


def translate(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``out[n, :, r, c] = image[n, :, r + rows[n], c + columns[n]]``, zero outside the image.

    Args:
        image: images, (N, 3, S, S).
        rows: shifts in pixels, (N,) int64, at most `largest_shift` of S in size.
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
    """Return images resized by the ratio ``0.8 + 0.4 u`` (bilinear) and padded with zeros or cut to their old size.

    Args:
        image: images, (N, 3, S, S).
        u: chooses the ratio.
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
    """Return images with a square of half their side set to zero, cut off at the border.

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
    """Return the last row or column that may be the centre of a hole: one past the image if the hole's side is even."""
    return side - _hole(side) % 2


def _hole(side: int) -> int:
    return int(side / 2 + 0.5)


def _per_image(u: Tensor, image: Tensor) -> Tensor:
    return u.to(image)[:, None, None, None]

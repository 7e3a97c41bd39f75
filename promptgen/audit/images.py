"""Image files of a folder as batches of tensors, whoever made them; what cannot be read is named, not fatal.

An image is taken as it is shown: turned as its EXIF orientation says, grey as three equal channels, laid on white where
it is transparent, the first frame of an animation. One that is not square is cut to the square in its centre. Nothing
looks for faces: a classifier that expects aligned ones has to be given aligned ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from promptgen.errors import DataError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Unread:
    """A file that gave no image.

    Attributes:
        name: its path below the folder, with forward slashes.
        reason: why, in a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive images of one size.

    Attributes:
        names: paths below the folder, with forward slashes.
        images: (B, 3, S, S) in [0, 1].
    """

    names: tuple[str, ...]
    images: Tensor


def find_files(folder: Path) -> list[str]:
    """Return all files below `folder`, as paths below it with forward slashes, sorted.

    Files and folders whose name begins with a dot are left out, and links to folders are not followed.

    Raises:
        DataError: it is no folder, or one in it cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename} ({error.strerror}); give a folder of images") from error

    found: list[str] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def read_image(path: Path, size: int | None = None) -> Pixels:
    """Return the image in a file, (S, S, 3); see the head of this module.

    Args:
        path: a file of any format that Pillow reads.
        size: S; None leaves the images as large as they are.

    Raises:
        DataError: the file is no image, is damaged, or has more pixels than Pillow takes for safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metadata that is odd but harmless
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                shown = _as_shown(image)
    except UnidentifiedImageError as error:
        raise DataError("no image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb") from error
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise DataError(f"unreadable: {' '.join(str(error).split()) or type(error).__name__}") from error
    return np.asarray(_square(shown, size))


def read_batches(
    folder: Path,
    names: Sequence[str],
    *,
    batch: int,
    size: int | None = None,
    unread: Callable[[Unread], None],
) -> Iterator[ImageBatch]:
    """Yield the images of files in their order; memory does not grow with their number.

    A batch ends early where the next image has another size.

    Args:
        folder: what the names are below.
        names: paths of the files, such as those of `find_files`.
        batch: most images at a time.
        size: see `read_image`.
        unread: is told of every file that gives no image.
    """
    held: dict[str, Pixels] = {}
    for name in names:
        try:
            pixels = read_image(folder / name, size)
        except DataError as error:
            unread(Unread(name, str(error)))
            continue
        if held and (len(held) == batch or next(iter(held.values())).shape != pixels.shape):
            yield _batch(held)
            held = {}
        held[name] = pixels
    if held:
        yield _batch(held)


def _batch(held: dict[str, Pixels]) -> ImageBatch:
    stacked = torch.from_numpy(np.stack(list(held.values())))
    return ImageBatch(tuple(held), stacked.permute(0, 3, 1, 2).contiguous().float() / 255)


def _as_shown(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which nothing says what is white")
    if turned.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would clip
        turned = Image.fromarray((np.asarray(turned).clip(0, 65535) / 257).round().astype(np.uint8))
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    white = Image.new("RGBA", turned.size, "white")
    return Image.alpha_composite(white, turned.convert("RGBA")).convert("RGB")


def _square(image: Image.Image, size: int | None) -> Image.Image:
    """Return the square in the centre, resized to `size` pixels with an antialiased bicubic filter."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    cut = image.crop((left, top, left + side, top + side))
    return cut if size in (None, side) else cut.resize((size, size), Image.Resampling.BICUBIC)

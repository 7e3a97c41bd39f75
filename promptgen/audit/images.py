"""Read the image files of a folder as batches of tensors; files that cannot be read are reported and skipped.

An image is read as it is displayed: rotated by its EXIF orientation, grey expanded to three channels, transparency on
white, the first frame of an animation. An image that is not square is cropped to the square in its centre. Faces are
neither detected nor aligned.
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
    """A file that could not be read as an image.

    Attributes:
        name: path relative to the folder, with forward slashes.
        reason: why it could not be read, in a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive images of one size.

    Attributes:
        names: paths relative to the folder, with forward slashes.
        images: (B, 3, S, S) in [0, 1].
    """

    names: tuple[str, ...]
    images: Tensor


def find_files(folder: Path) -> list[str]:
    """Return the sorted paths of all files below `folder`, relative to it, with forward slashes.

    Hidden files and folders (a leading dot) are skipped; links to folders are not followed.

    Raises:
        DataError: `folder` is not a folder, or a folder below it cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename} ({error.strerror}); give a folder of images") from error

    paths: list[str] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        paths += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(paths)


def read_image(path: Path, size: int | None = None) -> Pixels:
    """Return the image in a file as RGB, (S, S, 3), 0 to 255; see the module's docstring.

    Args:
        path: a file of any format that Pillow reads.
        size: S, pixels to resize to; None keeps the size of the image.

    Raises:
        DataError: the file is not an image, is damaged, or exceeds Pillow's limit on the number of pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd but harmless metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                shown = _as_shown(image)
    except UnidentifiedImageError as error:
        raise DataError("no image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb") from error
    except Exception as error:  # decoders raise all kinds of errors for damaged files
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
    """Yield batches of images in the order of `names`; memory use does not grow with their number.

    A batch ends early if the next image has another size.

    Args:
        folder: folder of the images.
        names: paths relative to `folder`, as `find_files` returns them.
        batch: largest number of images in a batch.
        size: see `read_image`.
        unread: called with every file that cannot be read.
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
    """Return an image in RGB as a viewer displays it."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a defined white level")
    if turned.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        turned = Image.fromarray((np.asarray(turned).clip(0, 65535) / 257).round().astype(np.uint8))
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    white = Image.new("RGBA", turned.size, "white")
    return Image.alpha_composite(white, turned.convert("RGBA")).convert("RGB")


def _square(image: Image.Image, size: int | None) -> Image.Image:
    """Return the central square, resized to `size` pixels with an antialiased bicubic filter."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    cut = image.crop((left, top, left + side, top + side))
    return cut if size in (None, side) else cut.resize((size, size), Image.Resampling.BICUBIC)

"""Read the image files of a folder as batches of tensors; files that cannot be read are reported and skipped.

An image is read as it is displayed: rotated by its EXIF orientation, in sRGB, grey expanded to three channels,
transparency on white, the first frame of an animation. An image that is not square is cropped to the square in its
centre. Faces are neither detected nor aligned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptgen.audit.decoding import decode
from promptgen.errors import DataError

if TYPE_CHECKING:  # file names are found without importing torch
    from torch import Tensor

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

    Hidden files and folders (a leading dot) are skipped. Links to folders are followed, but no folder is entered twice,
    so that no image counts twice and links cannot lead in circles; real folders come first.

    Raises:
        DataError: `folder` is not a folder or has no files, or a folder below it cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename} ({error.strerror}); give a folder of images") from error

    paths: list[str] = []
    entered: set[tuple[int, int]] = set()
    todo = [folder]
    while todo:
        links: list[Path] = []
        for start in todo:
            for place, folders, names in os.walk(start, onerror=refuse):
                identity = os.stat(place)
                if (identity.st_dev, identity.st_ino) in entered:
                    folders.clear()
                    continue
                entered.add((identity.st_dev, identity.st_ino))
                below = [Path(place, name) for name in folders if not name.startswith(".")]
                links += [path for path in below if path.is_symlink()]
                folders[:] = [path.name for path in below if not path.is_symlink()]
                paths += [Path(place, name).relative_to(folder).as_posix() for name in names if name[0] != "."]
        todo = sorted(links)
    if not paths:
        raise DataError(f"{folder} has no files, expected images; name a folder of images")
    return sorted(paths)


def read_image(path: Path, size: int | None = None) -> Pixels:
    """Return the image in a file as RGB, (S, S, 3), 0 to 255; see the module's docstring.

    Args:
        path: a file of one of the formats in `promptgen.audit.decoding`.
        size: S, pixels to resize to; None keeps the size of the image.

    Raises:
        DataError: as of `promptgen.audit.decoding.decode`.
    """
    image = decode(path)
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    if size not in (None, side):
        square = square.resize((size, size), Image.Resampling.BICUBIC)  # antialiased
    return np.asarray(square)


def read_batches(
    folder: Path, names: Sequence[str], *, batch: int, size: int | None = None, unread: Callable[[Unread], None]
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
    import torch

    stacked = torch.from_numpy(np.stack(list(held.values())))
    return ImageBatch(tuple(held), stacked.permute(0, 3, 1, 2).contiguous().float() / 255)

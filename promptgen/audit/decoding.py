"""Decode an image file as a viewer shows it: its depth, orientation, colours and transparency.

Only raster formats are decoded, by their content and whatever their name; others may run programs: Pillow hands
PostScript to Ghostscript.
"""

from __future__ import annotations

import io
import stat
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from promptgen.errors import DataError, one_line

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF"),
    "WEBP",
)
"""Raster formats that are read, by Pillow's names."""

WHITE_16 = 65535
DARKEST_16 = 1 << 14
"""An image of 16 bits without a larger value is taken for one of fewer bits, whose white is unknown."""


def decode(path: Path) -> Image.Image:
    """Return the image in a file in RGB, as a viewer shows it: the first frame, turned, in sRGB and on white.

    Raises:
        DataError: the file is not a regular file or raster image, is damaged, exceeds Pillow's limit on the number of
            pixels, or has pixels whose white is unknown.
    """
    _require_regular(path)
    Image.init()  # which fills `Image.OPEN` with the formats of this build of Pillow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd but harmless metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                return _as_shown(image)
    except UnidentifiedImageError as error:
        raise DataError("not a raster image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb") from error
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds of errors for damaged files
        raise DataError(f"unreadable: {one_line(error)}") from error


def _require_regular(path: Path) -> None:
    """Refuse all but regular files: a pipe would never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError("a broken link" if path.is_symlink() else "no longer a file") from error
    except OSError as error:
        raise DataError(f"unreadable: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        raise DataError(f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")


def _as_shown(image: Image.Image) -> Image.Image:
    deep = ";16" in str(getattr(image, "tile", ""))  # colours of 16 bits, which Pillow cuts to their upper 8
    tags: Any = getattr(image, "tag_v2", {})
    inverted = image.mode.startswith("I") and tags.get(262) == 0  # TIFF's photometric interpretation: white is zero
    profile = image.info.get("icc_profile")
    image.load()
    if min(image.size) < 1:
        raise DataError("no pixels")
    shown = image
    with suppress(Exception):  # whatever a camera has written: with damaged EXIF data, the image stays as it is stored
        shown = ImageOps.exif_transpose(image)
    if shown.mode == "F":
        raise DataError("its pixels are floating-point numbers without a defined white level")
    if shown.mode.startswith("I"):
        shown = _eight_bits(np.asarray(shown).astype(np.int64), inverted, scaled=image.format == "PPM")
    elif deep and 0 < _brightest(shown) < DARKEST_16 >> 8:
        highest = _brightest(shown)
        raise DataError(f"its colours of 16 bits are at most {highest} of 255: probably of fewer bits, white unknown")
    if shown.mode not in ("L", "LA", "RGB", "RGBA", "CMYK") or "transparency" in shown.info:
        shown = shown.convert("RGBA" if shown.has_transparency_data else "RGB")
    if profile:
        shown = _in_srgb(shown, profile)
    if not shown.has_transparency_data:
        return shown.convert("RGB")
    white = Image.new("RGBA", shown.size, "white")
    return Image.alpha_composite(white, shown.convert("RGBA")).convert("RGB")


def _eight_bits(values: np.ndarray[Any, np.dtype[np.int64]], inverted: bool, scaled: bool) -> Image.Image:
    """Return grey values of 16 bits, (H, W), as an image of 8 bits.

    Args:
        values: the values.
        inverted: whether 0 is white.
        scaled: whether they surely reach from 0 to 65535, however dark the image is.
    """
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > WHITE_16:
        raise DataError(f"its pixels are integers from {lowest} to {highest}, expected 0 to {WHITE_16}: white unknown")
    repeated = not (values % 257).any()  # each byte twice, as programs widen 8 bits; black, too
    if highest < DARKEST_16 and not (scaled or repeated):
        raise DataError(f"its pixels are at most {highest} of {WHITE_16}: probably of fewer bits, white unknown")
    shown = WHITE_16 - values if inverted else values
    return Image.fromarray((shown / 257).round().astype(np.uint8))


def _brightest(image: Image.Image) -> int:
    """Return the largest value of the colours of an image of 8 bits per band."""
    return max(int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band != "A")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image in sRGB, or as it is stored if its colour profile cannot be used."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha else image
    try:
        shown = ImageCms.applyTransform(colours, _to_srgb(profile, colours.mode))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if shown is None:
        return image
    if alpha:
        shown.putalpha(alpha)
    return shown


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")

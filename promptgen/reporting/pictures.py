"""Sample images as sheets of tiles, and as text that can stand inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptgen.errors import DataError

Pixels = NDArray[np.uint8]
QUALITY = 92  # of WebP; at 64 x 64 pixels, lower ones smear eyes


def split_sheet(sheet: Pixels, n: int) -> Pixels:
    """Return the first `n` tiles, (n, T, T, 3), of a gapless sheet of square tiles, (rows T, columns T, 3), row by row.

    Raises:
        DataError: no tile size fits `n` tiles into the sheet.
    """
    height, width = sheet.shape[:2]
    for columns in range(1, n + 1):
        rows = -(-n // columns)
        if width % columns == 0 and height == rows * (width // columns):
            tile = width // columns
            tiles = sheet.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
            return tiles[:n]
    raise DataError(f"a sheet of {width} x {height} pixels does not hold {n} square tiles; sample the grid again")


def sheet(tiles: Pixels, columns: int) -> Pixels:
    """Lay tiles, (n, T, T, 3), row by row into one image of `columns` columns; an unfinished row ends in mid grey."""
    n, size = tiles.shape[:2]
    rows = -(-n // columns)
    padded = np.full((rows * columns, *tiles.shape[1:]), 128, dtype=np.uint8)
    padded[:n] = tiles
    return padded.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def data_uri(pixels: Pixels) -> str:
    """Return an image, (H, W, 3), as a base64 WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="webp", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def png(pixels: Pixels) -> bytes:
    """Return an image, (H, W, 3), as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()

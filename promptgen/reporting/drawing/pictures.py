"""Sample images as sheets of tiles, and as text that can be embedded in a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
QUALITY = 92  # of WebP; lower values blur eyes at 64 x 64 pixels


def sheet(tiles: Pixels, columns: int) -> Pixels:
    """Lay tiles, (n, H, W, 3), row by row into one image of `columns` columns; incomplete rows are padded with grey."""
    n, height, width, _ = tiles.shape
    rows = -(-n // columns)
    padded = np.full((rows * columns, height, width, 3), 128, dtype=np.uint8)
    padded[:n] = tiles
    return padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def shrink(tiles: Pixels, largest_side: int) -> Pixels:
    """Return tiles, (n, H, W, 3), scaled down so that no side has more than `largest_side` pixels."""
    height, width = tiles.shape[1:3]
    scale = largest_side / max(height, width)
    if scale >= 1:
        return tiles
    size = (round(width * scale), round(height * scale))
    return np.stack([np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS)) for tile in tiles])


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

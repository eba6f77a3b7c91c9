"""Pixels in memory: grey levels, the sizes that models take, and a seed of the content. Pure NumPy, no file."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["content_seed", "fit_centre", "fit_crop", "fit_official", "gray_of"]

BAND = 256  # rows


def content_seed(sha256: str) -> int:
    """The seed of all noise that belongs to a file, from its content alone: the same in any folder, order or batch."""
    return int(sha256[:8], 16)


def gray_of(image: UInt8[np.ndarray, "h w 3"], format_name: str = "PNG") -> UInt8[np.ndarray, "h w"]:
    """Grey levels of RGB pixels by the weights that OpenCV's reader uses for files of this format."""
    red, green, blue, half, shift = {
        "PNG": (9797, 19234, 3737, 0, 15),  # libpng
        "BMP": (4899, 9617, 1868, 1 << 13, 14),
        "TIFF": (4899, 9617, 1868, 1 << 13, 14),
    }.get(format_name, (9798, 19235, 3735, 1 << 14, 15))
    gray = np.empty(image.shape[:2], np.uint8)
    for at in range(0, len(image), BAND):  # a hundred megapixels at once would take gigabytes
        band = image[at : at + BAND].astype(np.uint32)
        gray[at : at + BAND] = (red * band[..., 0] + green * band[..., 1] + blue * band[..., 2] + half) >> shift
    return gray


def fit_crop(image: UInt8[np.ndarray, "h w *c"], multiple: int) -> UInt8[np.ndarray, "hh ww *c"]:
    """Crop right and bottom to a multiple: keeps the decoder's grid, where resampling would destroy the fixed point."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


def fit_centre(height: int, width: int, *, most_pixels: int, grid: int) -> tuple[slice, slice]:
    """The middle of an image, of at most so many pixels: its rows and its columns.

    It is as near to a square as the image allows. A side that is cut becomes a multiple of `grid`, and the cut begins
    on one, so that the grids of decoders and of JPEG stay where they are.

    Args:
      height, width: of the image.
      most_pixels: at least `grid` squared.
      grid: in pixels.
    """
    rows = _cut(height, max(math.isqrt(most_pixels), most_pixels // width), grid)
    columns = _cut(width, most_pixels // (rows.stop - rows.start), grid)
    return rows, columns


def _cut(side: int, most: int, grid: int) -> slice:
    if side <= most:
        return slice(0, side)
    kept = most - most % grid
    start = (side - kept) // 2
    return slice(start - start % grid, start - start % grid + kept)


def fit_official(
    image: UInt8[np.ndarray, "h w 3"], multiple: int = 8, size: int | None = None
) -> UInt8[np.ndarray, "hh ww 3"]:
    """The authors' resizing: Pillow's bicubic, to the nearest multiple (Python's `round`: halves to even).

    Args:
      image: RGB pixels.
      multiple: what both sides are to be divisible by.
      size: both sides, whatever the image's; the authors do this for Kandinsky 2.1.
    """
    height, width = image.shape[:2]
    target = (size, size) if size else (round(width / multiple) * multiple, round(height / multiple) * multiple)
    if target == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(target))

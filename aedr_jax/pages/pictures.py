"""Pixels as PNG data URIs of bounded size, residuals, and a map of blocks over an image."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

__all__ = ["MOST_DEVIATIONS", "MOST_LEVELS", "Picture", "legend_colours", "overlay", "picture", "residual"]

MOST_SIDE = 512  # pixels; a larger picture is shown smaller
MOST_LEVELS = 16  # grey levels of a residual that are white
MOST_DEVIATIONS = 4.0  # of a block, at which the map's colours end
OWN, FOREIGN = np.array([0.0, 90.0, 181.0]), np.array([220.0, 110.0, 0.0])  # blue and orange, apart for all eyes
STRONGEST = 0.8  # of a block's colour over the image


class Picture(NamedTuple):
    """A picture in a page: its data URI, its width and height as shown, and what it shows, in words."""

    uri: str
    width: int
    height: int
    alt: str


def picture(pixels: UInt8[np.ndarray, "h w *c"], alt: str) -> Picture:
    """Pixels, grey or RGB, as a PNG without metadata; above `MOST_SIDE` they are made smaller."""
    image = Image.fromarray(pixels)
    if max(image.size) > MOST_SIDE:
        scale = MOST_SIDE / max(image.size)
        smaller = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(smaller, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", *image.size, alt)


def residual(one: Float[np.ndarray, "h w 3"], other: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """How far two images in [-1, 1] are apart, the mean over the channels: black where they are equal, white from
    `MOST_LEVELS` grey levels on. What is not finite is white."""
    levels = np.abs(np.asarray(one, np.float64) - other).mean(-1) * 127.5
    return np.nan_to_num(levels * (255 / MOST_LEVELS), nan=255.0).clip(0, 255).round().astype(np.uint8)


def overlay(
    pixels: UInt8[np.ndarray, "h w 3"], blocks: Float[np.ndarray, "hb wb"], *, margin: int, block: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The image in grey, under the colours of its blocks: blue below 0, orange above, none near 0 and where a block
    says nothing.

    Args:
      pixels: the image.
      blocks: block (i, j) covers the pixels from `margin + i · block` and `margin + j · block` on.
      margin, block: in pixels.
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)[..., None].repeat(3, axis=2)
    shares = np.nan_to_num(np.asarray(blocks, np.float64) / MOST_DEVIATIONS).clip(-1, 1)
    for (i, j), share in np.ndenumerate(shares):
        top, left = margin + i * block, margin + j * block
        part = gray[top : top + block, left : left + block]
        part[...] = _blended(part, float(share))
    return gray.clip(0, 255).round().astype(np.uint8)


def legend_colours() -> tuple[str, ...]:
    """Nine of the map's colours over middle grey, from `-MOST_DEVIATIONS` to `MOST_DEVIATIONS`, as #rrggbb."""
    colours = (_blended(np.full(3, 128.0), share) for share in np.linspace(-1, 1, 9))
    return tuple(f"#{colour.round().astype(np.uint8).tobytes().hex()}" for colour in colours)


def _blended(gray: np.ndarray, share: float) -> np.ndarray:
    strength = STRONGEST * abs(share)
    return gray * (1 - strength) + (OWN if share < 0 else FOREIGN) * strength

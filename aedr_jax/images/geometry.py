"""What became of an image since a decoder made it, and how to undo it: mirrored, turned, cropped, resized. Pure NumPy.

An image is brought back in the reverse order: turned back, mirrored back, resized to the size it had, and cut to where
the grid of `factor` pixels begins. A turn by 90° and a mirror move pixels and change none; a resize is undone by
another, with Lanczos' filter, and what it lost stays lost.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from aedr_jax.images.pixels import fit_crop

__all__ = ["Box", "Geometry", "orientations", "original_sizes", "resized"]


class Box(NamedTuple):
    """A rectangle of pixels, its sides parallel to the image's."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Shaped[np.ndarray, "h w *c"]) -> Shaped[np.ndarray, "hh ww *c"]:
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def meets(self, other: Box) -> bool:
        """Whether the two have a pixel in common."""
        return max(self.top, other.top) < min(self.top + self.height, other.top + other.height) and max(
            self.left, other.left
        ) < min(self.left + self.width, other.left + other.width)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How an image differs from what the decoder made: `str` says it in words.

    Attributes:
      seen: height and width of the image as it is.
      mirrored: left and right changed places, before any turn.
      quarters: turns by 90°, counter-clockwise, 0 to 3.
      size: height and width it had before a resize, upright; None where it was not resized.
      offset: rows above and columns left of the first whole cell of the grid, upright and in its own size.

    >>> from aedr_jax.images.geometry import Geometry
    >>> print(Geometry((1080, 810), mirrored=True, size=(1024, 768)))
    mirrored; scale 1024/1080
    >>> print(Geometry((256, 256), quarters=3, offset=(3, 5)), "-", Geometry((256, 256)), sep="\\n")
    turned by 270°; offset 3, 5
    -
    as it is
    """

    seen: tuple[int, int]
    mirrored: bool = False
    quarters: int = 0
    size: tuple[int, int] | None = None
    offset: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        said = [
            *(["mirrored"] if self.mirrored else []),
            *([f"turned by {90 * self.quarters}°"] if self.quarters else []),
            *([f"offset {self.offset[0]}, {self.offset[1]}"] if any(self.offset) else []),
            *([f"scale {max(self.size)}/{max(self.seen)}"] if self.size else []),
        ]
        return "; ".join(said) or "as it is"

    @property
    def seen_upright(self) -> tuple[int, int]:
        """Height and width of the image as it is, once turned back."""
        return self.seen if self.quarters % 2 == 0 else self.seen[::-1]

    def turned_back(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "hh ww 3"]:
        """The image, or a part of it, upright; neither resized nor cut."""
        image = np.rot90(image, -self.quarters)
        return image[:, ::-1] if self.mirrored else image

    def box_turned_back(self, box: Box, height: int, width: int) -> Box:
        """Where a box of an image of this height and width lies once that is upright."""
        top, left, tall, wide = box
        for _ in range(self.quarters):  # clockwise: columns become rows, from the last row on
            top, left, tall, wide = left, height - top - tall, wide, tall
            height, width = width, height
        return Box(top, width - left - wide if self.mirrored else left, tall, wide)

    def upright(self, image: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "hh ww 3"]:
        """The image as it stood on the decoder's grid, as far as it is still there: sides are multiples of `factor`."""
        image = self.turned_back(image)
        if self.size is not None:
            image = resized(image, self.size, Box(0, 0, *self.size))
        top, left = self.offset
        return np.ascontiguousarray(fit_crop(image[top:, left:], factor))


def orientations() -> Iterator[tuple[bool, int]]:
    """The eight ways to mirror and turn, as `mirrored` and `quarters`; the first is neither."""
    return itertools.product((False, True), range(4))


def resized(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], box: Box) -> UInt8[np.ndarray, "hh ww 3"]:
    """A box of the image resized to a size, without making the rest of it; what it shows does not depend on the box.

    Args:
      image: RGB pixels.
      size: height and width of the whole.
      box: of the resized image.
    """
    height, width = image.shape[:2]
    down, right = height / size[0], width / size[1]
    part = (box.left * right, box.top * down, (box.left + box.width) * right, (box.top + box.height) * down)
    bounds = (part[0], part[1], min(part[2], width), min(part[3], height))  # the last digit may lie beyond the border
    pixels = Image.fromarray(image).resize((box.width, box.height), Image.Resampling.LANCZOS, box=bounds)
    return np.asarray(pixels)


def original_sizes(
    height: int, width: int, *, factor: int, natives: tuple[int, ...], least: float, greatest: float, most: int
) -> list[tuple[int, int]]:
    """The sizes that an image may have had before it was resized as a whole, its own left out.

    Both sides are multiples of the factor, in proportion as the image shows them: the shorter one as the longer one
    tells, to less than a pixel of the image. For square images that leaves every multiple of the factor.

    Args:
      height, width: of the image.
      factor: the decoder's.
      natives: longer sides in pixels at which models generate, always among them where they fit.
      least, greatest: of the size over the image's.
      most: the longer side goes in steps of the factor, doubled until there are at most so many.

    >>> from aedr_jax.images.geometry import original_sizes
    >>> original_sizes(617, 1080, factor=8, natives=(1344,), least=1.2, greatest=1.3, most=64)
    [(744, 1304), (768, 1344), (776, 1360), (800, 1400)]
    """
    longer, shorter = max(height, width), min(height, width)
    step = factor
    while (greatest - least) * longer / step > most:
        step *= 2
    sides = {*range(step, int(greatest * longer) + 1, step), *(side for side in natives if side % factor == 0)}
    found = []
    for side in sorted(sides):
        other = round(shorter * side / longer / factor) * factor
        fits = least <= side / longer <= greatest and abs(shorter - other * longer / side) < 1
        if other and fits and (side, other) != (longer, shorter):
            found.append((side, other) if height >= width else (other, side))
    return found

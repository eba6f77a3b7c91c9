"""From an item to the pixels that models see. It runs in worker processes (`workers.py`), so it needs no JAX."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aedr_jax.errors import ImageError
from aedr_jax.images.codec import MAX_PIXELS, MIN_SIDE, Photo, decode_photo, decode_quality, decode_size
from aedr_jax.images.pixels import content_seed, fit_centre, fit_crop, fit_official, gray_of
from aedr_jax.images.processing import Processing
from aedr_jax.images.tiles import Grid, Tiling
from aedr_jax.inputs.sources import Item

__all__ = ["CENTRE_GRID", "MAX_RESIZED_PIXELS", "MAX_SCORED_PIXELS", "Decoded", "Decoder", "Refused"]

# Larger images are measured in their middle, for time and memory's sake: attention over 1024×1024 pixels, the largest
# native size of the paper's models, takes gigabytes, and sixteen times as much at twice the side.
MAX_SCORED_PIXELS = 1 << 20
MAX_RESIZED_PIXELS = 1 << 24  # where sizes are the authors', whose resizing knows no middle
LONGEST_SIDE = 1 << 16  # in pixels: no image is cut into tiles of more
CENTRE_GRID = 64  # what its cut keeps to, beside the decoder's own multiple


class Decoded(NamedTuple):
    """An image as the models see it.

    Attributes:
      id: the item's.
      path: the item's.
      sha256: of the file's bytes, in hex.
      format: what Pillow calls the format.
      width: of the whole image in pixels, after what was done to it; with a decoder's `side`, as the file has it.
      height: likewise.
      gray: uint8 [h,w], the grey levels of the whole image, or of the middle that is measured of a large one; with a
        decoder's `side`, of just the pixels that the models see; none of what is cut into tiles.
      images: uint8 [h,w,3] each, one for each of the decoder's fits; with its `tilings` uint8 [tiles,t,t,3] each.
      quality: that a JPEG was last saved at; 0 for a file of another format.
      used: height and width of what `images` show, each.
    """

    id: str
    path: str | Path
    sha256: str
    format: str
    width: int
    height: int
    gray: np.ndarray
    images: tuple[np.ndarray, ...]
    quality: int = 0
    used: tuple[tuple[int, int], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of `images`: what can share a batch."""
        return tuple(image.shape for image in self.images)

    @property
    def seed(self) -> int:
        """Of all noise that belongs to it (`content_seed`)."""
        return content_seed(self.sha256)

    @property
    def nbytes(self) -> int:
        """Of all its pixels."""
        return self.gray.nbytes + sum(image.nbytes for image in self.images)


class Refused(NamedTuple):
    """An item that is no image which can be scored, and why."""

    id: str
    path: str | Path
    error: str


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What is done to an image file before models see it.

    Attributes:
      multiple: crop right and bottom to a multiple of this. An image that leaves too little of it is refused.
      fits: the authors' resizing in place of the crop: (multiple, size) of each kind of model, as `fit_official` takes
        them; EXIF orientation is then ignored. Empty: the crop.
      processing: what is done to the image first, by its name.
      most_pixels: what is measured of an image. Of a larger one it is the middle (`fit_centre`), just as if that had
        been the file; the authors' resizing knows no such thing, and a larger one is refused.
      most_decoded: an image of more pixels is refused before it is decoded.
      side: every image is taken for its middle, of so many pixels square, before anything is done to it, and what that
        enlarges is cut back to this side: for comparisons, where all methods see the same pixels. None: the whole.
      grid: in pixels, which `side` is a multiple of: the middle begins on one of its lines.
      crops: in place of `multiple`, divisors of it: one crop for each kind of model. Empty: `multiple` alone.
      tilings: one for each crop: models see its tiles alone. Empty: they see the whole of it.
    """

    multiple: int = 1
    fits: tuple[tuple[int, int | None], ...] = ()
    processing: str = "none"
    most_pixels: int = MAX_SCORED_PIXELS
    most_decoded: int = MAX_PIXELS
    side: int | None = None
    grid: int = 1
    crops: tuple[int, ...] = ()
    tilings: tuple[Tiling, ...] = ()

    @property
    def whole(self) -> Decoder:
        """The same, of images that are not cut into tiles."""
        return dataclasses.replace(self, tilings=())

    @property
    def most_given(self) -> int:
        """A bound on the pixels of each array in a `Decoded`."""
        enlarged = 2 * max(self.most_pixels, MAX_SCORED_PIXELS)  # by the authors' resizing
        squares = [size or 0 for _, size in self.fits] + [self.side or 0]
        grids = [(cut.config.tiles, Grid.of(cut.config, cut.factor, LONGEST_SIDE)) for cut in self.tilings]
        return max(enlarged, *(side**2 for side in squares), *(n * grid.tile**2 for n, grid in grids if grid))

    def __call__(self, item: Item) -> Decoded | Refused:
        """Decode an item; whatever is wrong with it is a `Refused` that names the file and the reason."""
        try:
            data, cap = item.read(), self.most_decoded
            self._check_size(*decode_size(data, name=item.path, most_pixels=cap), item)
            photo = decode_photo(data, name=item.path, orient=not self.fits, most_pixels=cap)
            quality = decode_quality(data, name=item.path, most_pixels=cap) if photo.format == "JPEG" else None
            if self.side:
                height, width = photo.gray.shape
                photo = self._compared(photo, item, self.side)
            else:
                photo = self._processed(photo, item)
                height, width = photo.image.shape[:2]
                self._check_size(width, height, item)
                if not self.fits:
                    photo = _middle(photo, self.most_pixels, math.lcm(CENTRE_GRID, self.multiple))
            images, gray = self._fitted(photo.image), photo.gray
        except ImageError as error:
            return Refused(item.id, item.path, str(error))
        used = tuple(image.shape[:2] for image in images)
        if self.tilings:
            images = tuple(tiling(image) for tiling, image in zip(self.tilings, images, strict=True))
            gray = gray[:0, :0]
        return Decoded(item.id, item.path, photo.sha256, photo.format, width, height, gray, images, quality or 0, used)

    def _check_size(self, width: int, height: int, item: Item) -> None:
        least = self.side or MIN_SIDE
        if min(width, height) < least:
            raise ImageError(f"{item.path}: {width}×{height}; the shorter side must be at least {least} pixels")
        if self.side:
            return
        if self.fits and width * height > self.most_pixels:
            raise ImageError(
                f"{item.path}: {width}×{height} is above {self.most_pixels} pixels, and the official preset resizes "
                "whole images; allow more (--most-pixels), crop it first, or measure with another preset"
            )
        used = (width - width % self.multiple, height - height % self.multiple)
        if not self.fits and min(used) < MIN_SIDE:
            raise ImageError(
                f"{item.path}: {width}×{height} leaves {used[0]}×{used[1]} of a multiple of {self.multiple}"
            )

    def _processed(self, photo: Photo, item: Item) -> Photo:
        if self.processing == "none":
            return photo
        processing = Processing.parse(self.processing)
        image = processing.apply(photo.image, seed=content_seed(photo.sha256))
        if min(image.shape[:2]) < (self.multiple if self.side else MIN_SIDE):
            raise ImageError(f"{item.path}: {processing} leaves {image.shape[1]}×{image.shape[0]} pixels")
        return photo._replace(image=image, gray=gray_of(image))  # as if saved to PNG

    def _compared(self, photo: Photo, item: Item, side: int) -> Photo:
        photo = self._processed(_middle(photo, side * side, self.grid), item)
        image, gray = (fit_crop(pixels[:side, :side], self.multiple) for pixels in (photo.image, photo.gray))
        return photo._replace(image=image, gray=gray)

    def cut(self, width: int, height: int) -> str:
        """What the size rule of an image of this size has beside the run's: that its middle alone is measured."""
        return f",centre{self.most_pixels}" if not self.fits and width * height > self.most_pixels else ""

    def _fitted(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.fits:
            return tuple(fit_official(image, multiple, size) for multiple, size in self.fits)
        return tuple(fit_crop(image, multiple) for multiple in self.crops or (self.multiple,))


def _middle(photo: Photo, most_pixels: int, grid: int) -> Photo:
    height, width = photo.gray.shape
    if width * height <= most_pixels:
        return photo
    middle = fit_centre(height, width, most_pixels=most_pixels, grid=grid)
    return photo._replace(image=photo.image[middle].copy(), gray=photo.gray[middle].copy())  # the whole is let go

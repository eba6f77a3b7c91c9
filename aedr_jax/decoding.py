"""From an item to the pixels that models see. It runs in worker processes (`workers.py`), so it needs no JAX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aedr_jax.errors import ImageError
from aedr_jax.images import (
    MIN_SIDE,
    Photo,
    decode_photo,
    decode_quality,
    decode_size,
    fit_crop,
    fit_official,
    gray_of,
)
from aedr_jax.processing import Processing
from aedr_jax.sources import Item

__all__ = ["MAX_SCORED_PIXELS", "Decoded", "Decoder", "Refused"]

MAX_SCORED_PIXELS = 1 << 24


class Decoded(NamedTuple):
    """An image as the models see it.

    Attributes:
      id: the item's.
      path: the item's.
      sha256: of the file's bytes, in hex.
      format: what Pillow calls the format.
      width: of the whole image in pixels.
      height: likewise.
      gray: uint8 [h,w], the grey levels of the whole image.
      images: uint8 [h,w,3] each, one for each of the decoder's fits.
      quality: that a JPEG was last saved at; 0 for a file of another format.
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

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of `images`: what can share a batch."""
        return tuple(image.shape for image in self.images)

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
      multiple: crop right and bottom to a multiple of this.
      fits: the authors' resizing in place of the crop: (multiple, size) of each kind of model, as `fit_official` takes
        them; EXIF orientation is then ignored. Empty: the crop.
      processing: what is done to the image first, by its name.
    """

    multiple: int = 1
    fits: tuple[tuple[int, int | None], ...] = ()
    processing: str = "none"

    def __call__(self, item: Item) -> Decoded | Refused:
        """Decode an item; whatever is wrong with it is a `Refused` that names the file and the reason."""
        try:
            data = item.read()
            self._check_size(*decode_size(data, name=item.path), item)
            photo = self._processed(decode_photo(data, name=item.path, orient=not self.fits), item)
            images = self._fitted(photo.image)
            quality = (decode_quality(data, name=item.path) or 0) if photo.format == "JPEG" else 0
            height, width = photo.image.shape[:2]
            self._check_size(width, height, item)
        except ImageError as error:
            return Refused(item.id, item.path, str(error))
        return Decoded(item.id, item.path, photo.sha256, photo.format, width, height, photo.gray, images, quality)

    def _check_size(self, width: int, height: int, item: Item) -> None:
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"{item.path}: {width}×{height}; the shorter side must be at least {MIN_SIDE} pixels")
        if width * height > MAX_SCORED_PIXELS:
            raise ImageError(f"{item.path}: {width}×{height} is above {MAX_SCORED_PIXELS} pixels; crop it first")
        used = (width - width % self.multiple, height - height % self.multiple)
        if not self.fits and min(used) < MIN_SIDE:
            raise ImageError(
                f"{item.path}: {width}×{height} leaves {used[0]}×{used[1]} of a multiple of {self.multiple}"
            )

    def _processed(self, photo: Photo, item: Item) -> Photo:
        if self.processing == "none":
            return photo
        processing = Processing.parse(self.processing)
        image = processing.apply(photo.image, seed=int(photo.sha256[:8], 16))
        if min(image.shape[:2]) < MIN_SIDE:
            raise ImageError(f"{item.path}: {processing} leaves {image.shape[1]}×{image.shape[0]} pixels")
        return photo._replace(image=image, gray=gray_of(image))  # as if saved to PNG

    def _fitted(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.fits:
            return tuple(fit_official(image, multiple, size) for multiple, size in self.fits)
        return (fit_crop(image, self.multiple),)

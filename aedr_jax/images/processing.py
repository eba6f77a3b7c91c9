"""What happens to an image after it was made: compression, resizing, cropping, blur and noise, by name.

Every processing takes and gives uint8 [h,w,3]. Only noise and the place of a crop are random, and both follow from a
seed. `GRID` holds the conditions of the robustness study.
"""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["GRID", "KINDS", "Processing"]

KINDS = {  # kind -> least and largest amount, and what the amount is
    "none": (0.0, 0.0, "nothing"),
    "jpeg": (1.0, 100.0, "quality, a whole number"),
    "webp": (1.0, 100.0, "quality, a whole number"),
    "resize": (0.1, 10.0, "factor of both sides"),
    "crop": (0.1, 1.0, "share of both sides that is kept"),
    "blur": (0.1, 100.0, "σ in pixels"),
    "noise": (0.001, 1.0, "σ as a share of the full range"),
}
GRID_PERIOD = 8  # of JPEG's blocks, and of most autoencoders


@dataclasses.dataclass(frozen=True)
class Processing:
    """One thing done to an image, such as JPEG at quality 75. `str` gives the name that `parse` reads: "jpeg75".

    Attributes:
      kind: one of `KINDS`.
      amount: how much of it; `KINDS` has the ranges and the units.

    Raises:
      ValueError: on an unknown kind or an amount that it does not allow.
    """

    kind: str
    amount: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"processing {self.kind!r}: expected one of {', '.join(KINDS)}")
        least, largest, meaning = KINDS[self.kind]
        whole = "whole" not in meaning or self.amount % 1 == 0
        if not (least <= self.amount <= largest and whole):
            raise ValueError(f"{self.kind} {self.amount!r}: expected {least:g} to {largest:g} ({meaning})")

    @classmethod
    def parse(cls, text: str) -> Processing:
        """A processing by its name: "none", "jpeg75", "webp80", "resize0.5", "crop0.8", "blur1", "noise0.02".

        Raises:
          ValueError: on a text of another form, an unknown kind or an amount that it does not allow.
        """
        match = re.fullmatch(r"([a-z]+)([0-9]*\.?[0-9]+)?", text)
        if match is None or (match[1] in KINDS and (match[2] is None) != (match[1] == "none")):
            raise ValueError(f"processing {text!r}: expected a kind and its amount, such as jpeg75 or blur0.5, or none")
        return cls(match[1], float(match[2] or 0))

    def __str__(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind}{float(self.amount)!r}".removesuffix(".0")

    def apply(self, image: UInt8[np.ndarray, "h w 3"], *, seed: int = 0) -> UInt8[np.ndarray, "hh ww 3"]:
        """The image after the processing.

        - jpeg (4:2:0) and webp (lossy): compressed and read back, in memory, by Pillow.
        - resize: Pillow's Lanczos; the sides become `round(side * amount)`.
        - crop: the sides become `round(side * amount)`, from the middle but for a shift of up to 4 pixels in each
          direction that the seed draws: the middle itself may or may not lie on the grid of an autoencoder or of JPEG
          by accident of the size. With a seed for each image, all 8×8 phases of that grid are equally likely, where
          at least 8 pixels are cut from a side.
        - blur: Gaussian, cut off at 4σ, the image mirrored at its borders.
        - noise: Gaussian, each channel of each pixel on its own.

        Args:
          image: RGB pixels.
          seed: of the noise and of the crop's place; nothing else looks at it.

        Returns:
          uint8, in another size after resize and crop. It may be read-only or share memory with `image`.
        """
        match self.kind:
            case "jpeg":
                return _round_trip(image, "JPEG", quality=int(self.amount), subsampling="4:2:0")
            case "webp":
                return _round_trip(image, "WEBP", quality=int(self.amount))
            case "resize":
                height, width = _scaled(image, self.amount)
                return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
            case "crop":
                return _crop(image, self.amount, np.random.default_rng(seed))
            case "blur":
                from scipy import ndimage  # exact; Pillow's blur is an approximation, levels away

                return _eight_bit(ndimage.gaussian_filter(image.astype(np.float32), (self.amount, self.amount, 0)))
            case "noise":
                noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
                return _eight_bit(image + 255 * self.amount * noise)
        return image


def _round_trip(image: UInt8[np.ndarray, "h w 3"], format_name: str, **options: object) -> UInt8[np.ndarray, "h w 3"]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format_name, **options)
    with Image.open(file) as stored:
        return np.asarray(stored.convert("RGB"))


def _scaled(image: UInt8[np.ndarray, "h w 3"], factor: float) -> tuple[int, int]:
    height, width = image.shape[:2]
    return max(1, round(height * factor)), max(1, round(width * factor))


def _crop(
    image: UInt8[np.ndarray, "h w 3"], share: float, generator: np.random.Generator
) -> UInt8[np.ndarray, "hh ww 3"]:
    sides = _scaled(image, share)
    margins = [whole - side for whole, side in zip(image.shape, sides, strict=False)]
    # One period of the grid around the middle, or as much of it as there is.
    first = [max(0, margin // 2 - GRID_PERIOD // 2) for margin in margins]
    top, left = (
        int(generator.integers(low, min(margin, low + GRID_PERIOD - 1), endpoint=True))
        for low, margin in zip(first, margins, strict=True)
    )
    return image[top : top + sides[0], left : left + sides[1]]


def _eight_bit(pixels: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return pixels.round().clip(0, 255).astype(np.uint8)


GRID = tuple(
    Processing(kind, amount)
    for kind, amounts in {
        "none": (0.0,),
        "jpeg": (95.0, 90.0, 80.0, 70.0, 50.0),
        "webp": (80.0,),
        "resize": (0.5, 0.75, 1.5, 2.0),
        "crop": (0.8,),
        "blur": (0.5, 1.0, 2.0),
        "noise": (0.01, 0.02, 0.05),
    }.items()
    for amount in amounts
)

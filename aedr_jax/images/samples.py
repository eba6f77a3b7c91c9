"""Stored samples of every kind to 8 bits: one rule for each, or a refusal that says what to do.

| samples | rule |
|---|---|
| 1, 2, 4, 8 bits; palettes; grey with alpha | as stored, spread over 0 to 255 |
| 16 bits, of one channel or several | the high byte, as OpenCV and libpng do |
| 12 bits (TIFF) | the upper eight |
| grey where 0 is white (TIFF) | inverted |
| floats (TIFF, PFM) | from 0 to 1, times 255, rounded; outside of that or not finite: refused |
| PGM and PPM of another largest value | scaled by it; above 255 grey goes to 16 bits first |
| CMYK, YCbCr, LAB | Pillow's conversion to RGB; no profile is applied |
| signed integers, 32-bit integers | refused: nothing says which range they fill |
| what Pillow does not read: floats of several channels, of 16 or 64 bits, ... | refused |
| uncompressed 16-bit planes (TIFF) | refused: Pillow reads wrong pixels from them |
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, TiffImagePlugin

__all__ = ["describe_tiff", "eight_bit"]

BITS, COMPRESSION, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 259, 262, 284, 339  # TIFF tags
WHITE_IS_ZERO = 0
FORMATS = {1: "unsigned", 2: "signed", 3: "float"}


def eight_bit(image: Image.Image) -> Image.Image:
    """An image of 8-bit samples (or one bit, which Pillow spreads itself): the same, or its samples by the rules above.

    Pillow's own conversions would clip at 255.

    Raises:
      ValueError: on samples without a rule.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits, *_ = tags.get(BITS, (8,))
    if 2 in tags.get(SAMPLE_FORMAT, ()):
        raise ValueError(f"signed {bits}-bit samples, and nothing says which range they fill; save 8 bits, unsigned")
    if bits == 16 and len(tags[BITS]) > 1 and (tags.get(PLANES), tags.get(COMPRESSION)) == (2, 1):
        raise ValueError("uncompressed 16-bit planes, which Pillow mistakes for 8-bit ones; save one plane, or 8 bits")
    if image.mode == "F":
        levels = _from_floats(np.asarray(image))
    elif image.mode.startswith("I;16"):
        levels = (np.asarray(image) >> (4 if bits == 12 else 8)).astype(np.uint8)
    elif image.mode == "I" and not tags:
        levels = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
    elif image.mode == "I":
        raise ValueError(f"{bits}-bit integers, and nothing says which range they fill; save 8 or 16 bits")
    else:
        return image
    return Image.fromarray(~levels if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else levels)


def _from_floats(values: np.ndarray) -> np.ndarray:
    least, most = values.min(), values.max()  # NaN where one is
    if not (least >= 0 and most <= 1):
        raise ValueError(f"float samples from {least:g} to {most:g}; expected 0 to 1: scale them, or save 8 bits")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def describe_tiff(data: bytes) -> str:
    """What samples a TIFF says that it has, such as "16-bit float, photometric 2"; "" where it says nothing."""
    try:
        big = 43 in data[2:4]
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        kind = FORMATS.get(directory.get(SAMPLE_FORMAT, (1,))[0], "unknown")
        return f"{'+'.join(map(str, directory[BITS]))}-bit {kind}, photometric {directory[PHOTOMETRIC]}"
    except Exception:  # it is only the wording of a refusal
        return ""

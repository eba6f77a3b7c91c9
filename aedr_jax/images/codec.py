"""Image files in: one decoder for the losses and for the grey-level texture.

Rules, the same for every image:

- Metadata are cut out before anything is decoded (`metadata.py`), but for the orientation, which is applied once.
- Only the first frame counts; colour profiles are not applied (the authors' code applies none).
- Alpha is dropped and the stored colours are kept: blending with a background would invent pixels.
- Grey becomes three equal channels; other samples than 8 bits have one rule each (`samples.py`).
- Files of other formats than `FORMATS`, above `MAX_PIXELS` (or what `most_pixels` says), or truncated are an
  `ImageError`.

`read_gray` gives the grey that the AEDR authors' code sees, which is what OpenCV's grey reader returns and depends on
the file: from a JPEG the stored luma channel itself; from a PNG libpng's weights; elsewhere OpenCV's own weights.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, UnidentifiedImageError

from aedr_jax.errors import ImageError
from aedr_jax.images.metadata import bare
from aedr_jax.images.pixels import gray_of
from aedr_jax.images.samples import describe_tiff, eight_bit

__all__ = [
    "FORMATS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Photo",
    "decode_photo",
    "decode_quality",
    "decode_size",
    "read_bytes",
    "read_gray",
    "read_image",
    "too_large",
    "why_no_url",
]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # JPEG includes MPO, the several-picture JPEG of phones
MAX_PIXELS = 1 << 27  # that are decoded, for safety; how many are measured is `decoding.MAX_SCORED_PIXELS`
SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
}
MAX_FILE_BYTES = 1 << 29
RAISED = threading.Lock()  # held while Pillow's limit is another
# Annex K.1 of the JPEG standard, which libjpeg scales.
LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
MIN_SIDE = 64  # below this an image holds too few latents to say anything


class Photo(NamedTuple):
    """A decoded file.

    Attributes:
      image: uint8 [h,w,3], RGB.
      gray: uint8 [h,w], as OpenCV's grey reader gives it.
      format: what Pillow calls the format ("PNG", "JPEG", ...).
      sha256: of the file's bytes, in hex.
    """

    image: UInt8[np.ndarray, "h w 3"]
    gray: UInt8[np.ndarray, "h w"]
    format: str
    sha256: str


def read_image(
    path: str | os.PathLike[str], *, orient: bool = True, most_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB pixels of an image file.

    Args:
      path: the file.
      orient: whether EXIF orientation is applied (the authors' losses ignore it).
      most_pixels: an image of more is refused before it is decoded.

    Returns:
      uint8 [h,w,3].

    Raises:
      ImageError: with the file and the reason.

    >>> from PIL import Image
    >>> Image.new("RGB", (96, 64), (255, 0, 0)).save("red.png")
    >>> pixels = aedr.read_image("red.png")
    >>> pixels.shape, pixels[0, 0]
    ((64, 96, 3), array([255,   0,   0], dtype=uint8))
    """
    with _explained(path), _opened(read_bytes(path), path, most_pixels) as (image, orientation):
        return _oriented(_rgb(image), orientation if orient else 1)


def read_gray(path: str | os.PathLike[str], *, most_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w"]:
    """The grey levels that the AEDR authors' code sees: `cv2.imread(path, cv2.IMREAD_GRAYSCALE)`.

    They are about .299 R + .587 G + .114 B; rounding and weights depend on the file's format.

    Args:
      path: the file.
      most_pixels: an image of more is refused before it is decoded.

    Returns:
      uint8 [h,w].

    Raises:
      ImageError: with the file and the reason.

    Reference: OpenCV 4.13. Grey levels are equal pixel by pixel for 8-bit PNG, JPEG, WebP, BMP, TIFF and GIF and for
    16-bit grey PNG. They are within one level for 16-bit RGB PNG, which Pillow cuts to 8 bit first. CMYK is converted
    differently.

    >>> from PIL import Image
    >>> Image.new("RGB", (96, 64), (255, 0, 0)).save("red.png")
    >>> gray = aedr.read_gray("red.png")
    >>> gray.shape, int(gray[0, 0])
    ((64, 96), 76)
    """
    with _explained(path), _opened(read_bytes(path), path, most_pixels) as (image, orientation):
        return _oriented(_gray(image), orientation)


def decode_photo(
    data: bytes, *, name: str | os.PathLike[str], orient: bool = True, most_pixels: int = MAX_PIXELS
) -> Photo:
    """Pixels, grey levels, format and hash of a file's bytes, as `read_image` and `read_gray` have them.

    Args:
      data: the bytes.
      name: of the file, in errors.
      orient: whether EXIF orientation is applied to the pixels; to the grey levels it is.
      most_pixels: an image of more is refused before it is decoded.

    Raises:
      ImageError: with the name and the reason.
    """
    with _explained(name):
        with _opened(data, name, most_pixels) as (image, orientation):
            format_name, rgb = str(image.format), _rgb(image)
        if format_name == "JPEG":
            with _opened(data, name, most_pixels) as (image, _):
                gray = _gray(image)
        else:
            gray = gray_of(rgb, format_name)
    turned = _oriented(rgb, orientation) if orient else rgb
    return Photo(turned, _oriented(gray, orientation), format_name, hashlib.sha256(data).hexdigest())


def decode_size(data: bytes, *, name: str | os.PathLike[str], most_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of a file's bytes as `read_image` has them; no pixel is decoded. Arguments and errors as for
    `decode_photo`.
    """
    with _explained(name), _opened(data, name, most_pixels) as (image, orientation):
        return (image.height, image.width) if orientation >= 5 else image.size


def decode_quality(data: bytes, *, name: str | os.PathLike[str], most_pixels: int = MAX_PIXELS) -> int | None:
    """The quality that a JPEG was last saved at, from its luminance quantization table; no pixel is decoded.

    Exact for tables that libjpeg scales for a quality from 1 to 100; for others the quality of the nearest such table,
    by the sum of absolute differences. Arguments and errors as for `decode_photo`.

    Returns:
      1..100; None for a file of another format.

    Source: `jpeg_quality_scaling` and `jpeg_add_quant_table` of the Independent JPEG Group's libjpeg.
    """
    with _explained(name), _opened(data, name, most_pixels) as (image, _):
        if image.format != "JPEG":
            return None
        tables: dict[int, list[int]] = getattr(image, "quantization", {})
        if not tables:
            raise ImageError(f"{name}: a JPEG without quantization tables")
        luminance = np.array(tables[min(tables)], np.int64)
        return 1 + int(np.abs(_ijg_tables() - luminance).sum(axis=1).argmin())


def _ijg_tables() -> Integer[np.ndarray, "100 64"]:
    """libjpeg's baseline luminance tables of the qualities 1 to 100, row by row as Pillow gives them."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((LUMINANCE * percent[:, None] + 50) // 100).clip(1, 255)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes, if it is a regular file of at most `MAX_FILE_BYTES`.

    Raises:
      ImageError: with the file and the reason.
    """
    if not isinstance(path, str | os.PathLike):
        raise ImageError(f"path: {type(path).__name__}; expected the name of one image file")
    with _explained(path):
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # it may never end
            raise ImageError(f"{path}: is a pipe or device, not an image file")
        if (size := os.stat(path).st_size) > MAX_FILE_BYTES:
            raise ImageError(f"{path}: {too_large(size)}")
        return Path(path).read_bytes()


def why_no_url(name: object) -> str:
    """Why nothing is read from a URL, and what to do; "" for other names."""
    url = re.match("[a-z][a-z0-9+.-]+:/", str(name), re.IGNORECASE)  # a Path has one slash of two
    return "is a URL, which is not read: download it, and give the file or its folder" if url else ""


def too_large(size: int) -> str:
    """Why so many bytes are not read."""
    return f"{size} bytes; files above {MAX_FILE_BYTES} are not read"


@contextmanager
def _explained(name: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever Pillow raises on hostile bytes becomes an `ImageError` that names the file."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: {why_no_url(name) or 'no such file'}") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ValueError, ...
        raise ImageError(f"{name}: cannot be decoded: {error}") from error


@contextmanager
def _opened(data: bytes, name: str | os.PathLike[str], most_pixels: int) -> Iterator[tuple[Image.Image, int]]:
    """A file without its metadata, not decoded yet, and its orientation."""
    pixels, orientation = bare(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large sizes are dealt with below
        above = f"above the {most_pixels} pixels that are decoded; crop it first, or allow more"
        try:
            opened = _open(pixels, most_pixels)
        except UnidentifiedImageError:
            raise ImageError(f"{name}: {_unread(pixels)}") from None
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: is {above}") from None
        with opened as image:
            if image.width * image.height > most_pixels:
                raise ImageError(f"{name}: {image.width}×{image.height} is {above}")
            yield image, orientation


def _open(data: bytes, most_pixels: int) -> Image.Image:
    """Pillow's `open`, whose own limit comes before anything can be asked of the image: it is a global, so it is raised
    for no longer than that, and only to what is allowed."""
    with RAISED:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None:
            Image.MAX_IMAGE_PIXELS = max(limit, -(-most_pixels // 2))  # it refuses what is above twice this
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _unread(data: bytes) -> str:
    """Why no decoder takes a file."""
    kind = next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), None)
    if kind is None:
        return f"not an image of a known format ({', '.join(FORMATS)})"
    told = f" ({told})" if kind == "TIFF" and (told := describe_tiff(data)) else ""
    return f"a {kind} file that is broken or of a kind that is not read{told}; save it anew, as an 8-bit PNG"


def _oriented(pixels: UInt8[np.ndarray, "h w *c"], orientation: int) -> UInt8[np.ndarray, "hh ww *c"]:
    match orientation:
        case 2:
            pixels = pixels[:, ::-1]
        case 3:
            pixels = pixels[::-1, ::-1]
        case 4:
            pixels = pixels[::-1]
        case 5:
            pixels = pixels.swapaxes(0, 1)
        case 6:
            pixels = np.rot90(pixels, -1)
        case 7:
            pixels = pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            pixels = np.rot90(pixels)
    return np.ascontiguousarray(pixels)


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    image = eight_bit(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _gray(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    format_name = str(image.format)
    if format_name == "JPEG":
        image.draft("L", image.size)
    image = eight_bit(image)
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    return gray_of(_rgb(image), format_name)

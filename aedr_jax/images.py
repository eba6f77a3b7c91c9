"""Image files in: one decoder for the losses and for the grey-level texture.

Rules, the same for every image:

- EXIF orientation is applied once.
- Only the first frame counts; colour profiles are not applied (the authors' code applies none).
- Alpha is dropped and the stored colours are kept: blending with a background would invent pixels.
- Palettes are expanded; grey becomes three equal channels; CMYK is converted by Pillow.
- Of 16-bit samples the high byte is kept, as OpenCV and libpng do.
- Files of other formats than `FORMATS`, above `MAX_PIXELS`, or truncated are an `ImageError`.

`read_gray` gives the grey that the AEDR authors' code sees, which is what OpenCV's grey reader returns and depends on
the file: from a JPEG the stored luma channel itself; from a PNG libpng's weights; elsewhere OpenCV's own weights.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from aedr_jax.errors import ImageError

__all__ = [
    "FORMATS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Photo",
    "decode_photo",
    "decode_quality",
    "decode_size",
    "fit_crop",
    "fit_official",
    "jpeg_quality",
    "read_bytes",
    "read_gray",
    "read_image",
    "read_photo",
    "read_size",
]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # JPEG includes MPO, the several-picture JPEG of phones
MAX_PIXELS = 1 << 26
MAX_FILE_BYTES = 1 << 29
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


def read_image(path: str | os.PathLike[str], *, orient: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB pixels of an image file.

    Args:
      path: the file.
      orient: whether EXIF orientation is applied (the authors' losses ignore it).

    Returns:
      uint8 [h,w,3].

    Raises:
      ImageError: with the file and the reason.
    """
    data = read_bytes(path)
    with _explained(path), _opened(data, path) as image:
        return _rgb(image, orient)


def read_gray(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "h w"]:
    """The grey levels that the AEDR authors' code sees: `cv2.imread(path, cv2.IMREAD_GRAYSCALE)`.

    Equal to OpenCV 4.13 pixel by pixel for 8-bit PNG, JPEG, WebP, BMP, TIFF and GIF and for 16-bit grey PNG; within one
    level for 16-bit RGB PNG (Pillow cuts it to 8 bit first); another conversion for CMYK.

    Returns:
      uint8 [h,w].

    Raises:
      ImageError: with the file and the reason.
    """
    data = read_bytes(path)
    with _explained(path), _opened(data, path) as image:
        return _gray(image)


def read_photo(path: str | os.PathLike[str], *, orient: bool = True) -> Photo:
    """Pixels, grey levels, format and hash of a file, read once. See `read_image` and `read_gray`."""
    return decode_photo(read_bytes(path), name=path, orient=orient)


def decode_photo(data: bytes, *, name: str | os.PathLike[str], orient: bool = True) -> Photo:
    """`read_photo` for bytes that are in memory; `name` stands in for the path in errors."""
    with _explained(name):
        with _opened(data, name) as image:
            format_name, rgb = _format(image), _rgb(image, orient)
        with _opened(data, name) as image:
            gray = _gray(image)
    return Photo(rgb, gray, format_name, hashlib.sha256(data).hexdigest())


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height as `read_image` will return them, without decoding (but a PNG's EXIF may follow its pixels).

    Raises:
      ImageError: with the file and the reason.
    """
    _check_regular(path)
    return _size(path, path)


def decode_size(data: bytes, *, name: str | os.PathLike[str]) -> tuple[int, int]:
    """`read_size` for bytes that are in memory; `name` stands in for the path in errors."""
    return _size(data, name)


def jpeg_quality(path: str | os.PathLike[str]) -> int | None:
    """The quality that a JPEG was last saved at, from its luminance quantization table; no pixel is decoded.

    Exact for tables that libjpeg scales for a quality from 1 to 100; for others the quality of the nearest such table,
    by the sum of absolute differences.

    Returns:
      1..100; None for a file of another format.

    Raises:
      ImageError: with the file and the reason.

    Source: `jpeg_quality_scaling` and `jpeg_add_quant_table` of the Independent JPEG Group's libjpeg.
    """
    _check_regular(path)
    return _quality(path, path)


def decode_quality(data: bytes, *, name: str | os.PathLike[str]) -> int | None:
    """`jpeg_quality` for bytes that are in memory; `name` stands in for the path in errors."""
    return _quality(data, name)


def fit_crop(image: UInt8[np.ndarray, "h w *c"], multiple: int) -> UInt8[np.ndarray, "hh ww *c"]:
    """Crop right and bottom to a multiple: keeps the decoder's grid, where resampling would destroy the fixed point."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


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


def _quality(source: bytes | str | os.PathLike[str], name: str | os.PathLike[str]) -> int | None:
    with _explained(name), _opened(source, name) as image:
        if _format(image) != "JPEG":
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


def _check_regular(path: str | os.PathLike[str]) -> None:
    """Pipes and devices may never end."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ImageError(f"{path}: is a pipe or device, not an image file")


def _size(source: bytes | str | os.PathLike[str], name: str | os.PathLike[str]) -> tuple[int, int]:
    with _explained(name), _opened(source, name) as image:
        size_is_turned = image.format == "TIFF"  # Pillow itself orients these
        turned = not size_is_turned and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else image.size


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes, if it is a regular file of at most `MAX_FILE_BYTES`.

    Raises:
      ImageError: with the file and the reason.
    """
    _check_regular(path)
    with _explained(path):
        if (size := os.stat(path).st_size) > MAX_FILE_BYTES:
            raise ImageError(f"{path}: {size} bytes; files above {MAX_FILE_BYTES} are not read")
        return Path(path).read_bytes()


@contextmanager
def _explained(name: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever Pillow raises on hostile bytes becomes an `ImageError` that names the file."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ValueError, ...
        raise ImageError(f"{name}: cannot be decoded: {error}") from error


@contextmanager
def _opened(source: bytes | str | os.PathLike[str], name: str | os.PathLike[str]) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and large sizes are dealt with below
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{name}: {image.width}×{image.height} is above the cap of {MAX_PIXELS} pixels; crop it first"
                )
            yield image


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _oriented(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit and 32-bit grey to their high byte; Pillow's own conversion would clip at 255."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _rgb(image: Image.Image, orient: bool) -> UInt8[np.ndarray, "h w 3"]:
    if orient:
        image = _oriented(image)
    image = _eight_bit(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _gray(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    format_name = _format(image)
    if format_name == "JPEG":
        image.draft("L", image.size)
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(_oriented(image))
    return gray_of(_rgb(image, orient=True), format_name)


def gray_of(image: UInt8[np.ndarray, "h w 3"], format_name: str = "PNG") -> UInt8[np.ndarray, "h w"]:
    """Grey levels of RGB pixels by the weights that OpenCV's reader uses for files of this format."""
    red, green, blue = (image[..., i].astype(np.uint32) for i in range(3))
    if format_name == "PNG":  # libpng
        gray = (9797 * red + 19234 * green + 3737 * blue) >> 15
    elif format_name in ("BMP", "TIFF"):
        gray = (4899 * red + 9617 * green + 1868 * blue + (1 << 13)) >> 14
    else:
        gray = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15
    return gray.astype(np.uint8)

"""Arrays as the compute functions take them: pixels brought into shape, and what cannot be right refused.

Shapes and dtypes are known while JAX traces, and are always checked. Values are known only outside of `jit`, `vmap` and
`grad`; they are looked at there, which waits for the device once an array.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from aedr_jax.errors import ArgumentError, RangeWarning

__all__ = [
    "check_floats",
    "check_gray",
    "check_homogeneity",
    "check_images",
    "check_integers",
    "check_pair",
    "prepare",
]

HALF_LEVEL = 1 / 255  # of the 256 that a saved image has between -1 and 1
LEAST_CELLS, LEAST_SIDE = 4, 32
PREPARE = "aedr.prepare(pixels) makes it of uint8 pixels"


def prepare(pixels: Any) -> Float[Array | np.ndarray, "n h w 3"]:
    """Turn pixels into images as `measure` takes them: pixels / 127.5 − 1.

    Args:
      pixels: uint8 [h,w,3] or [n,h,w,3], as `read_image` gives them; or a list of images of one size.

    Returns:
      float32 [n,h,w,3] in [-1, 1], n = 1 for a single image; NumPy stays NumPy and JAX stays JAX, traced or not.

    Raises:
      ArgumentError: on another dtype or shape, and on images of different sizes.

    >>> aedr.prepare(np.array([[[0, 51, 255]]], np.uint8))
    array([[[[-1. , -0.6,  1. ]]]], dtype=float32)
    """
    if isinstance(pixels, Sequence):
        if not pixels:
            raise ArgumentError("pixels: an empty list; expected one image at least")
        shapes = sorted({np.shape(image) for image in pixels})
        if len(shapes) != 1:
            raise ArgumentError(
                f"pixels: images of {len(shapes)} shapes, {', '.join(map(_by, shapes))}: one call takes images of one "
                "size (score_dataset takes files of any)"
            )
        images: Any = np.stack([np.asarray(image) for image in pixels])
    else:
        images = pixels
    images = _array(images, "pixels", "uint8 [h,w,3] or [n,h,w,3]")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ArgumentError(f"pixels: {_described(images)}; expected uint8 [h,w,3] or [n,h,w,3]")
    return _scaled(images if images.ndim == 4 else images[None])


def _scaled(pixels: UInt8[Array | np.ndarray, "n h w 3"]) -> Float[Array | np.ndarray, "n h w 3"]:
    return pixels.astype(np.float32) / 127.5 - 1.0


def check_images(images: Any, factor: int) -> None:
    """Refuse what is no batch of images for an autoencoder of this factor.

    Half precision is refused: bfloat16 cannot tell all grey levels apart. (What the network computes in is the
    autoencoder's own dtype.) The shorter side has four latents or 32 pixels at least: below that every latent is at the
    border. Values may leave [-1, 1] by half a grey level. A batch whose smallest value lies between 0 and 0.1 looks
    like [0, 1], yet bright images may be so: it gives a warning only.

    Raises:
      ArgumentError: naming what was given, what is expected, and how to get there.

    Warns:
      RangeWarning: on values that look like [0, 1].
    """
    wanted = f"float32 [n,h,w,3] in [-1, 1]; {PREPARE}"
    check_floats(images, "images", wanted)
    if images.dtype not in (np.float32, np.float64):
        raise ArgumentError(f"images: {_described(images)}: half precision loses grey levels; expected {wanted}")
    if images.shape[3] != 3:
        first = " (channels come last: images.transpose(0, 2, 3, 1))" if images.shape[1] == 3 else ""
        raise ArgumentError(f"images: {_described(images)}{first}; expected {wanted}")
    height, width = images.shape[1:3]
    if height % factor or width % factor:
        cropped = f"both sides must be multiples of {factor} (images.pixels.fit_crop)"
        raise ArgumentError(f"images are {height}×{width}; {cropped}")
    if min(height, width) < (least := min(LEAST_CELLS * factor, LEAST_SIDE)):
        raise ArgumentError(f"images are {height}×{width}; the shorter side must have at least {least} pixels")
    if not (known := _extremes(images)):
        return
    low, high = known
    if not (low >= -1 - HALF_LEVEL and high <= 1 + HALF_LEVEL):  # NaN is in no range
        raise ArgumentError(f"images: values from {low:g} to {high:g}; expected {wanted}")
    if 0 <= low <= 0.1 and high >= 0.5:
        message = f"images: values from {low:g} to {high:g} look like [0, 1]; [-1, 1] is expected (2 * images - 1)"
        warnings.warn(message, RangeWarning, stacklevel=3)


def check_gray(gray: Any, *, images: Any = None) -> None:
    """Refuse what are no grey values 0..255, or -1 for padding.

    Args:
      gray: integers [n,h,w].
      images: a batch that they must be as many as.

    Raises:
      ArgumentError: naming what was given and what is expected.
    """
    wanted = "integers [n,h,w] in 0..255, or -1 for padding (aedr.read_gray)"
    check_integers(gray, "gray", wanted)
    _same_number(gray, "gray", images)
    if (known := _extremes(gray)) and not (known[0] >= -1 and known[1] <= 255):
        raise ArgumentError(f"gray: values from {known[0]:g} to {known[1]:g}; expected {wanted}")


def check_homogeneity(homogeneity: Any, *, images: Any) -> None:
    """Refuse what is not one homogeneity, in [0, 1] or NaN, for each image.

    Raises:
      ArgumentError: naming what was given and what is expected.
    """
    wanted = "float32 [n] in [0, 1]"
    homogeneity = _array(homogeneity, "homogeneity", wanted)
    if not jnp.issubdtype(homogeneity.dtype, jnp.floating) or homogeneity.ndim != 1:
        raise ArgumentError(f"homogeneity: {_described(homogeneity)}; expected {wanted}")
    _same_number(homogeneity, "homogeneity", images)
    if not _is_known(homogeneity):
        return
    values = np.asarray(homogeneity)
    if (outside := values[(values < 0) | (values > 1 + 1e-5)]).size:
        raise ArgumentError(f"homogeneity: values such as {outside[0]:g}; expected {wanted}")


def check_integers(x: Any, name: str, wanted: str = "integers [n,h,w]") -> None:
    """Refuse what is no array of integers and three axes.

    Raises:
      ArgumentError: naming what was given and what is expected.
    """
    x = _array(x, name, wanted)
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim != 3:
        raise ArgumentError(f"{name}: {_described(x)}; expected {wanted}")


def check_floats(x: Any, name: str, wanted: str = "floating point [n,h,w,c]") -> None:
    """Refuse what is no array of floating point and four axes.

    Raises:
      ArgumentError: naming what was given and what is expected.
    """
    x = _array(x, name, wanted)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim != 4:
        raise ArgumentError(f"{name}: {_described(x)}; expected {wanted}")


def check_pair(a: Any, b: Any) -> None:
    """Refuse two batches that are not floating point or not of one shape: the difference of uint8 wraps around, and
    that of different shapes is taken of every pair.

    Raises:
      ArgumentError: naming what was given and what is expected.
    """
    check_floats(a, "a")
    check_floats(b, "b")
    if a.shape != b.shape:
        raise ArgumentError(f"a is {_described(a)}, b is {_described(b)}; expected two batches of one shape")


def _array(x: Any, name: str, wanted: str) -> Any:
    if isinstance(x, jax.Array | np.ndarray) and x.dtype != object:
        return x
    what = "an array of objects" if isinstance(x, np.ndarray) else type(x).__name__
    raise ArgumentError(f"{name}: {what}; expected one array, {wanted}. Images of several sizes take a call each")


def _same_number(x: Any, name: str, images: Any) -> None:
    if images is not None and x.shape[0] != images.shape[0]:
        raise ArgumentError(f"{name}: of {x.shape[0]} images, but there are {images.shape[0]}")


def _described(x: Any) -> str:
    return f"{x.dtype} [{','.join(map(str, x.shape))}]"


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _is_known(x: Any) -> bool:
    """Whether there are values to look at: not in what is traced, or lies on other machines."""
    return not isinstance(x, jax.core.Tracer) and (isinstance(x, np.ndarray) or x.is_fully_addressable)


def _extremes(x: Any) -> tuple[float, float] | None:
    """The smallest and the largest value, where they are known."""
    if not (_is_known(x) and math.prod(x.shape)):
        return None
    low, high = jax.device_get((x.min(), x.max()))
    return float(low), float(high)

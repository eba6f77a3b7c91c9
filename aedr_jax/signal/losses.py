"""Distances between two batches of images: float [n,h,w,c] each, one value for each image, [n].

`mse`, `mae`, `psnr` and `ssim` are dm-pix's, which agree with their references (scikit-image, TensorFlow) in tests.
Each raises `ArgumentError` on integers, whose difference may wrap around, and on batches of different shapes.
"""

from __future__ import annotations

import dm_pix
import jax
from jaxtyping import Array, Float

from aedr_jax.images.arrays import check_pair

__all__ = ["mae", "mse", "psnr", "ssim"]


def mse(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Mean squared error of each image, in squared units of the images: Σ (a − b)² / (h · w · c).

    Raises:
      ArgumentError: on integers, and on batches of different shapes.

    >>> aedr.mse(jnp.zeros((2, 4, 4, 3)), jnp.full((2, 4, 4, 3), 0.5))
    Array([0.25, 0.25], dtype=float32)
    """
    check_pair(a, b)
    return dm_pix.mse(a, b)


def mae(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Mean absolute error of each image, in units of the images: `Σ |a − b| / (h · w · c)`.

    Raises:
      ArgumentError: on integers, and on batches of different shapes.

    >>> aedr.mae(jnp.zeros((2, 4, 4, 3)), jnp.full((2, 4, 4, 3), 0.5))
    Array([0.5, 0.5], dtype=float32)
    """
    check_pair(a, b)
    return dm_pix.mae(a, b)


def psnr(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, data_range: float = 2.0) -> Float[Array, " n"]:
    """Peak signal-to-noise ratio of each image, in dB: 10 log10(data_range² / MSE).

    Args:
      a, b: images, float [n,h,w,c].
      data_range: the width of the value range; 2 of [-1, 1].

    Returns:
      float [n]; infinite where the images are equal.

    Raises:
      ArgumentError: on integers, and on batches of different shapes.

    Reference: `skimage.metrics.peak_signal_noise_ratio`, to 1e-4 dB.

    >>> aedr.psnr(jnp.zeros((1, 4, 4, 3)), jnp.full((1, 4, 4, 3), 0.2)).round(2)
    Array([20.], dtype=float32)
    """
    check_pair(a, b)
    return dm_pix.psnr(a / data_range, b / data_range)


def ssim(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, data_range: float = 2.0) -> Float[Array, " n"]:
    """Structural similarity of each image, at most 1.

    The mean over pixels and channels of (2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2)), with means and
    covariances under a Gaussian window of 11 pixels and σ 1.5, C1 = (.01 R)², C2 = (.03 R)², R = `data_range`. Pixels
    whose window leaves the image are left out.

    Args:
      a, b: images, float [n,h,w,c], sides of at least 11 pixels.
      data_range: the width of the value range; 2 of [-1, 1].

    Raises:
      ArgumentError: on integers, and on batches of different shapes.

    Reference: `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`,
    to 1e-4.

    >>> images = jnp.linspace(-1, 1, 768).reshape(1, 16, 16, 3)
    >>> aedr.ssim(images, images).round(3)
    Array([1.], dtype=float32)
    """
    check_pair(a, b)
    with jax.numpy_dtype_promotion("standard"):  # dm-pix adds Python floats to integers
        return dm_pix.ssim(a, b, max_val=data_range)

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
    """Mean squared error of each image, in squared units of the images."""
    check_pair(a, b)
    return dm_pix.mse(a, b)


def mae(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Mean absolute error of each image, in units of the images."""
    check_pair(a, b)
    return dm_pix.mae(a, b)


def psnr(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, data_range: float = 2.0) -> Float[Array, " n"]:
    """Peak signal-to-noise ratio of each image, in dB; `data_range` is the width of the value range.

    Infinite where the images are equal. Reference: `skimage.metrics.peak_signal_noise_ratio`, to 1e-4 dB.
    """
    check_pair(a, b)
    return dm_pix.psnr(a / data_range, b / data_range)


def ssim(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, data_range: float = 2.0) -> Float[Array, " n"]:
    """Structural similarity of each image, at most 1: Gaussian window of 11 pixels, σ 1.5, borders left out.

    Reference: `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`,
    to 1e-4.
    """
    check_pair(a, b)
    with jax.numpy_dtype_promotion("standard"):  # dm-pix adds Python floats to integers
        return dm_pix.ssim(a, b, max_val=data_range)

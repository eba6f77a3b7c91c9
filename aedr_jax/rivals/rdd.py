"""RDD: the distance of an image to its reconstruction, less what blurred and turned versions of it have too.

Source: A Debiased Reconstruction-based Framework for Training-Free Detection of AI-Generated Images, CVPR 2026; from
the paper, no code being public. This is its score of images; the paper adds one of latents.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.rivals.rival import Rival
from aedr_jax.signal.reconstruction import to_display

__all__ = ["RDD", "gaussian_blur", "rdd_score", "rdd_terms"]

SIGMA = 0.8  # pixels, of the blur


def rdd_score(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, distance: Callable[[Array, Array], Array]
) -> Float[Array, " n"]:
    """f(x) − f(Fx) − ½ f(Rx) + ½ f(FRx), f the distance to the reconstruction; small means belonging.

    F is `gaussian_blur`, R a turn by 90° counter-clockwise. The reconstruction is the posterior mode's, clipped to
    [-1, 1]; of neither does the paper's formula speak.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; h and w multiples of the autoencoder's factor.
      distance: a function (a, b) -> [n] of two batches in [-1, 1]; theirs is LPIPS, `lambda a, b: lpips(params, a, b)`.

    Returns:
      float32 [n], in units of the distance.
    """
    plain, blurred, turned, both = rdd_terms(autoencoder, images, distance=distance)
    return plain - blurred - 0.5 * turned + 0.5 * both


def rdd_terms(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, distance: Callable[[Array, Array], Array]
) -> tuple[Float[Array, " n"], ...]:
    """f(x), f(Fx), f(Rx) and f(FRx), what `rdd_score` is made of; arguments as there."""

    def error(x: Array) -> Array:
        return distance(x, to_display(autoencoder.decode(autoencoder.encode(x)), clip=True, round8=False))

    def turned(x: Array) -> Array:
        return jnp.rot90(x, axes=(1, 2))

    blurred = gaussian_blur(images)  # blurring and turning commute
    return error(images), error(blurred), error(turned(images)), error(turned(blurred))


def gaussian_blur(images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """A Gaussian of 3×3 pixels, the border mirrored without repeating its pixels.

    Reference: `cv2.GaussianBlur(image, (3, 3), 0.8)`, to 1e-6.
    """
    weights = np.exp(-0.5 * (np.arange(-1, 2) / SIGMA) ** 2)
    side, middle = float(weights[0] / weights.sum()), float(weights[1] / weights.sum())
    for axis in (1, 2):
        size = images.shape[axis]
        padding = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(images, padding, mode="reflect")
        before, after = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 2))
        images = middle * images + side * (before + after)
    return images


RDD = Rival(name="rdd", score=rdd_score, passes=8, distance=True)

"""Pass images once or twice through an autoencoder."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import Autoencoder, check_autoencoder, is_per_image
from aedr_jax.images.arrays import check_images

__all__ = ["DoubleReconstruction", "double_reconstruct", "split_keys", "to_display"]


class DoubleReconstruction(NamedTuple):
    """Both reconstructions of a batch.

    Attributes:
      first: float32 [n,h,w,3], clipped and rounded where that was asked for.
      second: float32 [n,h,w,3], as decoded.

    >>> first, second = aedr.DoubleReconstruction(jnp.zeros((1, 32, 32, 3)), jnp.ones((1, 32, 32, 3)))
    >>> aedr.mse(first, second)
    Array([1.], dtype=float32)
    """

    first: Float[Array, "n h w 3"]
    second: Float[Array, "n h w 3"]


def double_reconstruct(
    autoencoder: Autoencoder,
    images: Float[Array | np.ndarray, "n h w 3"],
    *,
    clip: bool = True,
    round8: bool = False,
    key: Array | None = None,
) -> DoubleReconstruction:
    """Reconstruct images, then reconstruct the reconstructions: r1 = D(E(x)), r2 = D(E(r1)).

    Args:
      autoencoder: the candidate model's.
      images: [n,h,w,3] in [-1, 1]; h and w multiples of the autoencoder's factor.
      clip: whether the first reconstruction is clipped to [-1, 1], the range of a saved image. The published method
        does not clip, and then even a model's own images look foreign where they are saturated.
      round8: whether it is also rounded to the 256 levels of a saved image.
      key: None for the posterior's mode; a key, or one key an image, for posterior samples (split for the passes).

    Returns:
      The first reconstruction, clipped and rounded as asked, and the second, as decoded.

    Raises:
      ArgumentError: on images that cannot be right, as for `signal.measurement.measure`.

    Warns:
      RangeWarning: likewise.

    Source: AEDR, arXiv 2507.18988, section 3.

    >>> encode = lambda params, x: 0.5 * x[:, ::8, ::8]
    >>> decode = lambda params, z: z.repeat(8, axis=1).repeat(8, axis=2)
    >>> ae = aedr.from_functions(encode, decode)
    >>> first, second = aedr.double_reconstruct(ae, jnp.full((1, 32, 32, 3), 0.8))
    >>> first[0, 0, 0], second[0, 0, 0]
    (Array([0.4, 0.4, 0.4], dtype=float32), Array([0.2, 0.2, 0.2], dtype=float32))
    """
    check_autoencoder(autoencoder)
    check_images(images, autoencoder.factor)
    images = jnp.asarray(images, jnp.float32)
    first_key, second_key = (None, None) if key is None else split_keys(key)
    first = to_display(autoencoder.decode(autoencoder.encode(images, first_key)), clip=clip, round8=round8)
    second = autoencoder.decode(autoencoder.encode(first, second_key))
    return DoubleReconstruction(first, second)


def to_display(images: Float[Array, "*shape"], *, clip: bool, round8: bool) -> Float[Array, "*shape"]:
    """Clip to [-1, 1] and round to 256 levels, each where asked. Gradients pass straight through the rounding. What is
    infinite is no white or black: it becomes NaN."""
    if clip:
        images = jnp.where(jnp.isinf(images), jnp.nan, jnp.clip(images, -1.0, 1.0))
    if round8:
        rounded = jnp.round((images + 1.0) * 127.5) / 127.5 - 1.0
        images = images + jax.lax.stop_gradient(rounded - images)
    return images


def split_keys(key: Array) -> tuple[Array, Array]:
    """Two independent keys (or two for each image, from one for each image)."""
    if is_per_image(key):
        pairs = jax.vmap(jax.random.split)(key)
        return pairs[:, 0], pairs[:, 1]
    first, second = jax.random.split(key)
    return first, second

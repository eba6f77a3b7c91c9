"""What the rest of the package needs of an autoencoder, and the random draws of a posterior's samples.

Images are float32 NHWC in [-1, 1], reconstructions are not clipped, latents are `[n, h/f, w/f, c]`. The networks of
this package (`families`) and autoencoders from elsewhere (`adapters`) meet this protocol alike.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aedr_jax.errors import ArgumentError

__all__ = ["Autoencoder", "check_autoencoder", "is_per_image", "normal_like"]


@runtime_checkable
class Autoencoder(Protocol):
    """What the rest of the package needs of an autoencoder. Where it has a codebook it also has `quantize(latents)`."""

    @property
    def factor(self) -> int:
        """Image size over latent size."""

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents: the posterior's mode, or with a key (or one key an image) a sample of it."""

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images, not clipped; `quantize` None: as the model generates."""


def check_autoencoder(autoencoder: Any) -> None:
    """Refuse what is no autoencoder, such as the name of one.

    Raises:
      ArgumentError: saying what was given.
    """
    if not isinstance(autoencoder, Autoencoder):
        given = repr(autoencoder) if isinstance(autoencoder, str) else type(autoencoder).__name__
        raise ArgumentError(
            f"autoencoder: {given}; expected what load_autoencoder or from_functions gives, such as "
            "aedr.load_autoencoder('mini-vq')"
        )


def is_per_image(key: Array) -> bool:
    """Whether this is one key for each image rather than a single key; new-style or legacy keys.

    Raises:
      ArgumentError: on what is no array of keys, such as a seed.
    """
    if not hasattr(key, "ndim"):
        raise ArgumentError(f"key: {key!r}; expected a key or one an image, such as jax.random.key(1)")
    return key.ndim == (1 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 2)


def normal_like(key: Array, x: Float[Array, "n *rest"]) -> Float[Array, "n *rest"]:
    """Standard normal noise in the shape of `x`: from one key for the whole batch, or from one key for each image.

    Raises:
      ValueError: when there are several keys, but not one for each image.
    """
    if not is_per_image(key):
        return jax.random.normal(key, x.shape, x.dtype)
    if key.shape[0] != x.shape[0]:
        raise ValueError(f"{key.shape[0]} keys for {x.shape[0]} images; give one key, or one for each image")
    return jax.vmap(lambda k, v: jax.random.normal(k, v.shape, v.dtype))(key, x)

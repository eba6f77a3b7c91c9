"""AEROBLADE: how far an image is from its own reconstruction.

Source: Ricker, Lukovnikov, Fischer: AEROBLADE, CVPR 2024, and github.com/jonasricker/aeroblade.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.rivals.rival import Rival
from aedr_jax.signal.reconstruction import to_display

__all__ = ["AEROBLADE", "aeroblade_score"]


def aeroblade_score(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    *,
    distance: Callable[[Array, Array], Array],
    truncate: bool = False,
    key: Array | None = None,
) -> Float[Array, " n"]:
    """The distance of each image to its reconstruction, clamped and brought to 8 bit; small means belonging.

    Their rule gives an image to the autoencoder with the smallest distance, and calls it generated where that is
    below a threshold.

    Args:
      autoencoder: the candidate model's; with a codebook, latents are decoded unquantized.
      images: float32 in [-1, 1]; h and w multiples of the autoencoder's factor.
      distance: a function (a, b) -> [n] of two batches in [-1, 1], small where they are alike. Theirs is VGG16's
        second layer of LPIPS, `lambda a, b: lpips(params, a, b, layer=2)`; others are `mse` or 1 − `ssim`.
      truncate: whether 8-bit levels are cut rather than rounded, as torchvision's `to_pil_image` cuts them in their
        code: half a level darker on average.
      key: for a posterior sample, which is what their code draws: a key, or one key an image. None: the mode.

    Returns:
      float32 [n], in units of the distance.

    Reference: diffusers and NumPy, to 1e-4 (`tests/parity`); their sign is the other one.
    """
    reconstructions = autoencoder.decode(autoencoder.encode(images, key), quantize=False)
    if truncate:
        levels = jnp.floor(jnp.clip(reconstructions / 2.0 + 0.5, 0.0, 1.0) * 255.0)
        return distance(images, levels / 127.5 - 1.0)
    return distance(images, to_display(reconstructions, clip=True, round8=True))


# Theirs is VGG16's second layer.
AEROBLADE = Rival(name="aeroblade", score=aeroblade_score, passes=2, distance=True, layer=2)

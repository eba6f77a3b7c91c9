"""`did-ae`: what the second reconstruction leaves of the first one's error. Ours, after DID.

DID (CVPR 2026) takes |x − x'| − |x' − x''| with x' and x'' resampled by DDIM through the diffusion model. Here both
come from the autoencoder alone, so a figure of `did-ae` is none of DID.
"""

from __future__ import annotations

from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.rivals.rival import Rival
from aedr_jax.signal import losses
from aedr_jax.signal.reconstruction import double_reconstruct

__all__ = ["DID", "did_score"]


def did_score(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, clip: bool = True, key: Array | None = None
) -> Float[Array, " n"]:
    """The mean over pixels of |x − x'| − |x' − x''|; near 0, and small, means belonging.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; h and w multiples of the autoencoder's factor.
      clip: whether x' is clipped to [-1, 1] before the second pass.
      key: for posterior samples: a key, or one key an image. None: the mode.

    Returns:
      float32 [n], in units of the images.
    """
    first, second = double_reconstruct(autoencoder, images, clip=clip, key=key)
    return losses.mae(first, images) - losses.mae(second, first)


DID = Rival(name="did-ae", score=did_score, passes=4)

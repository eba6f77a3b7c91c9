"""LatentTracer: how well latents can be found that decode to an image, from its own encoding.

Source: Wang et al., How to Trace Latent Generative Model Generated Images without Artificial Watermark?, ICML 2024,
arXiv 2405.13360, and github.com/ZhentingWang/LatentTracer.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.baselines.inversion import inversion_losses, latent_scale

__all__ = ["STEPS", "latenttracer_losses", "latenttracer_score", "official_inputs"]

STEPS = 100
LEARNING_RATE = 0.05
HALVED_EVERY = 50


def latenttracer_score(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, steps: int = STEPS, clamp: bool = True
) -> Float[Array, " n"]:
    """The smallest loss over the descent; small means belonging. Arguments as for `latenttracer_losses`.

    Their rule compares it with a fixed threshold from belonging images' losses.
    """
    return latenttracer_losses(autoencoder, images, steps=steps, clamp=clamp).min(axis=0)


def latenttracer_losses(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, steps: int = STEPS, clamp: bool = True
) -> Float[Array, "steps n"]:
    """The loss of each image before each step: what its score is the minimum of.

    The descent starts at the posterior's mean times the scaling factor; at the nearest codebook entries where there
    is a codebook, which is left out of the decoding from then on. Adam's learning rate is .05 at step 0, .025 from
    step 1 and .0125 from step 51: it is halved after steps 0 and 50.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; h and w multiples of the autoencoder's factor. Their code brings images to one size
        before (`official_inputs`); native sizes keep the decoder's grid.
      steps: how many losses; `steps` − 1 updates come between them.
      clamp: whether decoded images are clamped to their range. Their code does so for all models but Kandinsky.

    Returns:
      float32 [steps, n]: mean squared errors of images in [0, 1].

    Raises:
      BaselineError: when optax is not installed.

    Reference: a PyTorch loop over a diffusers autoencoder, to 1e-4 (`tests/parity`).
    """
    latents = autoencoder.encode(images)
    quantize = getattr(autoencoder, "quantize", None)
    start = latents * latent_scale(autoencoder) if quantize is None else quantize(latents)
    rates = LEARNING_RATE * 0.5 ** np.ceil(np.arange(steps) / HALVED_EVERY)
    return inversion_losses(autoencoder, images, start, jnp.asarray(rates, jnp.float32), clamp=clamp)


def official_inputs(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], sizes: Sequence[int] = ()
) -> Float[np.ndarray, "n s s 3"]:
    """Images as the authors' code resizes them, on the host: 512×512, then bilinearly to each of `sizes`.

    512×512 is by area (OpenCV's INTER_AREA there, Pillow's BOX here: equal to one level where both sides shrink or
    grow by whole factors). Their further sizes: none for Stable Diffusion 1.5, 2-base and Kandinsky; 768 for 2.1;
    1024 for XL; 32 and then 256 for VQ-Diffusion, whose number of latents they take for a size in pixels.

    Returns:
      float32 [n,s,s,3] in [-1, 1], s the last size.
    """

    def resized(image: np.ndarray) -> np.ndarray:
        area = Image.fromarray(image).resize((512, 512), Image.Resampling.BOX)
        x = np.asarray(area, np.float32)
        for size in sizes:
            x = _bilinear(_bilinear(x, size).swapaxes(0, 1), size).swapaxes(0, 1)
        return x / np.float32(127.5) - np.float32(1.0)

    return np.stack([resized(image) for image in images])


def _bilinear(x: Float[np.ndarray, "h w c"], size: int) -> Float[np.ndarray, "s w c"]:
    """Rows to `size` by linear interpolation between pixel centres, without antialiasing."""
    place = np.clip((np.arange(size) + 0.5) * (x.shape[0] / size) - 0.5, 0, x.shape[0] - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, x.shape[0] - 1)
    share = (place - low).astype(np.float32)[:, None, None]
    return x[low] * (1 - share) + x[high] * share

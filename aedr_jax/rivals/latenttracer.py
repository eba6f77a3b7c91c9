"""LatentTracer: how well latents can be found that decode to an image, from its own encoding.

Source: Wang et al., How to Trace Latent Generative Model Generated Images without Artificial Watermark?, ICML 2024,
arXiv 2405.13360, and github.com/ZhentingWang/LatentTracer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.rivals.inversion import inversion_losses, latent_scale
from aedr_jax.rivals.rival import Limits, Rival

__all__ = ["LATENTTRACER", "STEPS", "latenttracer_losses", "latenttracer_score", "official_inputs"]

STEPS = 100
LEARNING_RATE = 0.05
HALVED_EVERY = 50
OFFICIAL_SIZE = 512
# By their code, as are the sizes after 512×512.
UNCLAMPED = ("kandinsky2.1",)
FURTHER_SIZES: Mapping[str, tuple[int, ...]] = {"sd2.1": (768,), "sdxl": (1024,), "vqdm": (32, 256)}


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
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], sizes: Sequence[int] = ()
) -> Float[np.ndarray, "n s s 3"]:
    """Images as the authors' code resizes them, on the host: to 512×512 by area, then bilinearly to each of `sizes`.

    Their further sizes: none for Stable Diffusion 1.5, 2-base and Kandinsky; 768 for 2.1; 1024 for XL; 32 and then
    256 for VQ-Diffusion, whose number of latents they take for a size in pixels.

    Returns:
      float32 [n,s,s,3] in [-1, 1], s the last size.

    Reference: `cv2.resize(image, (512, 512), interpolation=cv2.INTER_AREA)` and then
    `torch.nn.functional.interpolate(mode="bilinear")`, to one level of 256.
    """

    def resized(image: np.ndarray) -> np.ndarray:
        weights = _area if min(image.shape[:2]) >= OFFICIAL_SIZE else _enlarging
        x = np.round(_resample(image, OFFICIAL_SIZE, weights))
        for size in sizes:
            x = _resample(x, size, _bilinear)
        return (x / 127.5 - 1.0).astype(np.float32)

    return np.stack([resized(image) for image in images])


def _resample(
    image: np.ndarray, size: int, weights: Callable[[int, int], Float[np.ndarray, "to from"]]
) -> Float[np.ndarray, "s s c"]:
    rows, columns = (weights(side, size) for side in image.shape[:2])
    return np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), columns, optimize=True)


def _area(side: int, size: int) -> Float[np.ndarray, "to from"]:
    """How much of each new pixel each old one covers."""
    ends = np.arange(size + 1) * (side / size)
    old = np.arange(side)
    covered = np.minimum(old + 1, ends[1:, None]) - np.maximum(old, ends[:-1, None])
    return np.clip(covered, 0.0, None) * (size / side)


def _enlarging(side: int, size: int) -> Float[np.ndarray, "to from"]:
    """What OpenCV does by "area" where a side grows: old pixels enlarged, and mixed only in the pixels between two."""
    new = np.arange(size)
    low = np.floor(new * (side / size) + 1e-9).astype(int)  # a whole number must not fall below itself
    share = (new + 1) - (low + 1) * (size / side)
    return _between(side, low, np.where(share > 0, share - np.floor(share), 0.0))


def _bilinear(side: int, size: int) -> Float[np.ndarray, "to from"]:
    """Linear between pixel centres, without antialiasing."""
    place = np.clip((np.arange(size) + 0.5) * (side / size) - 0.5, 0, side - 1)
    low = np.floor(place).astype(int)
    return _between(side, low, place - low)


def _between(side: int, low: Int[np.ndarray, " to"], share: Float[np.ndarray, " to"]) -> Float[np.ndarray, "to from"]:
    """1 − share of the old pixel `low`, and share of the next."""
    old = np.eye(side)
    return old[low] * (1.0 - share[:, None]) + old[np.minimum(low + 1, side - 1)] * share[:, None]


def _inputs_for(images: Sequence[UInt8[np.ndarray, "_ _ 3"]], model: str) -> Float[np.ndarray, "n s s 3"]:
    return official_inputs(images, FURTHER_SIZES.get(model, ()))


LATENTTRACER = Rival(
    name="latenttracer",
    score=latenttracer_score,
    passes=3,
    takes=("clamp",),
    limits=Limits(count=20, steps=STEPS),
    published_steps=STEPS,
    unclamped=UNCLAMPED,
    resized={str(OFFICIAL_SIZE): _inputs_for},
    resized_note=f"it brings every image to {OFFICIAL_SIZE}×{OFFICIAL_SIZE} first",
)

"""RONAN: how well latents can be found that decode to an image, from random ones, for its complexity.

Source: Wang et al., Where Did I Come From? Origin Attribution of AI-Generated Images, NeurIPS 2023, and
github.com/ZhentingWang/RONAN. Its test is in no public code: see `grubbs_threshold`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from aedr_jax.autoencoders.models import Autoencoder, normal_like
from aedr_jax.decision.threshold import check_alpha, check_signals
from aedr_jax.rivals.inversion import inversion_losses
from aedr_jax.rivals.rival import Limits, Rival
from aedr_jax.signal import texture

__all__ = ["RONAN", "STEPS", "entropy_2d", "grubbs_threshold", "ronan_losses", "ronan_score"]

STEPS = 1500
LEARNING_RATE = 0.1


def ronan_score(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    *,
    gray: Integer[Array, "n hg wg"] | None = None,
    steps: int = STEPS,
    key: Array | None = None,
) -> Float[Array, " n"]:
    """The smallest loss over the descent, divided by the image's two-dimensional entropy; small means belonging.

    Args:
      autoencoder, images, steps, key: as for `ronan_losses`.
      gray: grey levels 0..255 of the images; None: computed from `images`, as if saved to PNG. (Their code hands RGB
        to OpenCV's BGR conversion, and so gives red the weight of blue.)

    Raises:
      BaselineError: when optax is not installed.
    """
    losses = ronan_losses(autoencoder, images, steps=steps, key=key)
    return losses.min(axis=0) / entropy_2d(texture.gray_levels(images) if gray is None else gray)


def ronan_losses(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, steps: int = STEPS, key: Array | None = None
) -> Float[Array, "steps n"]:
    """The loss of each image before each step of Adam (learning rate .1) on latents that start as normal noise.

    The noise has the diffusion model's scale, so it is decoded after division by the scaling factor; where there is a
    codebook, it is decoded as it is, unquantized. Their code inverts whole pipelines; the autoencoder alone, which is
    what is inverted here, is LatentTracer's random start.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; h and w multiples of the autoencoder's factor.
      steps: how many losses, at most 1500 in their experiments.
      key: of the noise: a key, or one key an image (so that its noise does not depend on its batch). None: seed 0.

    Returns:
      float32 [steps, n]: mean squared errors of images in [0, 1], clamped.

    Raises:
      BaselineError: when optax is not installed.
    """
    shape = jax.eval_shape(lambda x: autoencoder.encode(x), images).shape
    start = normal_like(jax.random.key(0) if key is None else key, jnp.zeros(shape, jnp.float32))
    return inversion_losses(autoencoder, images, start, jnp.full(steps, LEARNING_RATE, jnp.float32))


def entropy_2d(gray: Integer[Array | np.ndarray, "n h w"]) -> Float[Array, " n"]:
    """The entropy, in bits, of the pairs (grey level, mean of its 8 neighbours) of each image.

    Outside the image lies black; counts are divided by (h + 2)(w + 2), so that shares sum to a little less than 1.

    Args:
      gray: grey levels 0..255.

    Reference: `complexity.py` of the authors' code, to 1e-5.
    """
    gray = jnp.asarray(gray, jnp.int32)
    n, height, width = gray.shape
    padded = jnp.pad(gray, ((0, 0), (1, 1), (1, 1)))
    neighbours = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    pairs = jnp.sort((sum(neighbours[1:], neighbours[0]) * 256 + gray).reshape(n, height * width), axis=1)
    # Sorted, equal pairs are runs: each pixel knows its pair's count from where its run starts and ends. A histogram
    # would have half a million bins, and a scatter that does not stay sharded.
    changes = pairs[:, 1:] != pairs[:, :-1]
    edge = jnp.ones_like(pairs[:, :1], bool)
    place = jnp.arange(height * width, dtype=jnp.int32)
    start = jax.lax.cummax(jnp.where(jnp.concatenate([edge, changes], axis=1), place, 0), axis=1)
    last = jnp.where(jnp.concatenate([changes, edge], axis=1), place, height * width)
    count = jax.lax.cummin(last, axis=1, reverse=True) - start + 1
    total = (height + 2) * (width + 2)
    # −Σ p log p over pairs is −Σ log p / total over pixels.
    return (math.log2(total) * height * width - jnp.log2(count.astype(jnp.float32)).sum(axis=1)) / total


def grubbs_threshold(scores: object, *, alpha: float = 0.05) -> float:
    """The score above which an image is an outlier among belonging ones. As recalled from the paper, unverified.

    Grubbs' one-sided test of N belonging scores A: an image is turned away where

        (A − μ) / σ > (N − 1) / √N · √(t² / (N − 2 + t²)),

    with t the α/N quantile of Student's t with N − 2 degrees of freedom, and σ the sample deviation (ddof 1).

    Args:
      scores: of belonging images (`ronan_score`), [n].
      alpha: the level of the test, in (0, 1).

    Raises:
      CalibrationError: on an alpha outside (0, 1), and on scores that `threshold.check_signals` refuses.
    """
    from scipy.special import stdtrit

    check_alpha(alpha)
    values = check_signals(scores, what="scores")
    n = values.size
    t = float(stdtrit(n - 2, alpha / n))
    return float(values.mean() + values.std(ddof=1) * (n - 1) / math.sqrt(n) * math.sqrt(t**2 / (n - 2 + t**2)))


RONAN = Rival(
    name="ronan",
    score=ronan_score,
    passes=3,
    takes=("gray", "key"),
    limits=Limits(count=10, steps=300),
    first_models=2,
    published_steps=STEPS,
    threshold=grubbs_threshold,
)

"""Ways to be misled: laundering through an autoencoder, and small perturbations made against the measurement.

Images are float32 NHWC in [-1, 1]; what is returned is on the 256 levels of a saved image. Pure and un-jitted: wrap
them in `jax.jit` or `make_sharded` with everything but the autoencoder, the images and the key closed over.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import Autoencoder, normal_like
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.signal.measurement import Measurement, SignalConfig, measure
from aedr_jax.signal.reconstruction import to_display

__all__ = ["along_residual", "launder", "log_ratio", "perturb", "projected"]

LEVEL = 2 / 255  # of an 8-bit image, in units of [-1, 1]
TARGETS = ("accept", "reject")


def launder(autoencoder: Autoencoder, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Images passed once through an autoencoder and saved: a foreign one comes to look like the model's own.

    Args:
      autoencoder: whose images these are to look like.
      images: [n,h,w,3] in [-1, 1]; h and w multiples of the autoencoder's factor.

    Returns:
      The reconstructions, clipped and rounded to 8 bit.
    """
    return to_display(autoencoder.decode(autoencoder.encode(images)), clip=True, round8=True)


def log_ratio(measured: Measurement) -> Float[Array, " n"]:
    """Logarithm of the ratio of the two losses: the paper's statistic to attack. What the default decides by is
    `Measurement.standing`."""
    return jnp.log(jnp.asarray(measured.ratio))


def perturb(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    statistic: Callable[[Measurement], Float[Array, " n"]] = log_ratio,
    *,
    target: str,
    config: SignalConfig = SignalConfig(),
    epsilon: float = LEVEL,
    steps: int = 20,
    step_size: float | None = None,
    key: Array | None = None,
) -> Float[Array, "n h w 3"]:
    """Change images by little so that a model accepts or rejects them, with its autoencoder at hand (white box).

    Projected signed gradient steps in an L∞ ball. Losses and alignment have gradients, the alignment through its bands,
    the controls and its own error. Where a turned copy has a veto the standing is flat at -1, and a foreign image would
    not move: attack it with `AlignmentConfig(least_turned=None)`, and judge with the default. The homogeneity is
    piecewise constant, and straight-through quantization leaves `latent_error` without a gradient too, so that a
    statistic of these alone moves nothing, which says nothing of how robust it is.

    Args:
      autoencoder: the candidate model's.
      images: [n,h,w,3] in [-1, 1], taken as rounded to 8 bit; h and w multiples of the autoencoder's factor.
      statistic: what is to fall or rise, from a measurement, [n]; small means that the image belongs. What decides by
        default is `Measurement.standing`.
      target: "accept" lowers the statistic, "reject" raises it.
      config: what the attacked detector measures.
      epsilon: radius of the ball in units of the images, rounded down to whole 8-bit levels of 2/255 each.
      steps: how many.
      step_size: of each, in units of the images; None: 2.5 · epsilon / steps, enough to cross the ball.
      key: None starts at the images; a key, or one key an image, at a random point of the ball around each.

    Returns:
      Images on the 256 levels of a saved image, inside the ball and [-1, 1]. An image whose statistic is not defined
      has no gradient and stays where it started.

    Raises:
      ValueError: on an unknown target, fewer than one step, or an epsilon below one level.

    Source: projected gradient descent, Madry et al., "Towards deep learning models resistant to adversarial attacks",
    ICLR 2018, arXiv 1706.06083.
    """
    sign = _sign_of(target)
    if steps < 1:
        raise ValueError(f"steps {steps}: expected at least 1")
    epsilon = _whole_levels(epsilon)
    start = None
    if key is not None:  # erf makes a normal draw uniform on (-1, 1)
        start = to_display(images, clip=True, round8=True) + epsilon * jax.lax.erf(normal_like(key, images) / 2**0.5)
    autoencoder = with_fast_gradients(autoencoder)
    return projected(
        jax.grad(lambda x: sign * statistic(measure(autoencoder, x, config=config)).sum()),
        images,
        epsilon=epsilon,
        steps=steps,
        step_size=2.5 * epsilon / steps if step_size is None else step_size,
        start=start,
    )


def projected(
    gradient: Callable[[Float[Array, "n h w 3"]], Float[Array, "n h w 3"]],
    images: Float[Array, "n h w 3"],
    *,
    epsilon: float | Float[Array, ""],
    steps: int,
    step_size: float | Float[Array, ""],
    start: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, "n h w 3"]:
    """Steps along the sign of a gradient, each brought back into an L∞ ball: what `perturb` does. One compiled program
    serves balls of every radius.

    Args:
      gradient: of what is to rise, of each image; where it is not finite nothing moves.
      images: the middle of the ball, taken as rounded to 8 bit.
      epsilon: whole levels of 2/255, so that the rounding at the end cannot leave the ball; may be traced.
      steps: how many.
      step_size: in units of the images; may be traced.
      start: where the steps begin, brought into the ball; None: at the images.

    Returns:
      Images on the 256 levels of a saved image, inside the ball and [-1, 1].
    """
    images = to_display(images, clip=True, round8=True)
    low, high = jnp.maximum(images - epsilon, -1.0), jnp.minimum(images + epsilon, 1.0)

    def step(x: Array, _: None) -> tuple[Array, None]:
        direction = jnp.sign(jnp.nan_to_num(gradient(x)))
        return jnp.clip(x + step_size * direction, low, high), None

    moved, _ = jax.lax.scan(step, images if start is None else jnp.clip(start, low, high), length=steps)
    return to_display(moved, clip=True, round8=True)


def along_residual(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, target: str, epsilon: float = LEVEL
) -> Float[Array, "n h w 3"]:
    """Change images by little along their own residual: energy is added, or taken, on the decoder's grid alone.

    One pass and no gradient. With A(x) the clipped reconstruction and d(x) = A(x) − x: as far as A is a projection,
    x − a d(x) has the residual (1 + a) d(x). What was added is no such thing to a moved or turned copy, whose residual
    gains the energy of noise, a² of that of d(x). "reject" takes the whole ball, −epsilon · sign d(x); "accept" goes
    towards A(x), and no further.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1], taken as rounded to 8 bit; h and w multiples of the autoencoder's factor.
      target: "accept" or "reject".
      epsilon: as for `perturb`.

    Returns:
      Images on the 256 levels of a saved image, inside the ball and [-1, 1].

    Raises:
      ValueError: on an unknown target, or an epsilon below one level.
    """
    sign, epsilon = _sign_of(target), _whole_levels(epsilon)
    images = to_display(images, clip=True, round8=True)
    residual = jnp.clip(autoencoder.decode(autoencoder.encode(images)), -1.0, 1.0) - images
    change = -epsilon * jnp.sign(residual) if sign > 0 else jnp.clip(residual, -epsilon, epsilon)
    return to_display(images + change, clip=True, round8=True)


def _sign_of(target: str) -> float:
    """Of the direction in which the statistic is to go."""
    if target not in TARGETS:
        raise ValueError(f"target {target!r}: expected one of {', '.join(TARGETS)}")
    return 1.0 if target == "reject" else -1.0


def _whole_levels(epsilon: float) -> float:
    """Rounded down to 8-bit levels: rounding images of whole levels cannot leave a ball of so many."""
    levels = int(epsilon / LEVEL + 1e-3)  # 3 · (2/255) may come as a little less than three levels
    if levels < 1:
        raise ValueError(f"epsilon {epsilon}: expected at least one 8-bit level, 2/255")
    return levels * LEVEL

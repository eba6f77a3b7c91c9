"""Descent on latents towards an image, which LatentTracer and RONAN share. Needs optax (the extra `baselines`)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.convolutions import convolve_few, convolve_some
from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.errors import BaselineError

__all__ = ["inversion_losses", "latent_scale", "with_fast_gradients"]

EXTRA = 'pip install "aedr-jax[baselines]"'
SLOW_BACKWARDS = (jax.lax.conv_general_dilated, convolve_few, convolve_some)  # what has another gradient here


def inversion_losses(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    start: Float[Array, "n hz wz c"],
    learning_rates: Float[Array, " steps"],
    *,
    clamp: bool = True,
) -> Float[Array, "steps n"]:
    """The loss of each image before each step of Adam on its latents.

    Every image has its own descent: Adam works number by number, and the gradient of the summed losses is that of each.

    Args:
      autoencoder: the candidate model's; with a codebook, latents are decoded unquantized.
      images: float32 in [-1, 1].
      start: where the latents start, on the scale of `latent_scale`.
      learning_rates: of each step.
      clamp: whether decoded images are clamped to their range first.

    Returns:
      Mean squared errors of images in [0, 1]; row 0 is the start's.

    Raises:
      BaselineError: when optax is not installed.

    Reference: `torch.optim.Adam`; the losses agree to 1e-4 over 60 steps (`tests/parity`).
    """
    optimizer = _optax().adam(lambda count: learning_rates[count])
    autoencoder = with_fast_gradients(autoencoder)
    scale = latent_scale(autoencoder)
    targets = images / 2.0 + 0.5

    def loss(latents: Array) -> tuple[Array, Array]:
        decoded = autoencoder.decode(latents / scale, quantize=False) / 2.0 + 0.5
        decoded = jnp.clip(decoded, 0.0, 1.0) if clamp else decoded
        losses = jnp.mean(jnp.square(decoded - targets), axis=(1, 2, 3))
        return losses.sum(), losses

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        latents, state = carry
        gradient, losses = jax.grad(loss, has_aux=True)(latents)
        updates, state = optimizer.update(gradient, state)
        return (latents + updates, state), losses

    with jax.numpy_dtype_promotion("standard"):  # optax raises Python floats to integer powers
        # Zeros made from the images, so that the carry varies over a mesh as they do.
        nothing = images[:, :1, :1, :1] * 0.0
        latents = start.astype(jnp.float32) + nothing
        state = jax.tree.map(lambda leaf: leaf + nothing if leaf.ndim else leaf, optimizer.init(latents))
        _, losses = jax.lax.scan(step, (latents, state), length=learning_rates.shape[0])
    return losses


def latent_scale(autoencoder: Autoencoder) -> Float[Array, ""]:
    """What latents are multiplied by where they are optimised: the diffusion model's factor, or 1 with a codebook."""
    if hasattr(autoencoder, "quantize"):
        return jnp.ones((), jnp.float32)
    return jnp.asarray(getattr(autoencoder, "scaling_factor", 1.0), jnp.float32)


def with_fast_gradients(autoencoder: Any) -> Any:
    """A copy whose convolutions of every pixel have a gradient that is fast inside a loop on the CPU.

    XLA's CPU backend is fast where a kernel is stored as [h, w, in, out]. The gradient of a convolution wants it turned
    and transposed; outside of loops XLA does that beforehand, but in the body of a `lax.scan` it takes a generic path,
    several times as slow. Here the kernel is turned explicitly, also between few channels, where a few pixels at once
    (`convolve_few`) would make the images faster and their gradient slower, and where small images and no others are
    made by products (`convolve_some`). Values are the same; forward-mode differentiation is not defined, which a
    descent does not need. What is no NNX module is returned as it is.
    """
    if not isinstance(autoencoder, nnx.Module):
        return autoencoder
    copy = nnx.clone(autoencoder)
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, nnx.Conv) and module.conv_general_dilated in SLOW_BACKWARDS:
            module.conv_general_dilated = _convolve
    return copy


def _convolve(x: Array, kernel: Array, window_strides: Any, padding: Any, **options: Any) -> Array:
    plain = set(window_strides) == {1} and options.get("feature_group_count", 1) == 1
    plain = plain and all(set(options.get(name) or (1,)) == {1} for name in ("lhs_dilation", "rhs_dilation"))
    if isinstance(padding, str) or not plain:
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    padding = tuple(map(tuple, padding))
    return _each_pixel(x, kernel, tuple({"window_strides": (1, 1), "padding": padding, **options}.items()))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _each_pixel(x: Array, kernel: Array, settings: tuple[tuple[str, Any], ...]) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, **dict(settings))


def _each_pixel_forward(x: Array, kernel: Array, settings: Any) -> tuple[Array, tuple[Array, Array]]:
    return _each_pixel(x, kernel, settings), (x, kernel)


def _each_pixel_backward(settings: Any, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # Behind a barrier, or XLA would fold both back into the convolution.
    turned = jax.lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    _, pull = jax.vjp(lambda kernel: jax.lax.conv_general_dilated(x, kernel, **dict(settings)), kernel)
    sizes = zip(dict(settings)["padding"], kernel.shape[:2], strict=True)
    padding = [(size - 1 - low, size - 1 - high) for (low, high), size in sizes]
    of_x = jax.lax.conv_general_dilated(gradient, turned, **{**dict(settings), "padding": padding})
    return of_x, pull(gradient)[0]


_each_pixel.defvjp(_each_pixel_forward, _each_pixel_backward)


def _optax() -> Any:
    try:
        import optax
    except ImportError as error:
        raise BaselineError(f"LatentTracer and RONAN descend with optax: {EXTRA} ({error})") from error
    return optax

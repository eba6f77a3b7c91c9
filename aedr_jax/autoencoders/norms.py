"""Norms over channels, in float32 whatever is computed in, named as in diffusers so that a checkpoint's keys are paths.

Group norm is in `blocks`. References: `RMSNorm` of diffusers 0.39.0, `torch.nn.BatchNorm2d` in evaluation,
`torch.nn.LayerNorm`, and `torch.nn.functional.normalize` as Wan's norm uses it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics

__all__ = ["BatchNorm", "RMSNorm", "UnitNorm", "layer_norm"]

EPSILON = 1e-5
LAYER_EPSILON = 1e-6
LEAST_LENGTH = 1e-12  # as in `torch.nn.functional.normalize`


class RMSNorm(nnx.Module):
    """x / √(mean of x²) · scale + bias."""

    def __init__(self, channels: int, numerics: Numerics) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.dtype = numerics.dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        x = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON)
        return (x * scale * self.scale[...] + self.bias[...]).astype(self.dtype)


class UnitNorm(nnx.Module):
    """x / |x| · √c · scale: Wan's RMS norm, without a bias and without an epsilon in the mean."""

    def __init__(self, channels: int, numerics: Numerics) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.dtype = numerics.dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        x = x.astype(jnp.float32)
        squared = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), LEAST_LENGTH**2)
        return (x * jax.lax.rsqrt(squared) * (math.sqrt(x.shape[-1]) * self.scale[...])).astype(self.dtype)


class BatchNorm(nnx.Module):
    """(x − mean) / √variance · scale + bias, by the statistics of the training."""

    def __init__(self, channels: int, numerics: Numerics) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.running_mean = nnx.BatchStat(jnp.zeros(channels))
        self.running_var = nnx.BatchStat(jnp.ones(channels))
        self.dtype = numerics.dtype

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        scale = jax.lax.rsqrt(self.running_var[...] + EPSILON) * self.scale[...]
        return ((x.astype(jnp.float32) - self.running_mean[...]) * scale + self.bias[...]).astype(self.dtype)


def layer_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """(x − mean) / √variance, without parameters; the variance in a second pass."""
    centered = x.astype(jnp.float32)
    centered = centered - centered.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    return (centered * jax.lax.rsqrt(variance + LAYER_EPSILON)).astype(x.dtype)

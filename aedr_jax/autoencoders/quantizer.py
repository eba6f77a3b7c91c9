"""Nearest-code lookup in a codebook, block by block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

__all__ = ["Quantizer", "nearest_codes"]

CODE_BLOCK = 128  # codes compared at once: the distances of 64×64 latents to 16,384 codes would take 268 MB an image


def nearest_codes(latents: Float[Array, "t d"], codebook: Float[Array, "k d"]) -> Int[Array, " t"]:
    """The index of the code nearest to each latent vector (the lowest index among equals; 0 of one that is NaN).

    Only `CODE_BLOCK` distances a vector are held at a time, and blocks are compared place by place, so that one search
    for the least among `CODE_BLOCK` is left (on CPUs an `argmin` takes longer than the distances). Computed in float32
    at the highest precision: near-ties decide, whatever the network runs in.

    Reference: `VectorQuantizer.forward` of diffusers 0.39.0 (`cdist` and `argmin`); indices equal wherever the two
    nearest codes differ by more than rounding.
    """
    latents, codebook = jax.lax.stop_gradient((latents.astype(jnp.float32), codebook.astype(jnp.float32)))
    k, d = codebook.shape
    block = min(CODE_BLOCK, k)
    blocks = -(-k // block)
    codes = jnp.pad(codebook, ((0, blocks * block - k), (0, 0))).reshape(blocks, block, d)
    half_norms = 0.5 * jnp.sum(codebook**2, axis=-1)
    half_norms = jnp.pad(half_norms, (0, blocks * block - k), constant_values=jnp.inf).reshape(blocks, block)

    # |z − e|² / 2 = |z|² / 2 + |e|² / 2 − z·e, and the first term is the same for every code.
    def step(best: tuple[Array, Array], part: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        best_distances, best_blocks = best
        number, block_codes, block_norms = part
        distances = block_norms - jnp.matmul(latents, block_codes.T, precision="highest")
        nearer = distances < best_distances
        return (jnp.where(nearer, distances, best_distances), jnp.where(nearer, number, best_blocks)), None

    # Derived from the latents rather than fresh constants, so that the carry varies over a mesh as they do.
    never = jnp.broadcast_to(jnp.isnan(latents[:, :1]) & False, (latents.shape[0], block))
    first = (jnp.where(never, 0.0, jnp.inf), never.astype(jnp.int32))
    of_blocks, in_block = (jnp.arange(n, dtype=jnp.int32) for n in (blocks, block))  # as the carry, under x64 too
    (distances, numbers), _ = jax.lax.scan(step, first, (of_blocks, codes, half_norms))
    least = jnp.min(distances, axis=-1, keepdims=True)
    return jnp.min(jnp.where(distances == least, numbers * block + in_block, k - 1), axis=-1)


class Quantizer(nnx.Module):
    """A codebook of `codes` vectors."""

    def __init__(self, codes: int, dimension: int, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(codes, dimension, rngs=rngs)

    def entries(self) -> Float[Array, "k d"]:
        """What is decoded of each code."""
        return self.embedding.embedding[...]

    def indices(self, latents: Float[Array, "n h w d"]) -> Int[Array, "n h w"]:
        codebook = self.embedding.embedding[...]
        return nearest_codes(latents.reshape(-1, latents.shape[-1]), codebook).reshape(latents.shape[:-1])

    def __call__(self, latents: Float[Array, "n h w d"]) -> Float[Array, "n h w d"]:
        """The nearest codebook entries, exactly; gradients pass straight through to the latents."""
        codes = self.entries()[self.indices(latents)].astype(latents.dtype)
        return jax.lax.stop_gradient(codes) + (latents - jax.lax.stop_gradient(latents))

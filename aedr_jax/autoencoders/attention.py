"""Attention whose memory grows with the number of positions only.

Nothing of cuDNN's is used: its kernels take half precision and heads of at most 256 channels, and these have 512.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["LOGITS", "attend"]

LOGITS = 2**24  # of all images, that are held at a time: more queries attend block by block


def attend(
    query: Float[Array, "n t c"], key: Float[Array, "n t c"], value: Float[Array, "n t c"], precision: str | None
) -> Float[Array, "n t c"]:
    """Attention with one head: softmax(q·k / √c) · v, block by block of queries where there are many."""

    def of_block(query: Array) -> Array:
        logits = jnp.einsum("nqc,nkc->nqk", query, key, precision=precision, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return jnp.einsum("nqk,nkc->nqc", weights, value, precision=precision)

    return _in_query_blocks(of_block, query / math.sqrt(query.shape[-1]))


def _in_query_blocks(attend: Any, query: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
    n, t, c = query.shape
    blocks = -(-n * t * t // LOGITS)
    if blocks <= 1:
        return attend(query)
    size = -(-t // blocks)
    padded = jnp.pad(query, ((0, 0), (0, blocks * size - t), (0, 0)))
    out = jax.lax.map(attend, padded.reshape(n, blocks, size, c).swapaxes(0, 1))
    return out.swapaxes(0, 1).reshape(n, blocks * size, c)[:, :t]

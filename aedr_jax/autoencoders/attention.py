"""Attention whose memory grows with the number of positions only (but for its gradient, which keeps the weights).

Nothing of cuDNN's is used: its kernels take half precision and heads of at most 256 channels, and these have 512.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["FORMS", "attend"]


def _largest_on_cpus(x: Float[Array, "n q k"]) -> Float[Array, "n q"]:
    """The maximum by a comparison that YNNPACK does not know.

    With the one that it knows, it makes one program of the products for queries, keys and logits, the maximum and the
    exponential, which takes several times as long as they do one after the other. (What an `optimization_barrier`
    keeps apart, it joins.)
    """
    return jax.lax.reduce(x, np.float32(-np.inf), lambda a, b: jax.lax.select(a > b, a, b), (x.ndim - 1,))


# By platform: logits of all images that are held at a time, on CPUs what stays near the cores; and their maximum.
FORMS: dict[str, tuple[int, Callable[[Array], Array]]] = {
    "cpu": (2**21, _largest_on_cpus),
    "default": (2**24, functools.partial(jnp.max, axis=-1)),
}


def attend(
    query: Float[Array, "n t c"], key: Float[Array, "n t c"], value: Float[Array, "n t c"], precision: str | None
) -> Float[Array, "n t c"]:
    """Attention with one head: softmax(q·k / √c) · v, block by block of queries where there are many.

    The sum of a query's weights divides what they gave, c values, and not the weights, t values.
    """

    def of_block(query: Array, key: Array, value: Array, *, largest: Callable[[Array], Array]) -> Array:
        logits = jnp.einsum("nqc,nkc->nqk", query, key, precision=precision, preferred_element_type=jnp.float32)
        weights = jnp.exp(logits - largest(jax.lax.stop_gradient(logits))[..., None])
        attended = jnp.einsum(
            "nqk,nkc->nqc", weights.astype(value.dtype), value, precision=precision, preferred_element_type=jnp.float32
        )
        return (attended / jnp.sum(weights, axis=-1, keepdims=True)).astype(value.dtype)

    forms = {
        platform: functools.partial(_in_query_blocks, functools.partial(of_block, largest=largest), logits)
        for platform, (logits, largest) in FORMS.items()
    }
    return jax.lax.platform_dependent(query / math.sqrt(query.shape[-1]), key, value, **forms)


def _in_query_blocks(
    attend: Callable[..., Array], logits: int, query: Float[Array, "n t c"], *keys_and_values: Array
) -> Float[Array, "n t c"]:
    n, t, c = query.shape
    blocks = -(-n * t * t // logits)
    if blocks <= 1:
        return attend(query, *keys_and_values)
    size = -(-t // blocks)
    padded = jnp.pad(query, ((0, 0), (0, blocks * size - t), (0, 0)))
    parts = padded.reshape(n, blocks, size, c).swapaxes(0, 1)
    out = jax.lax.map(lambda part: attend(part, *keys_and_values), parts)
    return out.swapaxes(0, 1).reshape(n, blocks * size, c)[:, :t]

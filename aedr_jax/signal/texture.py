"""The grey-level co-occurrence matrix (GLCM) and its homogeneity, compiled and batched.

The matrix is counted by products of one-hot matrices, block by block; homogeneity asks only how many pairs lie so many
levels apart, and sums comparisons. Both are exact integers, and free of scatters, so that a batch stays sharded under
plain `jit` too. Homogeneity is piecewise constant in the image: its gradient is 0.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num

from aedr_jax.images.arrays import check_gray, check_integers

__all__ = ["KINDS", "cooccurrence_matrix", "gray_levels", "homogeneity"]

KINDS = ("inverse_difference", "inverse_difference_moment")
PAIR_BLOCK = 1 << 14  # pairs of one image counted at once; a block's counts are exact in float32 below 2**24


def cooccurrence_matrix(
    levels: Integer[Array | np.ndarray, "n h w"],
    *,
    num_levels: int = 32,
    offset: tuple[int, int] = (0, 1),
    symmetric: bool = True,
    normed: bool = True,
) -> Num[Array, "n l l"]:
    """How often level j lies at a given offset from level i.

    counts[i, j] = Σ over pixels p of [level(p) = i] · [level(p + offset) = j].

    Args:
      levels: integers; a level outside 0..num_levels-1 counts nothing, so mixed sizes can be padded with -1.
      num_levels: the number of levels, at most 256.
      offset: (rows, columns) from the first pixel of a pair to the second; may be negative.
      symmetric: whether each pair also counts in the other order.
      normed: whether counts are divided by their sum (0/0 is NaN where an image has no pair at all).

    Returns:
      float32 [n,l,l] where normed, else int32 counts.

    Raises:
      ArgumentError: on what are no integers [n,h,w].
      ValueError: when the offset is larger than the images.

    Reference: `skimage.feature.graycomatrix` with one distance and angle; counts equal exactly.

    >>> aedr.cooccurrence_matrix(np.array([[[0, 1, 1]]]), num_levels=2, normed=False)
    Array([[[0, 1],
            [1, 2]]], dtype=int32)
    """
    check_integers(levels, "levels")
    # int32 before anything is padded with -1, which is level 255 of a uint8.
    counts = _count_pairs(*_pairs(jnp.asarray(levels).astype(jnp.int32), offset), num_levels)
    if symmetric:
        counts = counts + counts.swapaxes(1, 2)
    if not normed:
        return counts
    counts = counts.astype(jnp.float32)
    return counts / counts.sum(axis=(1, 2), keepdims=True)


def _pairs(levels: Int[Array, "n h w"], offset: tuple[int, int]) -> tuple[Array, Array]:
    """The levels of the first and of the second pixel of each pair."""
    rows, columns = offset
    height, width = levels.shape[1:]
    top, left = max(0, -rows), max(0, -columns)
    bottom, right = min(height, height - rows), min(width, width - columns)
    if top >= bottom or left >= right:
        raise ValueError(f"offset {offset} leaves no pair in an image of {height}×{width}")
    first = levels[:, top:bottom, left:right]
    return first, levels[:, top + rows : bottom + rows, left + columns : right + columns]


def _count_pairs(first: Int[Array, "n h w"], second: Int[Array, "n h w"], num_levels: int) -> Int[Array, "n l l"]:
    n, pairs = first.shape[0], math.prod(first.shape[1:])
    block = min(PAIR_BLOCK, pairs)
    blocks = -(-pairs // block)

    def in_blocks(levels: Array) -> Array:
        flat = jnp.pad(levels.reshape(n, pairs), ((0, 0), (0, blocks * block - pairs)), constant_values=-1)
        return flat.reshape(n, blocks, block).swapaxes(0, 1)

    def add(counts: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        # Zeros and ones, exact in bfloat16 as well: no precision need be asked for.
        one_hot = [jax.nn.one_hot(levels, num_levels, dtype=jnp.float32) for levels in pair]
        return counts + jnp.einsum("npi,npj->nij", *one_hot).astype(jnp.int32), None

    # Zeros made from the data, so that the carry varies over a mesh as they do.
    start = jnp.broadcast_to(first[:, :1, :1] * 0, (n, num_levels, num_levels))
    counts, _ = jax.lax.scan(add, start, (in_blocks(first), in_blocks(second)))
    return counts


def _count_differences(first: Int[Array, "n h w"], second: Int[Array, "n h w"], num_levels: int) -> Int[Array, "n l"]:
    """How many pairs lie so many levels apart; a pair with a level that is none of them counts nothing."""
    low, high = jnp.minimum(first, second), jnp.maximum(first, second)
    apart = jnp.where((low < 0) | (high >= num_levels), -1, high - low)

    def count(difference: Array) -> Int[Array, " n"]:
        return jnp.sum(apart == difference, axis=(1, 2), dtype=jnp.int32)

    return jax.lax.map(count, jnp.arange(num_levels)).T


def homogeneity(
    gray: Integer[Array | np.ndarray, "n h w"],
    *,
    kind: str = "inverse_difference",
    num_levels: int = 32,
    offset: tuple[int, int] = (0, 1),
) -> Float[Array, " n"]:
    """How alike neighbouring grey levels are, in (0, 1]; 1 for a flat image.

    P is the normed, symmetric co-occurrence matrix of the grey values divided by 256 / num_levels.

    Args:
      gray: grey values 0..255 (uint8, or an integer dtype with -1 as padding).
      kind: "inverse_difference" is `Σ P(i,j) / (1 + |i−j|)`, the paper's Eq. 4; "inverse_difference_moment" is
        `Σ P(i,j) / (1 + (i−j)²)`, which the authors' code computes.
      num_levels: a divisor of 256.
      offset: as in `cooccurrence_matrix`.

    Returns:
      float32 [n]; NaN for an image that is all padding.

    Raises:
      ArgumentError: on what are no integers [n,h,w] or, where values are known, not within -1..255.
      ValueError: on an unknown kind or a `num_levels` that does not divide 256.

    Reference: `skimage.feature.graycoprops(..., "homogeneity")` is the moment; the authors' published values to the
    six decimals that they print.

    >>> flat, stripes = np.full((8, 8), 128), np.tile([0, 8], (8, 4))  # 8 is the next of 32 levels
    >>> aedr.homogeneity(np.stack([flat, stripes]))
    Array([1. , 0.5], dtype=float32)
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if num_levels < 2 or 256 % num_levels:
        raise ValueError(f"num_levels {num_levels}: expected a divisor of 256, at least 2")
    check_gray(gray)
    levels = jnp.asarray(gray, jnp.int32) // (256 // num_levels)
    # Integers as long as possible: pairs by their difference, without the matrix; then a float32 sum of few terms.
    by_difference = _count_differences(*_pairs(levels, offset), num_levels).astype(jnp.float32)
    difference = np.arange(num_levels)
    weights = 1.0 / (1.0 + (difference if kind == "inverse_difference" else difference**2))
    total = by_difference.sum(axis=1)
    # Sum the smaller of what is there and what is missing to 1: its rounding is the smaller too.
    there = (by_difference * weights.astype(np.float32)).sum(axis=1) / total
    missing = (by_difference * (1.0 - weights).astype(np.float32)).sum(axis=1) / total
    return jnp.where(there < missing, there, 1.0 - missing)


def gray_levels(images: Float[Array, "n h w 3"]) -> Int[Array, "n h w"]:
    """Grey values 0..255 of images in [-1, 1] as if saved to PNG: rounded to 8 bit, libpng's weights."""
    pixels = jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.int32)
    return (9797 * pixels[..., 0] + 19234 * pixels[..., 1] + 3737 * pixels[..., 2]) >> 15

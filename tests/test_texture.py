"""Co-occurrence matrix and homogeneity: counts by hand, padding, batching, and no communication when sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of
from jax.sharding import NamedSharding, PartitionSpec

from aedr_jax.signal.texture import PAIR_BLOCK, cooccurrence_matrix, gray_levels, homogeneity

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


# One program each: operation by operation, every one would be compiled by itself.
matrix_of = jax.jit(cooccurrence_matrix, static_argnames=("num_levels", "offset", "symmetric", "normed"))
gray_levels_of = jax.jit(gray_levels)
homogeneity_of = jax.jit(homogeneity, static_argnames="kind")


def counted_by_hand(levels, num_levels, offset, symmetric):
    counts = np.zeros((num_levels, num_levels), int)
    height, width = levels.shape
    for y in range(height):
        for x in range(width):
            y2, x2 = y + offset[0], x + offset[1]
            if 0 <= y2 < height and 0 <= x2 < width:
                i, j = levels[y, x], levels[y2, x2]
                if 0 <= i < num_levels and 0 <= j < num_levels:
                    counts[i, j] += 1
                    counts[j, i] += symmetric
    return counts


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (1, 1), (-1, 1), (2, -3), (0, 0)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_counts(rng, offset, symmetric):
    levels = rng.integers(-1, 6, (2, 9, 13))  # -1 and 5 lie outside 0..4
    counts = matrix_of(levels, num_levels=5, offset=offset, symmetric=symmetric, normed=False)
    assert counts.dtype == jnp.int32
    for image, found in zip(levels, np.asarray(counts), strict=True):
        np.testing.assert_array_equal(found, counted_by_hand(image, 5, offset, symmetric))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize("num_levels", [32, 256])
def test_counts_over_several_blocks_are_exact(rng, num_levels, dtype):
    """Whatever the dtype makes of the -1 that fills the last block up."""
    side = int(PAIR_BLOCK**0.5) + 30
    levels = rng.integers(0, min(num_levels, np.iinfo(dtype).max + 1), (1, side, side)).astype(dtype)
    expected = np.zeros((num_levels, num_levels), int)
    np.add.at(expected, (levels[0, :, :-1].ravel(), levels[0, :, 1:].ravel()), 1)
    found = matrix_of(jnp.asarray(levels), num_levels=num_levels, symmetric=False, normed=False)[0]
    np.testing.assert_array_equal(found, expected)


def test_counts_stay_exact_beyond_the_integers_of_float32():
    # 2**24 + 1 pairs of one kind: a float32 sum of ones would stop at 2**24.
    levels = jnp.zeros((1, 1, 2**24 + 2), jnp.int32)
    assert int(matrix_of(levels, num_levels=2, symmetric=False, normed=False)[0, 0, 0]) == 2**24 + 1


def test_normed_sums_to_one(rng):
    matrix = matrix_of(jnp.asarray(rng.integers(0, 32, (3, 8, 8))))
    np.testing.assert_allclose(matrix.sum((1, 2)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("kind", ["inverse_difference", "inverse_difference_moment"])
def test_homogeneity_formulas(rng, kind):
    gray = rng.integers(0, 256, (2, 20, 30)).astype(np.uint8)
    found = homogeneity_of(jnp.asarray(gray), kind=kind)
    for image, value in zip(gray, np.asarray(found), strict=True):
        difference = np.abs(image[:, 1:].astype(int) // 8 - image[:, :-1].astype(int) // 8)
        power = 1 if kind == "inverse_difference" else 2
        np.testing.assert_allclose(value, np.mean(1 / (1 + difference**power)), rtol=1e-6)


def test_extremes():
    assert homogeneity_of(jnp.full((1, 8, 8), 200, jnp.uint8)) == 1.0
    stripes = jnp.tile(jnp.asarray([0, 255], jnp.uint8), (1, 8, 4))
    np.testing.assert_allclose(homogeneity_of(stripes), 1 / 32, rtol=1e-6)
    np.testing.assert_allclose(homogeneity_of(stripes, kind="inverse_difference_moment"), 1 / (1 + 31**2), rtol=1e-6)
    assert np.isnan(homogeneity_of(jnp.full((1, 8, 8), -1, jnp.int32)))[0]
    assert np.isnan(jax.jit(homogeneity)(jnp.full((1, 8, 8), 300)))[0]  # under `jit` values cannot be refused


def test_padding_changes_nothing(rng):
    gray = rng.integers(0, 256, (2, 17, 23)).astype(np.int16)
    padded = np.pad(gray, ((0, 0), (0, 15), (0, 41)), constant_values=-1)
    np.testing.assert_array_equal(homogeneity_of(jnp.asarray(padded)), homogeneity_of(jnp.asarray(gray)))


def test_batch_jit_vmap_and_order(rng):
    gray = rng.integers(0, 256, (6, 16, 16), dtype=np.uint8)
    whole = np.asarray(homogeneity(gray))
    # Counts are equal; the weighted sum of 1,024 of them is float32, in an order that the program chooses.
    close = {"rtol": 1e-6}
    np.testing.assert_allclose(np.concatenate([homogeneity_of(g[None]) for g in gray]), whole, **close)
    np.testing.assert_allclose(homogeneity_of(gray), whole, **close)
    np.testing.assert_allclose(jax.vmap(lambda g: homogeneity(g[None])[0])(gray), whole, **close)
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(homogeneity_of(gray[order]), whole[order], **close)


def test_a_sharded_batch_stays_sharded_without_collectives(rng):
    sharding = NamedSharding(mesh_of(8), PartitionSpec("data"))
    gray = jax.device_put(jnp.asarray(rng.integers(0, 256, (16, 32, 32)), jnp.uint8), sharding)
    compiled = jax.jit(homogeneity).lower(gray).compile()
    assert not [name for name in COLLECTIVES if name in compiled.as_text()]
    assert compiled.output_shardings.is_equivalent_to(sharding, 1)
    np.testing.assert_allclose(compiled(gray), homogeneity_of(np.asarray(gray)), rtol=1e-6)


def test_wrong_arguments():
    gray = jnp.zeros((1, 8, 8), jnp.uint8)
    with pytest.raises(ValueError, match="kind 'energy'"):
        homogeneity(gray, kind="energy")
    with pytest.raises(ValueError, match="num_levels 33"):
        homogeneity(gray, num_levels=33)
    with pytest.raises(ValueError, match="no pair in an image of 8×8"):
        homogeneity(gray, offset=(8, 0))


def test_gray_levels_are_those_of_a_saved_png(rng):
    pixels = rng.integers(0, 256, (1, 8, 8, 3))
    red, green, blue = np.moveaxis(pixels, -1, 0)
    expected = (9797 * red + 19234 * green + 3737 * blue) >> 15
    np.testing.assert_array_equal(gray_levels_of(jnp.asarray(pixels / 127.5 - 1, jnp.float32)), expected)
    assert gray_levels_of(jnp.full((1, 1, 1, 3), 7.0))[0, 0, 0] == 255 * (9797 + 19234 + 3737) >> 15

"""How an image stands on a decoder's grid: its own moved and turned copies are its control.

An image that came out of a decoder stands on the decoder's grid, upright. Moved by a few pixels that are no multiple of
the factor f, mirrored or turned, it is a foreign image of the same texture, size, compression and brightness. For an
image that has nothing to do with the autoencoder, the loss before and after is the same, whatever the model; no image
that is known to belong is needed to know where 0 is.

What tells is the fine detail of the residual d(x) = A(x) − x, A the clipped reconstruction: in a band B d(x) of it, its
mean over a small box less its mean over a larger one. With e_b(x) the mean of (B d(x))² over block b and channels,
brought back to the pixels of x where x was moved, and g running over the k controls,

    alignment(x) = mean over b of D_b,   D_b = log e_b(x) − mean over g of log e_b(g x)

and its standard error is made of what the image itself shows: the spread of D_b over the n blocks, and that of the
controls among each other, c_g = mean over b of log e_b(g x),

    error(x)² = var_b(D_b) / n + var_g(c_g) / k + FLOOR_OF_ERROR².

What varies between foreign images differs by autoencoder; over its own error it differs little (docs/decision.md). The
finest band tells most of an untouched image, a wider one of a compressed image: of the bands, the one in which
alignment / error is lowest counts.

Blocks are those of a few tiles of one fixed size: a small image is one tile. On T tiles of 128 pixels a side this costs
T · (1 + k) passes of 120 × 120. Reference: a loop over the definition, in the tests.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.images.arrays import check_images

__all__ = [
    "Alignment",
    "AlignmentConfig",
    "align",
    "alignment_map",
    "block_losses",
    "box_mean",
    "of_blocks",
    "shifts_of",
]

FLOOR_OF_ERROR = 0.005  # with a larger one, foreign images of decoders with little spread would stand too near 0
BOX_OF_DETAIL = 5  # pixels: an image's own fine detail is what its mean over such a box leaves
FEWEST = 4  # blocks, below which nothing is said
SATURATED = 1.0 - 1.5 / 127.5  # within a grey level of black or white
TURNS = ("mirror", "quarter")


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment.

    Attributes:
      tile: the side in pixels of the squares that are judged, more where four blocks of a factor above 16 need it; a
        smaller image is one smaller tile. One size serves images of all sizes with one compiled program.
      tiles: the most that are judged, of those that lie beside each other around the middle, on the grid: the ones with
        most blocks that say something, and of equal ones the nearest to the middle.
      shifts: (down, right) in pixels, each below the factor; None: by the factor (`shifts_of`).
      turns: of "mirror" (left and right change places) and "quarter" (a turn by 90°).
      bands: of the residual, pairs of sides of boxes, both odd: the mean over the first less the mean over the second.
      block: the side of a block in pixels, brought to a multiple of the factor.
      margin: pixels at the windows' edges that do not count, twice the factor at least.
      floor: added to every block's loss, a fifth of what rounding to 8 bit leaves.
      least_detail: a block says nothing where the image itself has less fine detail than this, which rounding makes, or
        where more than half of its values are black or white.
      least_blocks: below this share of blocks that say something the alignment is NaN.

    Raises:
      ValueError: on settings that no tile can have.

    >>> aedr.AlignmentConfig(tiles=1).bands
    ((1, 5), (3, 9))
    """

    tile: int = 128
    tiles: int = 4
    shifts: tuple[tuple[int, int], ...] | None = None
    turns: tuple[str, ...] = TURNS
    bands: tuple[tuple[int, int], ...] = ((1, 5), (3, 9))
    block: int = 16
    margin: int = 16
    floor: float = 1e-6
    least_detail: float = 1e-5
    least_blocks: float = 0.25

    def __post_init__(self) -> None:
        if unknown := set(self.turns) - set(TURNS):
            raise ValueError(f"turns {sorted(unknown)}: expected some of {', '.join(TURNS)}")
        if not self.bands or any(not (0 < a < b and a % 2 == b % 2 == 1) for a, b in self.bands):
            raise ValueError(f"bands {self.bands}: expected pairs of odd numbers, the second above the first")
        if min(self.tile, self.tiles, self.block, self.margin) < 1 or self.floor <= 0:
            raise ValueError("tile, tiles, block, margin and floor: expected positive numbers")
        if self.shifts is not None and len(self.shifts) + len(self.turns) < 2:
            raise ValueError("fewer than two controls: their spread is not known")


class Alignment(NamedTuple):
    """Of each image [n]: the alignment, about 0 for foreign images and far below for the decoder's own, and its
    standard error, in the band that tells most. Where nothing can be said they are NaN and infinite."""

    alignment: Float[Array, " n"]
    error: Float[Array, " n"]


def shifts_of(factor: int) -> tuple[tuple[int, int], ...]:
    """The shifts for a factor: a quarter and three quarters, the reverse, and the half, each pair once.

    >>> from aedr_jax.signal.alignment import shifts_of
    >>> shifts_of(8)
    ((2, 6), (6, 2), (4, 4))
    """
    quarter, half = factor // 4, factor // 2
    pairs = [(quarter, factor - quarter), (factor - quarter, quarter), (half, half)] if quarter else [(half, half)]
    return tuple(pair for pair in dict.fromkeys(pairs) if any(side % factor for side in pair))


def align(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> Alignment:
    """The alignment of each image, on its tiles.

    Pure, un-jitted, and differentiable; what it says of an image does not depend on the others.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; sides are multiples of the autoencoder's factor.
      config: settings.

    Returns:
      NaN, with an infinite error, for images that have no room for four blocks, or too few that say something, and
      where the autoencoder is not finite.

    >>> from aedr_jax.signal.alignment import align
    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> align(ae, jnp.zeros((1, 96, 96, 3)))  # a flat image: nothing can be said
    Alignment(alignment=Array([nan], dtype=float32), error=Array([inf], dtype=float32))
    """
    n = len(images)
    grid = _Grid.of(config, autoencoder.factor, min(images.shape[1:3]))
    if grid is None or not n:
        return Alignment(jnp.full(n, jnp.nan), jnp.full(n, jnp.inf))
    losses, telling = block_losses(autoencoder, images, config=config)
    return of_blocks(losses, telling, config=config)


def block_losses(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> tuple[Float[Array, "n bands views blocks"], Bool[Array, "n blocks"]]:
    """What the alignment is made of: e_b of each band and view, the unmoved one first, and which blocks say something.

    Args:
      autoencoder: the candidate model's.
      images: as for `align`, with room for four blocks.
      config: settings.
    """
    grid = _Grid.of(config, autoencoder.factor, min(images.shape[1:3]))
    if grid is None:
        raise ValueError(f"images of {images.shape[1:3]} pixels have no room for {FEWEST} blocks")
    tiles = _tiles(images, grid, config)
    n, count = tiles.shape[:2]
    losses, telling = _of_tiles(autoencoder, tiles.reshape(-1, *tiles.shape[2:]), grid, config)
    bands, views = losses.shape[1:3]
    blocks = (grid.inner // grid.block) ** 2
    losses = losses.reshape(n, count, bands, views, blocks).transpose(0, 2, 3, 1, 4)
    return losses.reshape(n, bands, views, count * blocks), telling.reshape(n, count * blocks)


def alignment_map(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    *,
    config: AlignmentConfig = AlignmentConfig(),
    standardized: bool = False,
) -> Float[Array, "n hb wb"]:
    """D_b, the mean over the bands, block by block: where an image is this decoder's (about 0 where it is not).

    Args:
      autoencoder: the candidate model's.
      images: as for `align`.
      config: settings.
      standardized: over the spread that D_b would have if the unmoved image were one more control, σ √(1 + 1/k), with
        σ² the variance of the controls' logarithms within a block, the mean over the image: the image's own null, on
        which blocks of foreign images stand alike whatever the autoencoder (docs/decision.md).

    Returns:
      The blocks of as many whole tiles as the image holds, from its upper left corner on; NaN where a block says
      nothing. Block (i, j) covers the pixels from `margin + i · block` and `margin + j · block` on (both as brought to
      the factor); there is no block where an image is too small for a tile of four.

    Raises:
      ArgumentError: on images that `measure` refuses.

    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> aedr.alignment_map(ae, jax.random.uniform(jax.random.key(0), (1, 128, 128, 3), minval=-1.0)).shape
    (1, 5, 5)
    """
    check_images(images, autoencoder.factor)
    n, height, width = images.shape[:3]
    grid = _Grid.of(config, autoencoder.factor, min(height, width))
    if grid is None:
        return jnp.full((n, 0, 0), jnp.nan)
    rows, columns = ((side - grid.tile) // grid.inner + 1 for side in (height, width))
    starts = [(i * grid.inner, j * grid.inner) for i in range(rows) for j in range(columns)]
    tiles = jnp.concatenate([images[:, y : y + grid.tile, x : x + grid.tile] for y, x in starts])
    losses, telling = _of_tiles(autoencoder, tiles, grid, config)
    found = jnp.where(telling, _differences(losses, config).mean(1), jnp.nan)
    if standardized:
        controls = jnp.log(losses[:, :, 1:] + config.floor).mean(1)
        variance = jnp.where(telling, jnp.var(controls, axis=1, ddof=1), jnp.nan).reshape(rows * columns, n, -1)
        spread = jnp.sqrt(jnp.nanmean(variance, axis=(0, 2)) * (1 + 1 / controls.shape[1]))
        found = found / jnp.tile(spread, rows * columns)[:, None, None]
    side = grid.inner // grid.block
    return found.reshape(rows, columns, n, side, side).transpose(2, 0, 3, 1, 4).reshape(n, rows * side, columns * side)


class _Grid(NamedTuple):
    """Sizes in pixels: a tile, the windows in it, the square of blocks inside them, a block, the margin."""

    factor: int
    tile: int
    window: int
    inner: int
    block: int
    margin: int
    shifts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, config: AlignmentConfig, factor: int, side: int) -> _Grid | None:
        """None where a tile of this image has room for fewer than four blocks."""
        shifts = shifts_of(factor) if config.shifts is None else config.shifts
        block = -(-config.block // factor) * factor
        margin = max(-(-config.margin // factor) * factor, 2 * factor)
        moved = factor if shifts else 0
        tile = min(max(config.tile, moved + 2 * margin + math.isqrt(FEWEST) * block), side) // factor * factor
        window = tile - moved
        inner = (window - 2 * margin) // block * block
        room = max(inner // block, 0) ** 2  # a window within its own margins has none
        return cls(factor, tile, window, inner, block, margin, shifts) if room >= FEWEST else None


def _tiles(images: Float[Array, "n h w 3"], grid: _Grid, config: AlignmentConfig) -> Float[Array, "n tiles t t 3"]:
    """The tiles of each image that are judged."""
    n, *sides = images.shape[:3]
    along = [side // grid.tile for side in sides]
    tops, lefts = (
        (side - count * grid.tile) // 2 // grid.factor * grid.factor + grid.tile * np.arange(count)
        for side, count in zip(sides, along, strict=True)
    )
    starts = np.stack([a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij")], axis=1)
    middle = (np.array(sides) - grid.tile) / 2
    nearest = np.argsort(np.square(starts - middle).sum(1), kind="stable")
    shape = (grid.tile, grid.tile, 3)
    if len(starts) <= config.tiles:
        chosen = jnp.broadcast_to(jnp.asarray(starts[nearest]), (n, *starts.shape))
    else:
        # At once: looked at one by one, each of a large image's tiles would be a part of the program.
        (top, left), (rows, columns) = starts[0], along
        candidates = images[:, top : top + rows * grid.tile, left : left + columns * grid.tile]
        candidates = candidates.reshape(n, rows, grid.tile, columns, grid.tile, 3).swapaxes(2, 3)
        unmoved = candidates[:, :, :, : grid.window, : grid.window].reshape(-1, grid.window, grid.window, 3)
        counts = _telling(unmoved, grid, config).sum((1, 2)).reshape(n, len(starts))[:, nearest]
        chosen = jnp.asarray(starts[nearest])[jnp.argsort(-counts, axis=1, stable=True)[:, : config.tiles]]
    return jax.vmap(
        lambda image, corners: jax.vmap(lambda at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape))(corners)
    )(images, chosen)


def _telling(unmoved: Float[Array, "n w w 3"], grid: _Grid, config: AlignmentConfig) -> Bool[Array, "n b b"]:
    """Which blocks say something: those with fine detail, and not mostly black or white."""
    inside = slice(grid.margin, grid.margin + grid.inner)
    pixels = jax.lax.stop_gradient(unmoved)
    fine = jnp.square(pixels - box_mean(pixels, BOX_OF_DETAIL)).mean(-1)[:, inside, inside]
    at_ends = (jnp.abs(pixels) > SATURATED).mean(-1)[:, inside, inside]
    return (_blocks(fine, grid) > config.least_detail) & (_blocks(at_ends, grid) <= 0.5)


def _of_tiles(
    autoencoder: Autoencoder, tiles: Float[Array, "m t t 3"], grid: _Grid, config: AlignmentConfig
) -> tuple[Float[Array, "m bands views b b"], Bool[Array, "m b b"]]:
    m, w, margin = len(tiles), grid.window, grid.margin
    unmoved = tiles[:, :w, :w]
    moved = [tiles[:, y : y + w, x : x + w] for y, x in grid.shifts]
    turned = {"mirror": unmoved[:, :, ::-1], "quarter": jnp.rot90(unmoved, axes=(1, 2))}
    views = jnp.concatenate([unmoved, *moved, *(turned[name] for name in config.turns)])
    residual = jnp.clip(autoencoder.decode(autoencoder.encode(views)), -1.0, 1.0) - views
    means = {box: box_mean(residual, box) for box in {box for band in config.bands for box in band}}
    detail = jnp.stack([jnp.square(means[a] - means[b]).mean(-1) for a, b in config.bands])
    detail = detail.reshape(len(config.bands), 1 + len(moved) + len(config.turns), m, w, w)
    back = {"mirror": lambda e: e[..., ::-1], "quarter": lambda e: jnp.rot90(e, -1, axes=(-2, -1))}
    by_view = list(detail.swapaxes(0, 1))
    unturned = 1 + len(grid.shifts)
    upright = by_view[:unturned] + [back[name](e) for name, e in zip(config.turns, by_view[unturned:], strict=True)]
    moves = [(0, 0), *grid.shifts, *[(0, 0)] * len(config.turns)]
    inside = [
        e[..., margin - y : margin - y + grid.inner, margin - x : margin - x + grid.inner]
        for e, (y, x) in zip(upright, moves, strict=True)
    ]
    return _blocks(jnp.stack(inside, axis=2), grid).swapaxes(0, 1), _telling(unmoved, grid, config)


def _differences(losses: Float[Array, "n bands views *b"], config: AlignmentConfig) -> Float[Array, "n bands *b"]:
    logs = jnp.log(losses + config.floor)
    return logs[:, :, 0] - logs[:, :, 1:].mean(2)


def of_blocks(
    losses: Float[Array, "n bands views blocks"],
    telling: Bool[Array, "n blocks"],
    *,
    config: AlignmentConfig = AlignmentConfig(),
) -> Alignment:
    """The alignment that block losses make (`block_losses`)."""
    controls = losses.shape[2] - 1
    weight = telling.astype(losses.dtype)
    count = weight.sum(1)
    safe = jnp.maximum(count, 2.0)[:, None]
    differences = _differences(losses, config)
    mean = jnp.einsum("nb,nfb->nf", weight, differences) / safe
    between_blocks = jnp.einsum("nb,nfb->nf", weight, jnp.square(differences - mean[..., None])) / (safe - 1.0) / safe
    logs = jnp.log(losses[:, :, 1:] + config.floor)
    between_controls = jnp.var(jnp.einsum("nb,nfvb->nfv", weight, logs) / safe[..., None], axis=2, ddof=1) / controls
    error = jnp.sqrt(between_blocks + between_controls + FLOOR_OF_ERROR**2)
    lowest = jnp.argmin(mean / error, axis=1)[:, None]
    mean, error = (jnp.take_along_axis(values, lowest, axis=1)[:, 0] for values in (mean, error))
    enough = count >= jnp.maximum(FEWEST, config.least_blocks * weight.shape[1])
    enough &= jnp.isfinite(error)  # an autoencoder that is not finite says nothing either
    return Alignment(jnp.where(enough, mean, jnp.nan), jnp.where(enough, error, jnp.inf))


def box_mean(x: Float[Array, "n h w c"], box: int) -> Float[Array, "n h w c"]:
    """Mean over a box of so many pixels a side; what lies beyond the border is its mirror image.

    Args:
      x: images.
      box: odd; half of it is less than a side.
    """
    reach = box // 2
    for axis in (1, 2) if reach else ():
        padded = jnp.pad(x, [(reach, reach) if i == axis else (0, 0) for i in range(4)], mode="reflect")
        size = x.shape[axis]
        x = jnp.mean(jnp.stack([jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(box)]), axis=0)
    return x


def _blocks(x: Float[Array, "*n s s"], grid: _Grid) -> Float[Array, "*n b b"]:
    side = grid.inner // grid.block
    return x.reshape(*x.shape[:-2], side, grid.block, side, grid.block).mean((-3, -1))

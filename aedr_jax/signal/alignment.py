"""How an image stands on a decoder's grid: its own moved and turned copies are its control.

An image that came out of a decoder stands on the decoder's grid, upright. Moved by a few pixels that are no multiple of
the factor f, mirrored or turned, it is a foreign image of the same texture, size, compression and brightness. For an
image that has nothing to do with the autoencoder, the loss before and after is the same, whatever the model; no image
that is known to belong is needed to know where 0 is.

What tells is the fine detail of the residual d(x) = A(x) − x, A the clipped reconstruction: what is left after its mean
over a small box is taken off, B d(x). With e_b(x) the mean of (B d(x))² over block b and channels, each view's brought
back to the pixels of x, and g running over the k controls,

    alignment(x) = mean over b of D_b,   D_b = log e_b(x) − mean over g of log e_b(g x)

and its standard error is made of what the image itself shows: the spread of D_b over the n blocks, and that of the
controls among each other, c_g = mean over b of log e_b(g x),

    error(x)² = var_b(D_b) / n + var_g(c_g) / k + FLOOR_OF_ERROR².

On a tile of 128 pixels that costs 1 + k passes of 120 × 120. Reference: a loop over the definition, in the tests.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from aedr_jax.autoencoders.models import Autoencoder

__all__ = ["Alignment", "AlignmentConfig", "align", "alignment_map", "shifts_of"]

FLOOR_OF_ERROR = 0.02
FEWEST = 4  # blocks, below which nothing is said
SATURATED = 1.0 - 1.5 / 127.5  # within a grey level of black or white
TURNS = ("mirror", "quarter")


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment.

    Attributes:
      tile: the side in pixels of the square that is judged, from the middle of an image and on the grid; a smaller
        image is one smaller tile. One size serves images of all sizes with one compiled program.
      shifts: (down, right) in pixels, each below the factor; None: by the factor (`shifts_of`).
      turns: of "mirror" (left and right change places) and "quarter" (a turn by 90°).
      box: the side of the box whose mean is taken off the residual, odd.
      block: the side of a block in pixels, brought to a multiple of the factor.
      margin: pixels at the windows' edges that do not count, twice the factor at least.
      floor: added to every block's loss, a fifth of what rounding to 8 bit leaves.
      least_detail: a block says nothing where the image itself has less fine detail than this, which rounding makes, or
        where more than half of its values are black or white.
      least_blocks: below this share of blocks that say something the alignment is NaN.

    Raises:
      ValueError: on settings that no tile can have.
    """

    tile: int = 128
    shifts: tuple[tuple[int, int], ...] | None = None
    turns: tuple[str, ...] = TURNS
    box: int = 5
    block: int = 16
    margin: int = 16
    floor: float = 1e-6
    least_detail: float = 1e-5
    least_blocks: float = 0.25

    def __post_init__(self) -> None:
        if unknown := set(self.turns) - set(TURNS):
            raise ValueError(f"turns {sorted(unknown)}: expected some of {', '.join(TURNS)}")
        if self.box < 3 or self.box % 2 == 0:
            raise ValueError(f"box {self.box}: expected an odd number of at least 3")
        if min(self.tile, self.block, self.margin) < 1 or self.floor <= 0:
            raise ValueError("tile, block, margin and floor: expected positive numbers")
        if self.shifts is not None and len(self.shifts) + len(self.turns) < 2:
            raise ValueError("fewer than two controls: their spread is not known")


class Alignment(NamedTuple):
    """Of each image [n]: the alignment, about 0 for foreign images and far below for the decoder's own, and its
    standard error; both NaN where nothing can be said."""

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
    """The alignment of each image on its middle tile.

    Pure, un-jitted, and differentiable; what it says of an image does not depend on the others.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; sides are multiples of the autoencoder's factor.
      config: settings.

    Returns:
      NaN for images whose tile has room for fewer than four blocks, or too few that say something.

    >>> from aedr_jax.signal.alignment import align
    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> align(ae, jnp.zeros((1, 96, 96, 3))).alignment  # a flat image: nothing can be said
    Array([nan], dtype=float32)
    """
    n, height, width = images.shape[:3]
    grid = _Grid.of(config, autoencoder.factor, min(height, width))
    if grid is None:
        nothing = jnp.full(n, jnp.nan)
        return Alignment(nothing, nothing)
    top, left = ((side - grid.tile) // 2 // grid.factor * grid.factor for side in (height, width))
    tiles = images[:, top : top + grid.tile, left : left + grid.tile]
    losses, telling = _block_losses(autoencoder, tiles, grid, config)
    return _aligned(losses, telling, config)


def alignment_map(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> Float[Array, "n hb wb"]:
    """D_b, block by block: where an image is this decoder's (about 0 where it is not), tile beside tile.

    Args:
      autoencoder: the candidate model's.
      images: as for `align`.
      config: settings.

    Returns:
      The blocks of as many whole tiles as the image holds, from its upper left corner on; NaN where a block says
      nothing. Block (i, j) covers the pixels from `margin + i · block` and `margin + j · block` on (both as brought to
      the factor); there is no block where an image is too small for a tile of four.
    """
    n, height, width = images.shape[:3]
    grid = _Grid.of(config, autoencoder.factor, min(height, width))
    if grid is None:
        return jnp.full((n, 0, 0), jnp.nan)
    rows, columns = ((side - grid.tile) // grid.inner + 1 for side in (height, width))
    starts = [(i * grid.inner, j * grid.inner) for i in range(rows) for j in range(columns)]
    tiles = jnp.concatenate([images[:, y : y + grid.tile, x : x + grid.tile] for y, x in starts])
    losses, telling = _block_losses(autoencoder, tiles, grid, config)
    found = jnp.where(telling, _differences(losses, config), jnp.nan)
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
        tile = min(config.tile, side) // factor * factor
        window = tile - (factor if shifts else 0)
        inner = (window - 2 * margin) // block * block
        return cls(factor, tile, window, inner, block, margin, shifts) if (inner // block) ** 2 >= FEWEST else None


def _block_losses(
    autoencoder: Autoencoder, tiles: Float[Array, "n t t 3"], grid: _Grid, config: AlignmentConfig
) -> tuple[Float[Array, "n v b b"], Bool[Array, "n b b"]]:
    """Mean losses of blocks for each view, the unmoved one first, and which blocks say something."""
    n, w, m = len(tiles), grid.window, grid.margin
    unmoved = tiles[:, :w, :w]
    moved = [tiles[:, y : y + w, x : x + w] for y, x in grid.shifts]
    turned = {"mirror": unmoved[:, :, ::-1], "quarter": jnp.rot90(unmoved, axes=(1, 2))}
    views = jnp.concatenate([unmoved, *moved, *(turned[name] for name in config.turns)])
    residual = jnp.clip(autoencoder.decode(autoencoder.encode(views)), -1.0, 1.0) - views
    detail = jnp.square(_without_mean(residual, config.box)).mean(-1).reshape(-1, n, w, w)
    back = {"mirror": lambda e: e[:, :, ::-1], "quarter": lambda e: jnp.rot90(e, -1, axes=(1, 2))}
    inside = slice(m, m + grid.inner)
    own = [detail[0][:, inside, inside]]
    for (y, x), e in zip(grid.shifts, detail[1:], strict=False):
        own.append(e[:, m - y : m - y + grid.inner, m - x : m - x + grid.inner])
    for name, e in zip(config.turns, detail[1 + len(grid.shifts) :], strict=True):
        own.append(back[name](e)[:, inside, inside])
    pixels = jax.lax.stop_gradient(unmoved)
    fine = jnp.square(_without_mean(pixels, config.box)).mean(-1)[:, inside, inside]
    at_ends = (jnp.abs(pixels) > SATURATED).mean(-1)[:, inside, inside]
    telling = (_blocks(fine, grid) > config.least_detail) & (_blocks(at_ends, grid) <= 0.5)
    return jnp.stack([_blocks(e, grid) for e in own], axis=1), telling


def _differences(losses: Float[Array, "n v b b"], config: AlignmentConfig) -> Float[Array, "n b b"]:
    logs = jnp.log(losses + config.floor)
    return logs[:, 0] - logs[:, 1:].mean(1)


def _aligned(losses: Float[Array, "n v b b"], telling: Bool[Array, "n b b"], config: AlignmentConfig) -> Alignment:
    n, views = losses.shape[:2]
    weight = telling.reshape(n, -1).astype(losses.dtype)
    count = weight.sum(1)
    differences = _differences(losses, config).reshape(n, -1)
    safe = jnp.maximum(count, 2.0)
    mean = (weight * differences).sum(1) / safe
    of_blocks = (weight * jnp.square(differences - mean[:, None])).sum(1) / (safe - 1.0) / safe
    logs = jnp.log(losses[:, 1:] + config.floor).reshape(n, views - 1, -1)
    of_controls = jnp.var((weight[:, None] * logs).sum(-1) / safe[:, None], axis=1, ddof=1) / (views - 1)
    error = jnp.sqrt(of_blocks + of_controls + FLOOR_OF_ERROR**2)
    enough = count >= max(FEWEST, config.least_blocks * weight.shape[1])
    return Alignment(jnp.where(enough, mean, jnp.nan), jnp.where(enough, error, jnp.nan))


def _without_mean(x: Float[Array, "n h w c"], box: int) -> Float[Array, "n h w c"]:
    """x less its mean over a box of so many pixels a side; what lies beyond the border is its mirror image."""
    mean = x
    for axis in (1, 2):
        reach = box // 2
        padding = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(mean, padding, mode="reflect")
        size = x.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(box)]
        mean = jnp.mean(jnp.stack(shifted), axis=0)
    return x - mean


def _blocks(x: Float[Array, "n s s"], grid: _Grid) -> Float[Array, "n b b"]:
    n, side = len(x), grid.inner // grid.block
    return x.reshape(n, side, grid.block, side, grid.block).mean((2, 4))

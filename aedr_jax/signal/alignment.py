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

    error(x)² = var_b(D_b) / n + var_g(c_g) · (1 / k + 1 − 1 / T) + FLOOR_OF_ERROR².

Of a foreign image the unmoved copy is one more of the positions that the controls are drawn from. By what these differ
(another decoder has a grid of 8 pixels too, as has JPEG, and photographs are upright), it may lie off their mean in all
of T tiles alike: more blocks do not average that away, and the error of many tiles is that of a new draw, 1 + 1 / k. Of
one tile the reference holds it already (`decision.null`). With tiles of m_t blocks T is n² / (sum of m_t²), the number
of tiles where all have as many.

**Each turned copy has a veto.** Moving breaks a grid of 8 pixels that is not the decoder's, such as JPEG's in a smooth
picture, whose moved copies then all lose more; turning keeps it. An image whose log loss is not below that of each
turned copy, by 5 % of the loss (`AlignmentConfig.least_turned`), is not taken for an own one: it stands at −1 where it
would stand lower, which no rate of false names below .33 accepts.

An autoencoder that commutes with turning (interpolation, say, or averages) reconstructs a turned copy as it does the
image, and the copy shows nothing: one whose losses are the image's own, block by block to COMMUTES, has no veto, and is
no control where two moved copies are.

What varies between foreign images differs by autoencoder; over its own error it differs little (docs/decision.md). The
finest band tells most of an untouched image, a wider one of a compressed image: of the bands, the one in which
alignment / error is lowest counts.

Blocks are those of a few tiles of one fixed size (`tiles`): a small image is one tile. They are looked at one after
another, and no further one where the image stands firmly or hardly at all (`AlignmentConfig.stop`). Each tile of 128
pixels a side costs 1 + k passes of 120 × 120. Reference: a loop over the definition, in the tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from aedr_jax.autoencoders.models import Autoencoder, check_autoencoder
from aedr_jax.errors import ArgumentError
from aedr_jax.images.arrays import check_images
from aedr_jax.images.tiles import BOX_OF_DETAIL, FEWEST, SATURATED, AlignmentConfig, Grid
from aedr_jax.signal.reconstruction import to_display

__all__ = [
    "VERSION",
    "Alignment",
    "align",
    "align_tiles",
    "align_together",
    "alignment_map",
    "block_losses",
    "box_mean",
    "of_blocks",
    "over_blocks",
]

_State = TypeVar("_State")

VERSION = 4  # of what equal settings come to, a part of `SignalConfig.describe`; 4: a veto leaves a standing of -1
COMMUTES = 3e-4  # of log losses, the mean over blocks: float32 makes below 1e-5 of nothing, networks above 1e-3
LEFT_BY_A_VETO = -1.0  # the lowest standing; what stands above it keeps its place
FLOOR_OF_ERROR = 0.005  # with a larger one, foreign images of decoders with little spread would stand too near 0


class Alignment(NamedTuple):
    """Of each image [n]: the alignment, about 0 for foreign images and far below for the decoder's own, and its
    standard error, in the band that tells most; and how many tiles were looked at. Where nothing can be said the
    alignment is NaN and the error infinite; where the autoencoder is not finite both are NaN."""

    alignment: Float[Array, " n"]
    error: Float[Array, " n"]
    tiles: Int[Array, " n"]


def align(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> Alignment:
    """The alignment of each image, on its tiles.

    Pure, un-jitted, and differentiable, but alignment / error is flat at -1 where a turned copy has a veto; without one
    (`least_turned=None`) it is not. What it says of an image does not depend on the others.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1]; sides are multiples of the autoencoder's factor.
      config: settings.

    Returns:
      NaN, with an infinite error, for images that have no room for four blocks, or too few that say something.

    >>> from aedr_jax.signal.alignment import align
    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> align(ae, jnp.zeros((1, 96, 96, 3))).error  # a flat image: nothing can be said
    Array([inf], dtype=float32)
    """
    n = len(images)
    grid = Grid.of(config, autoencoder.factor, min(images.shape[1:3]))
    if grid is None or not n:
        return Alignment(jnp.full(n, jnp.nan), jnp.full(n, jnp.inf), jnp.zeros(n, int))
    return align_tiles(autoencoder, _tiles(images, grid, config), config=config)


def align_tiles(
    autoencoder: Autoencoder, tiles: Float[Array, "n tiles t t 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> Alignment:
    """The alignment of each image on tiles that were cut already (`Tiling`), looked at in the order given.

    A tile is computed only while it is wanted by some image of the batch (of a device's part of it): one image at a
    time costs the least. Under `vmap` all are computed.

    Args:
      autoencoder: the candidate model's.
      tiles: float32 in [-1, 1]; black ones say nothing.
      config: settings, by which the tiles were cut.

    Raises:
      ValueError: on tiles of a size that the settings know not.

    >>> from aedr_jax.signal.alignment import align_tiles
    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> align_tiles(ae, -jnp.ones((1, 4, 128, 128, 3))).tiles
    Array([0], dtype=int32)
    """
    return align_together((autoencoder,), tiles, config=config)[0]


def align_together(
    autoencoders: Sequence[Autoencoder],
    tiles: Float[Array, "n tiles t t 3"],
    *,
    config: AlignmentConfig = AlignmentConfig(),
) -> tuple[Alignment, ...]:
    """`align_tiles` of several autoencoders that share an encoder: it runs once for all of them.

    Args:
      autoencoders: their encoders are equal (`checkpoints.encoder_key`); the first one's is used.
      tiles, config: as for `align_tiles`.
    """
    n, count, side = tiles.shape[:3]
    grid = Grid.of(config, autoencoders[0].factor, side)
    if grid is None or grid.tile != side or tiles.shape[3] != side:
        raise ValueError(f"tiles of {tiles.shape[2:4]} pixels: the settings cut no such ones")
    telling = jax.vmap(partial(_telling, grid=grid, config=config), 1)(tiles[:, :, : grid.window, : grid.window])
    telling = telling.reshape(count, n, -1)
    views = 1 + len(grid.shifts) + len(config.turns)
    # What nothing was seen of yet: made of the tiles, so that it is spread over devices as they are.
    looked = (telling & False).swapaxes(0, 1)
    shape = (n, len(config.bands), views, count, grid.blocks)
    losses = jnp.broadcast_to(looked[:, None, None].astype(tiles.dtype), shape)
    unvetoed = dataclasses.replace(config, least_turned=None)  # on few tiles a veto could be the noise's
    nothing = _Looks(losses, looked, _of_looks(losses, looked, unvetoed))

    def step(states: list[_Looks], tile: tuple[Array, Array, Array]) -> tuple[list[_Looks], None]:
        number, pixels, tells = tile
        views = _views(pixels, grid, config)
        wanted = [_is_open(state.found, config) & tells.any(1) for state in states]

        def look(autoencoder: Autoencoder, latents: Array, wanted: Array, state: _Looks) -> _Looks:
            of_tile = _of_views(autoencoder.decode(latents), views, grid, config)
            of_tile = jnp.where(wanted[:, None, None, None], of_tile.reshape(*of_tile.shape[:3], -1), 0.0)
            losses = state.losses.at[:, :, :, number].set(of_tile)
            looked = state.looked.at[:, number].set(tells & wanted[:, None])
            found = _of_looks(losses, looked, unvetoed)
            found = found._replace(tiles=state.found.tiles + 1)
            chosen = [jnp.where(wanted, new, old) for new, old in zip(found, state.found, strict=True)]
            return _Looks(losses, looked, Alignment(*chosen))

        def look_with_all(states: list[_Looks]) -> list[_Looks]:
            latents = autoencoders[0].encode(views)
            return [
                jax.lax.cond(want.any(), partial(look, autoencoder, latents, want), _as_it_is, state)
                for autoencoder, want, state in zip(autoencoders, wanted, states, strict=True)
            ]

        return jax.lax.cond(jnp.stack(wanted).any(), look_with_all, _as_it_is, states), None

    numbered = (jnp.arange(count), tiles.swapaxes(0, 1), telling)
    last, _ = jax.lax.scan(step, [nothing] * len(autoencoders), numbered)
    return tuple(_of_looks(s.losses, s.looked, config)._replace(tiles=s.found.tiles) for s in last)


class _Looks(NamedTuple):
    """What was seen of the tiles so far: block losses [n, bands, views, tiles, blocks], the blocks of these that say
    something and count, and what they make."""

    losses: Array
    looked: Array
    found: Alignment


def _as_it_is(state: _State) -> _State:
    return state


def _of_looks(losses: Array, looked: Array, config: AlignmentConfig) -> Alignment:
    n, count, _ = looked.shape
    return of_blocks(losses.reshape(*losses.shape[:3], -1), looked.reshape(n, -1), tiles=count, config=config)


def _is_open(found: Alignment, config: AlignmentConfig) -> Bool[Array, " n"]:
    """Whether one more tile could say more."""
    if config.stop is None:
        return jnp.ones_like(found.error, bool)
    firm, little = config.stop
    standing = found.alignment / found.error
    return ~((standing <= firm) | (standing >= little))  # NaN: nothing is said yet


def block_losses(
    autoencoder: Autoencoder, images: Float[Array, "n h w 3"], *, config: AlignmentConfig = AlignmentConfig()
) -> tuple[Float[Array, "n bands views blocks"], Bool[Array, "n blocks"]]:
    """What the alignment is made of: e_b of each band and view, the unmoved one first, and which blocks say something;
    of all tiles that `align` may look at, in its order.

    Args:
      autoencoder: the candidate model's.
      images: as for `align`, with room for four blocks.
      config: settings.
    """
    grid = Grid.of(config, autoencoder.factor, min(images.shape[1:3]))
    if grid is None:
        raise ValueError(f"images of {images.shape[1:3]} pixels have no room for {FEWEST} blocks")
    tiles = _tiles(images, grid, config)
    n, count = tiles.shape[:2]
    losses, telling = _of_tiles(autoencoder, tiles.reshape(-1, *tiles.shape[2:]), grid, config)
    bands, views = losses.shape[1:3]
    losses = losses.reshape(n, count, bands, views, grid.blocks).transpose(0, 2, 3, 1, 4)
    return losses.reshape(n, bands, views, count * grid.blocks), telling.reshape(n, count * grid.blocks)


def alignment_map(
    autoencoder: Autoencoder,
    images: Float[Array, "n h w 3"],
    *,
    config: AlignmentConfig = AlignmentConfig(),
    standardized: bool = False,
) -> Float[Array, "n hb wb"]:
    """D_b, the mean over the bands, block by block: where an image is this decoder's (about 0 where it is not). Without
    the veto of turned copies.

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
      ArgumentError: on images that `measure` refuses, and on other settings than an `AlignmentConfig`.

    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> aedr.alignment_map(ae, jax.random.uniform(jax.random.key(0), (1, 128, 128, 3), minval=-1.0)).shape
    (1, 5, 5)
    """
    if not isinstance(config, AlignmentConfig):
        raise ArgumentError(
            f"config: a {type(config).__name__}; expected an AlignmentConfig (of a SignalConfig: .alignment)"
        )
    check_autoencoder(autoencoder)
    check_images(images, autoencoder.factor)
    n, height, width = images.shape[:3]
    grid = Grid.of(config, autoencoder.factor, min(height, width))
    if grid is None:
        return jnp.full((n, 0, 0), jnp.nan)
    rows, columns = ((side - grid.tile) // grid.inner + 1 for side in (height, width))
    starts = [(i * grid.inner, j * grid.inner) for i in range(rows) for j in range(columns)]
    tiles = jnp.stack([images[:, y : y + grid.tile, x : x + grid.tile] for y, x in starts])
    # One after another: of a large image, all windows at once would take gigabytes.
    by_tile = jax.lax.map(lambda tile: _of_tiles(autoencoder, tile, grid, config), tiles)
    losses, telling = (x.reshape(-1, *x.shape[2:]) for x in by_tile)
    logs = jnp.log(losses + config.floor)
    controls = logs[:, :, 1:]
    found = jnp.where(telling, (logs[:, :, 0] - controls.mean(2)).mean(1), jnp.nan)
    if standardized:
        controls = controls.mean(1)
        variance = jnp.where(telling, jnp.var(controls, axis=1, ddof=1), jnp.nan).reshape(rows * columns, n, -1)
        spread = jnp.sqrt(jnp.nanmean(variance, axis=(0, 2)) * (1 + 1 / controls.shape[1]))
        found = found / jnp.tile(spread, rows * columns)[:, None, None]
    side = grid.inner // grid.block
    return found.reshape(rows, columns, n, side, side).transpose(2, 0, 3, 1, 4).reshape(n, rows * side, columns * side)


def _tiles(images: Float[Array, "n h w 3"], grid: Grid, config: AlignmentConfig) -> Float[Array, "n tiles t t 3"]:
    """The tiles of each image that are judged; what `Tiling` does to one image of a file."""
    n, *sides = images.shape[:3]
    starts = grid.corners(*sides)
    nearest = grid.nearest(starts, *sides)
    shape = (grid.tile, grid.tile, 3)
    if len(starts) == 1:
        chosen = jnp.broadcast_to(jnp.asarray(starts[nearest]), (n, *starts.shape))
    else:
        # At once: looked at one by one, each of a large image's tiles would be a part of the program.
        (top, left), (rows, columns) = starts[0], [side // grid.tile for side in sides]
        candidates = images[:, top : top + rows * grid.tile, left : left + columns * grid.tile]
        candidates = candidates.reshape(n, rows, grid.tile, columns, grid.tile, 3).swapaxes(2, 3)
        unmoved = candidates[:, :, :, : grid.window, : grid.window].reshape(-1, grid.window, grid.window, 3)
        counts = _telling(unmoved, grid, config).sum((1, 2)).reshape(n, len(starts))[:, nearest]
        chosen = jnp.asarray(starts[nearest])[jnp.argsort(-counts, axis=1, stable=True)[:, : config.tiles]]
    return jax.vmap(
        lambda image, corners: jax.vmap(lambda at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape))(corners)
    )(images, chosen)


def _telling(unmoved: Float[Array, "n w w 3"], grid: Grid, config: AlignmentConfig) -> Bool[Array, "n b b"]:
    """Which blocks say something: those with fine detail, and not mostly black or white."""
    inside = slice(grid.margin, grid.margin + grid.inner)
    pixels = jax.lax.stop_gradient(unmoved)
    fine = jnp.square(pixels - box_mean(pixels, BOX_OF_DETAIL)).mean(-1)[:, inside, inside]
    at_ends = (jnp.abs(pixels) > SATURATED).mean(-1)[:, inside, inside]
    return (_blocks(fine, grid) > config.least_detail) & (_blocks(at_ends, grid) <= 0.5)


def _of_tiles(
    autoencoder: Autoencoder, tiles: Float[Array, "m t t 3"], grid: Grid, config: AlignmentConfig
) -> tuple[Float[Array, "m bands views b b"], Bool[Array, "m b b"]]:
    """Block losses of each view, and which blocks say something."""
    views = _views(tiles, grid, config)
    losses = _of_views(autoencoder.decode(autoencoder.encode(views)), views, grid, config)
    return losses, _telling(tiles[:, : grid.window, : grid.window], grid, config)


def _views(tiles: Float[Array, "m t t 3"], grid: Grid, config: AlignmentConfig) -> Float[Array, "_ w w 3"]:
    """The windows of each tile: unmoved, moved, mirrored and turned."""
    w = grid.window
    unmoved = tiles[:, :w, :w]
    moved = [tiles[:, y : y + w, x : x + w] for y, x in grid.shifts]
    turned = {"mirror": unmoved[:, :, ::-1], "quarter": jnp.rot90(unmoved, axes=(1, 2))}
    return jnp.concatenate([unmoved, *moved, *(turned[name] for name in config.turns)])


def _of_views(
    reconstruction: Float[Array, "_ w w 3"], views: Float[Array, "_ w w 3"], grid: Grid, config: AlignmentConfig
) -> Float[Array, "m bands views b b"]:
    """Block losses, brought back to the unmoved window's pixels."""
    count, w, margin = 1 + len(grid.shifts) + len(config.turns), grid.window, grid.margin
    residual = to_display(reconstruction, clip=True, round8=False) - views
    means = {box: box_mean(residual, box) for box in {box for band in config.bands for box in band}}
    detail = jnp.stack([jnp.square(means[a] - means[b]).mean(-1) for a, b in config.bands])
    detail = detail.reshape(len(config.bands), count, -1, w, w)
    back = {"mirror": lambda e: e[..., ::-1], "quarter": lambda e: jnp.rot90(e, -1, axes=(-2, -1))}
    by_view = list(detail.swapaxes(0, 1))
    unturned = 1 + len(grid.shifts)
    upright = by_view[:unturned] + [back[name](e) for name, e in zip(config.turns, by_view[unturned:], strict=True)]
    moves = [(0, 0), *grid.shifts, *[(0, 0)] * len(config.turns)]
    inside = [
        e[..., margin - y : margin - y + grid.inner, margin - x : margin - x + grid.inner]
        for e, (y, x) in zip(upright, moves, strict=True)
    ]
    return _blocks(jnp.stack(inside, axis=2), grid).swapaxes(0, 1)


def _turned(
    logs: Float[Array, "n bands views blocks"], telling: Bool[Array, "n blocks"], config: AlignmentConfig
) -> Bool[Array, "n bands views"]:
    """Which views are turned copies that show something: those whose losses are not the image's own."""
    off = over_blocks(jnp.abs(logs - logs[:, :, :1]), telling)
    views = logs.shape[2]
    return (off > COMMUTES) & (jnp.arange(views) >= views - len(config.turns))


def of_blocks(
    losses: Float[Array, "n bands views blocks"],
    telling: Bool[Array, "n blocks"],
    *,
    tiles: int,
    config: AlignmentConfig = AlignmentConfig(),
) -> Alignment:
    """The alignment that block losses make (`block_losses`), all of them.

    Args:
      losses, telling: of so many tiles, one after another.
      tiles: how many.
      config: settings.

    Raises:
      ValueError: on blocks that so many tiles cannot have.
    """
    if losses.shape[3] % tiles:
        raise ValueError(f"{losses.shape[3]} blocks of {tiles} tiles: expected as many of each")
    weight = telling.astype(losses.dtype)
    of_tiles = weight.reshape(-1, tiles, weight.shape[1] // tiles).sum(2)
    count = of_tiles.sum(1)
    safe = jnp.maximum(count, 2.0)[:, None]
    logs = jnp.log(losses + config.floor)
    of_views = over_blocks(logs, telling)
    turned = _turned(logs, telling, config)
    moved = logs.shape[2] - 1 - len(config.turns)
    view = jnp.arange(logs.shape[2])
    # With one moved copy, or none, nothing but the turned ones would tell how controls spread.
    are_controls = turned | ((view > 0) & (view <= moved)) if moved > 1 else jnp.broadcast_to(view > 0, turned.shape)
    controls = are_controls.sum(2).astype(losses.dtype)
    differences = logs[:, :, 0] - jnp.mean(logs, axis=2, where=are_controls[..., None])
    mean = over_blocks(differences, telling)
    between_blocks = jnp.einsum("nb,nfb->nf", weight, jnp.square(differences - mean[..., None])) / (safe - 1.0) / safe
    between_controls = jnp.var(of_views, axis=2, ddof=1, where=are_controls)
    beyond_one = 1.0 - jnp.square(of_tiles).sum(1, keepdims=True) / jnp.square(safe)  # 1 - 1 / T
    error = jnp.sqrt(between_blocks + between_controls * (1.0 / controls + beyond_one) + FLOOR_OF_ERROR**2)
    standing = mean / error
    if config.least_turned is not None:
        vetoes = turned & (of_views - of_views[:, :, :1] < config.least_turned)
        left = vetoes.any(2) & (standing < LEFT_BY_A_VETO)
        # As a constant: the gradient of a quotient of equals is rounding, whose signs an attack would follow.
        error = jnp.where(left, jax.lax.stop_gradient(error), error)
        mean = jnp.where(left, LEFT_BY_A_VETO * error, mean)
        standing = jnp.where(left, LEFT_BY_A_VETO, standing)
    lowest = jnp.argmin(standing, axis=1)[:, None]
    mean, error = (jnp.take_along_axis(values, lowest, axis=1)[:, 0] for values in (mean, error))
    enough = count >= jnp.maximum(FEWEST, config.least_blocks * weight.shape[1] / tiles)
    said = (
        jnp.where(enough, values, nothing)
        for values, nothing in ((mean, jnp.nan), (error, jnp.inf), (jnp.int32(tiles), 0))
    )
    return Alignment(*said)


def over_blocks(values: Float[Array, "n *rest blocks"], telling: Bool[Array, "n blocks"]) -> Float[Array, "n *rest"]:
    """The mean over the blocks that say something; 0 where none does.

    Args:
      values: such as logarithms of losses.
      telling: as `block_losses` gives it.
    """
    weight = telling.astype(values.dtype)
    count = jnp.maximum(weight.sum(1), 1.0).reshape(-1, *[1] * (values.ndim - 2))
    return jnp.einsum("nb,n...b->n...", weight, values) / count


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


def _blocks(x: Float[Array, "*n s s"], grid: Grid) -> Float[Array, "*n b b"]:
    side = grid.inner // grid.block
    return x.reshape(*x.shape[:-2], side, grid.block, side, grid.block).mean((-3, -1))

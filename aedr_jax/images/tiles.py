"""Which tiles of an image are judged, and of what: sizes and settings, without JAX, so that decoder processes cut them.

An image is judged on a few square tiles of one size, so that one compiled program serves images of all sizes. Images
smaller than a tile have a smaller one, of which there are few sizes too: as many as there are numbers of blocks.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

__all__ = [
    "BOX_OF_DETAIL",
    "FEWEST",
    "SATURATED",
    "AlignmentConfig",
    "Grid",
    "Tiling",
    "shifts_of",
    "telling_blocks",
    "tile_of",
]

BOX_OF_DETAIL = 5  # pixels: an image's own fine detail is what its mean over such a box leaves
FEWEST = 4  # blocks, below which nothing is said
BLOCKS_OF_LARGE_FACTORS = 9  # of a tile, as many as at factor 16: with four, own images are found less often
SATURATED = 1.0 - 1.5 / 127.5  # within a grey level of black or white
TURNS = ("mirror", "quarter")
LARGEST = 1 << 16  # pixels, above any tile


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment.

    Attributes:
      tile: the side in pixels of the squares that are judged, more where a factor above `block` needs it for nine
        blocks; a smaller image is one smaller tile. One size serves images of all sizes with one compiled program.
      tiles: the most that are judged, of those that lie beside each other around the middle, on the grid: the ones with
        most blocks that say something first, and of equal ones the nearest to the middle.
      stop: (firm, little): after a tile on which alignment / error is at most `firm` or at least `little`, no further
        one is looked at. No foreign image of the reference stands at -6, and hardly an own one at -1 (docs/decision.md
        has what this does to the rate of false names). None: all tiles are looked at.
      shifts: (down, right) in pixels, each below the factor; None: by the factor (`shifts_of`). With `turns` they are
        the controls, of which there are two at least.
      turns: of "mirror" (left and right change places) and "quarter" (a turn by 90°).
      bands: of the residual, pairs of sides of boxes, both odd: the mean over the first less the mean over the second.
      block: the side of a block in pixels, brought to a multiple of the factor.
      margin: pixels at the windows' edges that do not count, twice the factor at least.
      floor: added to every block's loss, a fifth of what rounding to 8 bit leaves.
      least_detail: a block says nothing where the image itself has less fine detail than this, which rounding makes, or
        where more than half of its values are black or white.
      least_blocks: where fewer blocks say something than this share of a tile's, the alignment is NaN.
      least_turned: an image whose log loss is not below that of each turned copy by as much is not taken for an own
        one: it stands at -1 where it would stand lower (in each band). None: it is not asked.

    Raises:
      ValueError: on settings that no tile can have. Those that none can have at a factor are refused where it is known.

    >>> aedr.AlignmentConfig(tiles=1).bands
    ((1, 5), (3, 9))
    """

    tile: int = 128
    tiles: int = 4
    stop: tuple[float, float] | None = (-6.0, -1.0)
    shifts: tuple[tuple[int, int], ...] | None = None
    turns: tuple[str, ...] = TURNS
    bands: tuple[tuple[int, int], ...] = ((1, 5), (3, 9))
    block: int = 16
    margin: int = 16
    floor: float = 1e-6
    least_detail: float = 1e-5
    least_blocks: float = 0.25
    least_turned: float | None = 0.05

    def __post_init__(self) -> None:
        if set(self.turns) - set(TURNS) or len(set(self.turns)) < len(self.turns):
            raise ValueError(f"turns {self.turns}: expected some of {', '.join(TURNS)}, each once")
        if self.shifts is not None and ((0, 0) in self.shifts or len(set(self.shifts)) < len(self.shifts)):
            raise ValueError(f"shifts {self.shifts}: expected pairs that differ, none of them (0, 0)")
        if not self.bands or any(not (0 < a < b and a % 2 == b % 2 == 1) for a, b in self.bands):
            raise ValueError(f"bands {self.bands}: expected pairs of odd numbers, the second above the first")
        if min(self.tile, self.tiles, self.block, self.margin) < 1 or self.floor <= 0:
            raise ValueError("tile, tiles, block, margin and floor: expected positive numbers")
        if self.stop is not None and not self.stop[0] < self.stop[1]:
            raise ValueError(f"stop {self.stop}: expected (firm, little), the first below the second")


def shifts_of(factor: int) -> tuple[tuple[int, int], ...]:
    """The shifts for a factor: a quarter and three quarters, the reverse, and the half, each pair once.

    >>> from aedr_jax.images.tiles import shifts_of
    >>> shifts_of(8)
    ((2, 6), (6, 2), (4, 4))
    """
    quarter, half = factor // 4, factor // 2
    pairs = [(quarter, factor - quarter), (factor - quarter, quarter), (half, half)] if quarter else [(half, half)]
    return tuple(pair for pair in dict.fromkeys(pairs) if any(side % factor for side in pair))


class Grid(NamedTuple):
    """Sizes in pixels: a tile, the windows in it, the square of blocks inside them, a block, the margin."""

    factor: int
    tile: int
    window: int
    inner: int
    block: int
    margin: int
    shifts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, config: AlignmentConfig, factor: int, side: int) -> Grid | None:
        """For images whose shorter side has so many pixels; None where a tile has no room for four blocks.

        Raises:
          ValueError: on shifts of a factor or more, which no tile has room for, and on fewer than two controls, whose
            spread is not known.
        """
        shifts = shifts_of(factor) if config.shifts is None else config.shifts
        if any(not 0 <= step < factor for shift in shifts for step in shift):
            raise ValueError(f"shifts {shifts}: expected numbers of pixels below the factor, {factor}")
        if len(shifts) + len(config.turns) < 2:
            raise ValueError(f"shifts {shifts}, turns {config.turns}: fewer than two controls at a factor of {factor}")
        block = -(-config.block // factor) * factor
        margin = max(-(-config.margin // factor) * factor, 2 * factor)
        moved = factor if shifts else 0
        least = moved + 2 * margin + math.isqrt(FEWEST) * block
        if side < least:
            return None
        blocks = math.isqrt(BLOCKS_OF_LARGE_FACTORS if factor > config.block else FEWEST)
        whole = max(config.tile // factor * factor, moved + 2 * margin + blocks * block)
        tile = whole if side >= whole else least + (side - least) // block * block
        window = tile - moved
        return cls(factor, tile, window, (window - 2 * margin) // block * block, block, margin, shifts)

    @property
    def blocks(self) -> int:
        """Of a tile."""
        return (self.inner // self.block) ** 2

    def corners(self, height: int, width: int) -> Int[np.ndarray, "m 2"]:
        """(top, left) of the tiles that lie beside each other around the middle, on the grid, row by row."""
        tops, lefts = (
            (side - side // self.tile * self.tile) // 2 // self.factor * self.factor
            + self.tile * np.arange(side // self.tile)
            for side in (height, width)
        )
        return np.stack([a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij")], axis=1)

    def nearest(self, corners: Int[np.ndarray, "m 2"], height: int, width: int) -> Int[np.ndarray, " m"]:
        """Which of the tiles lies nearest to the middle, the next, and so on."""
        middle = (np.array((height, width)) - self.tile) / 2
        return np.argsort(np.square(corners - middle).sum(1), kind="stable")


def tile_of(multiple: int, factor: int) -> int:
    """The tile whose windows have a multiple of so many pixels a side: the largest up to the default one, or else the
    smallest above.

    >>> from aedr_jax.images.tiles import tile_of
    >>> tile_of(32, 8), tile_of(64, 8)
    (104, 72)
    """
    usual = AlignmentConfig.tile // factor * factor

    def fits(side: int) -> bool:
        grid = Grid.of(AlignmentConfig(tile=side), factor, LARGEST)
        return grid is not None and grid.tile == side and grid.window % multiple == 0

    return next(filter(fits, (*range(usual, 0, -factor), *range(usual + factor, LARGEST, factor))))


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Cuts an image into the tiles that are judged; what `align` does to arrays, for files.

    Attributes:
      config: settings.
      factor: the autoencoder's.

    Raises:
      ValueError: as `Grid.of`.

    >>> from aedr_jax.images.tiles import Tiling
    >>> Tiling(aedr.AlignmentConfig(), factor=8)(np.zeros((400, 300, 3), np.uint8)).shape
    (4, 128, 128, 3)
    """

    config: AlignmentConfig
    factor: int

    def __post_init__(self) -> None:
        Grid.of(self.config, self.factor, 0)  # refuses, before processes that cut are started, what no image mends

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "tiles t t 3"]:
        """The tiles in the order in which they are looked at.

        Args:
          image: its sides are multiples of the factor.

        Returns:
          As many as settings allow, black ones where the image has fewer: nothing is said of a black tile. So one
          program takes images of all sizes.
        """
        height, width = image.shape[:2]
        grid = Grid.of(self.config, self.factor, min(height, width))
        if grid is None:
            side = self._least()
            return np.zeros((self.config.tiles, side, side, 3), np.uint8)
        corners = grid.corners(height, width)
        order = grid.nearest(corners, height, width)
        if len(corners) > 1:
            counts = [self._count(image, corner, grid) for corner in corners]
            order = order[np.argsort(-np.array(counts)[order], kind="stable")]
        tiles = np.zeros((self.config.tiles, grid.tile, grid.tile, 3), np.uint8)
        for tile, (y, x) in zip(tiles, corners[order[: self.config.tiles]], strict=False):
            tile[:] = image[y : y + grid.tile, x : x + grid.tile]
        return tiles

    def _count(self, image: UInt8[np.ndarray, "h w 3"], corner: Int[np.ndarray, " 2"], grid: Grid) -> int:
        y, x = corner
        window = image[y : y + grid.window, x : x + grid.window]
        inside = slice(grid.margin, grid.margin + grid.inner)
        return int(telling_blocks(window, grid.block, self.config, inside).sum())

    def _least(self) -> int:
        """The side of the smallest tile."""
        return next(
            side for side in range(self.factor, LARGEST, self.factor) if Grid.of(self.config, self.factor, side)
        )


def telling_blocks(
    image: UInt8[np.ndarray, "h w 3"], block: int, config: AlignmentConfig, inside: slice = slice(None)
) -> Bool[np.ndarray, "hb wb"]:
    """Which blocks say something, as for `align`: those with fine detail, and not mostly black or white.

    Args:
      image: pixels; its border counts mirrored.
      block: side of a block in pixels; what is no whole block is left out.
      config: settings.
      inside: rows and columns that are looked at.
    """
    from scipy import ndimage

    around, kept = zip(*(_with_border(inside, side) for side in image.shape[:2]), strict=True)
    pixels = image[around].astype(np.float32) / 127.5 - 1.0
    mean = ndimage.uniform_filter(pixels, (BOX_OF_DETAIL, BOX_OF_DETAIL, 0), mode="mirror")

    def of_blocks(x: np.ndarray) -> np.ndarray:
        """Means over blocks and channels, which lie beside each other in memory."""
        rows, columns = (side // block for side in x.shape[:2])
        return x[: rows * block, : columns * block].reshape(rows, block, columns, block * x.shape[2]).mean((1, 3))

    fine, at_ends = np.square(pixels - mean)[kept], np.abs(pixels[kept]) > SATURATED
    return (of_blocks(fine) > config.least_detail) & (of_blocks(at_ends) <= 0.5)


def _with_border(inside: slice, length: int) -> tuple[slice, slice]:
    """What is needed of so many rows for the detail of those inside, and where these are in it."""
    first, last, _ = inside.indices(length)
    begin = max(first - BOX_OF_DETAIL // 2, 0)
    return slice(begin, last + BOX_OF_DETAIL // 2), slice(first - begin, last - begin)

"""Under which geometry an image stands on a decoder's grid: found on one part of it, tested on the rest.

An own image that was mirrored, turned, cropped or resized is off the grid, and `align` says nothing of it. What was
done to it is looked for among hypotheses: eight orientations times the offsets of a crop (factor²), and eight
orientations times the sizes that it may have had as a whole. Crop and resize are not looked for together. Models of a
factor above 16 are not searched with: at 32 a crop has 1,024 offsets in each orientation, and the tiles that are tested
here are smaller than those that `align` needs there.

**Found** on one region: of the corners of 7/16 of the shorter side, the one with most fine detail. Each hypothesis is a
window of 64 × 64 pixels as it would have been on the grid, and its loss that of the residual's fine detail, as in
`align`: the mean over small blocks of log e_b. The hypotheses of one size show the same pixels and are each other's
controls: of each the mean over the offsets of its orientation is taken off; of resized ones, which are smoother the
more they are enlarged, the mean over the orientations of its size as well as that over the sizes of its orientation. In
units of their spread, summed over the bands, the lowest are kept, and looked at in three more windows of the region,
each beside its mirror image.

**Tested** on tiles that the region does not touch: the image is brought back whole, and these tiles are what `align`
judges. The geometry is a function of the region's pixels alone, so the test is the alignment of one ordinary image, and
the null of ordinary images judges it, whatever the number of hypotheses. This is exact where, of a foreign image, the
region and the rest are independent. They are not where something spans the whole of it (JPEG's grid of 8 pixels, an
earlier resize): the search may bring just that onto the decoder's grid. Then the test is that of an image on JPEG's
grid, or of a resized one; the null has both kinds. So what bounds the level of the search is the null's level of its
worst kind, not that of the mean over kinds. `benchmarks/search.py` measures it.

Cost for factor 8 and a square of 256 pixels: about 830 windows of 64 × 64, 144 for those that are kept, and 3 · (1 + k)
tiles of 120 × 120 for k controls: as much as 65 passes of the image. One compiled program does all windows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from aedr_jax.autoencoders.models import Autoencoder
from aedr_jax.compilation import jit_network
from aedr_jax.errors import ArgumentError
from aedr_jax.images.arrays import prepare
from aedr_jax.images.geometry import Box, Geometry, orientations, original_sizes, resized
from aedr_jax.images.tiles import AlignmentConfig, Grid, telling_blocks
from aedr_jax.signal.alignment import align, box_mean
from aedr_jax.signal.reconstruction import to_display

__all__ = ["Found", "SearchConfig", "least_side", "search", "search_many", "searchable", "why_not"]

WINDOW = 64  # pixels a side
BLOCK = 8  # of a window: its mean loss is one value
MARGIN = 12  # pixels at a window's edge that do not count
TEST = AlignmentConfig()
REGION = 7 / 16  # of the shorter side: leaves two tiles side by side beyond it, whatever the offset
LARGEST_REGION = 192
LEAST_SIDE = 256
LEAST_RETURNED = 208  # pixels of the shorter side, once resized back: below that tiles have too few blocks
LARGEST_FACTOR = 16  # that is searched with
NATIVES = (256, 512, 640, 768, 832, 896, 1024, 1152, 1216, 1280, 1344, 1536, 2048)


def _reach(config: AlignmentConfig) -> int:
    return max(box for band in config.bands for box in band) // 2


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Settings of the search.

    Attributes:
      offsets: whether crops are looked for.
      scales: the least and the greatest of size before over size now; (1, 1) looks for no resize.
      sizes: of original sizes at most so many, but for native ones (`original_sizes`).
      natives: longer sides at which models generate.
      keep: of the hypotheses, those that more windows decide between.
      batch: windows at once.
      alignment: of the test; its bands, floor and least detail are also those of the search.
    """

    offsets: bool = True
    scales: tuple[float, float] = (0.5, 2.0)
    sizes: int = 64
    natives: tuple[int, ...] = NATIVES
    keep: int = 24
    batch: int = 64
    alignment: AlignmentConfig = TEST

    def __post_init__(self) -> None:
        least, greatest = self.scales
        if not 0 < least <= 1 <= greatest:
            raise ValueError(f"scales {self.scales}: expected two positive numbers around 1")
        if min(self.sizes, self.keep, self.batch) < 1:
            raise ValueError("sizes, keep and batch: expected positive numbers")
        if _reach(self.alignment) > MARGIN:
            raise ValueError(f"bands {self.alignment.bands}: a window has room for boxes of {2 * MARGIN + 1} pixels")


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found, and the alignment of the rest of the image under it; `str` is the geometry in words.

    Attributes:
      geometry: of the hypotheses, the one under which the region fits the grid best, be it by chance.
      alignment, error: as of `align`, of the tiles that took no part in finding; NaN where they say nothing.
      hypotheses: how many were looked at.
    """

    geometry: Geometry
    alignment: float
    error: float
    hypotheses: int

    def __str__(self) -> str:
        return str(self.geometry)


def search(autoencoder: Autoencoder, image: Any, *, config: SearchConfig = SearchConfig()) -> Found:
    """The geometry under which an image fits a decoder's grid best, and the test of it on the rest of the image.

    Args:
      autoencoder: the candidate model's.
      image: uint8 [h,w,3]; the shorter side is 256 at least.
      config: settings.

    Raises:
      ArgumentError: on what is no such image, and for a factor of 1, which has no grid, or above 16 (`why_not`).

    >>> from aedr_jax.signal.search import SearchConfig, search
    >>> ae = aedr.from_functions(lambda p, x: x[:, ::4, ::4], lambda p, z: z.repeat(4, 1).repeat(4, 2), factor=4)
    >>> cells = np.random.default_rng(0).integers(0, 256, (65, 65, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    >>> search(ae, cells[3:, 1:], config=SearchConfig(scales=(1.0, 1.0))).hypotheses  # 8 orientations, 16 offsets
    128
    """
    return search_many({"": autoencoder}, image, config=config)[""]


def search_many(
    models: Mapping[str, Autoencoder], image: Any, *, config: SearchConfig = SearchConfig()
) -> dict[str, Found]:
    """`search` with each of several models: name -> what was found.

    Args:
      models: autoencoders by name.
      image: as for `search`.
      config: settings.

    Raises:
      ArgumentError: as `search`.

    >>> from aedr_jax.signal.search import search_many
    >>> search_many({}, np.zeros((256, 256, 3), np.uint8))
    {}
    """
    plans = {name: _Plan.of(autoencoder.factor) for name, autoencoder in models.items()}
    for plan in plans.values():
        _check(image, plan)
    return {name: _searched(autoencoder, image, plans[name], config) for name, autoencoder in models.items()}


def searchable(models: Mapping[str, Autoencoder], image: UInt8[np.ndarray, "h w 3"]) -> dict[str, Autoencoder]:
    """The models that an image can be searched with; `why_not` says why of the others.

    >>> from aedr_jax.signal.search import searchable
    >>> searchable({"tiny": aedr.load_autoencoder("mini-vq")}, np.zeros((200, 300, 3), np.uint8))
    {}
    """
    return {name: one for name, one in models.items() if not why_not(one.factor, *image.shape[:2])}


def why_not(factor: int, height: int, width: int) -> str:
    """Why an image of a size is not searched with an autoencoder of a factor; "" where it is.

    >>> from aedr_jax.signal.search import why_not
    >>> why_not(8, 256, 300), why_not(32, 2048, 2048)
    ('', 'offsets are looked for up to a factor of 16, this autoencoder has 32')
    """
    if factor == 1:
        return "an autoencoder of factor 1 has no grid to search for"
    if factor > LARGEST_FACTOR:
        return f"offsets are looked for up to a factor of {LARGEST_FACTOR}, this autoencoder has {factor}"
    if min(height, width) < (least := least_side(factor)):
        return (
            f"image is {height}×{width}: a geometry is found on one part and tested on another, which takes {least} "
            f"pixels of the shorter side at a factor of {factor}"
        )
    return ""


class _Plan(NamedTuple):
    """Sizes in pixels for a factor: a window, the slot that it moves in, and where the blocks in the middle of the slot
    begin and how many there are a side, which each window in the slot shows at least `MARGIN` from its edge."""

    factor: int
    window: int
    slot: int
    start: int
    blocks: int

    @classmethod
    def of(cls, factor: int) -> _Plan:
        slot = WINDOW + factor
        blocks = (WINDOW - factor - 2 * MARGIN) // BLOCK
        return cls(factor, WINDOW, slot, (slot - blocks * BLOCK) // 2, blocks)


def _searched(autoencoder: Autoencoder, image: UInt8[np.ndarray, "h w 3"], plan: _Plan, config: SearchConfig) -> Found:
    telling = telling_blocks(image, BLOCK, config.alignment)
    region = _region(image, telling, plan)
    hypotheses = _hypotheses(image, region, plan, config)
    losses = partial(_losses, autoencoder, image, region, plan=plan, config=config)
    first = _relative(hypotheses, losses(hypotheses, 0))
    spread = first.std(axis=0) + config.alignment.floor
    kept = np.argsort((first / spread).sum(1), kind="stable")[: config.keep]
    score = first[kept]
    few = [hypotheses[i] for i in kept]
    beside = [dataclasses.replace(each, mirrored=not each.mirrored) for each in few]
    for corner in (1, 2, 3):
        looked = losses([*few, *beside], corner)
        score += looked[: len(few)] - looked[len(few) :]
    geometry = few[int(np.argmin((score / spread).sum(1)))]
    alignment, error = _tested(autoencoder, image, region, geometry, config.alignment)
    return Found(geometry, alignment, error, len(hypotheses))


def _check(image: Any, plan: _Plan) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ArgumentError(f"image: {given}; expected a NumPy array, uint8 [h,w,3], as read_image gives")
    if reason := why_not(plan.factor, *image.shape[:2]):
        raise ArgumentError(reason)


def least_side(factor: int) -> int | float:
    """The shorter side in pixels from which on an image can be searched; infinite where none can (`why_not`).

    >>> from aedr_jax.signal.search import least_side
    >>> least_side(8), least_side(32), least_side(1)
    (256, inf, inf)
    """
    if not 1 < factor <= LARGEST_FACTOR:
        return math.inf
    return max(LEAST_SIDE, math.ceil(_Plan.of(factor).slot / REGION))


def _count(telling: np.ndarray, box: Box) -> int:
    return int(Box(*(side // BLOCK for side in box)).of(telling).sum())


def _region(image: UInt8[np.ndarray, "h w 3"], telling: np.ndarray, plan: _Plan) -> Box:
    """The corner with most blocks that say something."""
    height, width = image.shape[:2]
    side = min(int(REGION * min(height, width)), max(LARGEST_REGION, plan.slot))
    corners = [Box(y, x, side, side) for y in (0, height - side) for x in (0, width - side)]
    return max(corners, key=lambda corner: _count(telling, corner))


def _hypotheses(image: UInt8[np.ndarray, "h w 3"], region: Box, plan: _Plan, config: SearchConfig) -> list[Geometry]:
    """Orientations × offsets at the image's own size, then orientations × sizes."""
    height, width = seen = image.shape[:2]
    cropped = range(plan.factor if config.offsets else 1)
    least, greatest = config.scales
    sizes = original_sizes(
        height,
        width,
        factor=plan.factor,
        natives=config.natives,
        least=max(least, LEAST_RETURNED / min(seen), (plan.slot + 1) / region.height),  # a slot fits the region
        greatest=greatest,
        most=config.sizes,
    )
    return [
        *(Geometry(seen, m, q, None, (y, x)) for m, q in orientations() for y in cropped for x in cropped),
        *(Geometry(seen, m, q, (w, h) if q % 2 else (h, w)) for m, q in orientations() for h, w in sizes),
    ]


def _slot(
    image: UInt8[np.ndarray, "h w 3"], region: Box, corner: int, plan: _Plan, size: tuple[int, int]
) -> tuple[Box, UInt8[np.ndarray, "s s 3"]]:
    """The slot in one corner of the region, in the image as it lies, resized to a size; and its pixels."""
    down, right = size[0] / image.shape[0], size[1] / image.shape[1]
    top, bottom = int(np.ceil(region.top * down)), int((region.top + region.height) * down) - plan.slot
    left, east = int(np.ceil(region.left * right)), int((region.left + region.width) * right) - plan.slot
    slot = Box((top, bottom)[corner // 2], (left, east)[corner % 2], plan.slot, plan.slot)
    return slot, slot.of(image) if size == image.shape[:2] else resized(image, size, slot)


def _losses(
    autoencoder: Autoencoder,
    image: UInt8[np.ndarray, "h w 3"],
    region: Box,
    hypotheses: Sequence[Geometry],
    corner: int,
    *,
    plan: _Plan,
    config: SearchConfig,
) -> Float[np.ndarray, "n bands"]:
    """Mean over blocks of log e_b, of each hypothesis' window in a corner of the region."""
    slots = cache(partial(_slot, image, region, corner, plan))  # orientations and offsets share one

    def window(geometry: Geometry) -> tuple[UInt8[np.ndarray, "s s 3"], tuple[int, int]]:
        """Upright and on its grid; and where its blocks begin."""
        upright = geometry.size or geometry.seen_upright
        height, width = upright if geometry.quarters % 2 == 0 else upright[::-1]  # as the image lies
        slot, pixels = slots((height, width))
        turned = geometry.box_turned_back(slot, height, width)
        y, x = ((off - at) % plan.factor for off, at in zip(geometry.offset, turned[:2], strict=True))
        part = geometry.turned_back(pixels)[y : y + plan.window, x : x + plan.window]
        return part, (plan.start - y, plan.start - x)

    found = []
    for at in range(0, len(hypotheses), config.batch):
        looked = [window(each) for each in hypotheses[at : at + config.batch]]
        padded = [*looked, *[looked[-1]] * (config.batch - len(looked))]  # one shape, one program
        windows, starts = np.stack([w for w, _ in padded]), np.array([start for _, start in padded], np.int32)
        logs = _log_losses(autoencoder, prepare(windows), starts, blocks=plan.blocks, config=config.alignment)
        found.append(np.asarray(logs)[: len(looked)])
    return np.concatenate(found)


@partial(jit_network, static_argnames=("blocks", "config"))
def _log_losses(
    autoencoder: Autoencoder,
    windows: Float[Array, "n w w 3"],
    starts: Int[Array, "n 2"],
    *,
    blocks: int,
    config: AlignmentConfig,
) -> Float[Array, "n bands"]:
    residual = to_display(autoencoder.decode(autoencoder.encode(windows)), clip=True, round8=False) - windows
    side, reach = blocks * BLOCK, _reach(config)  # the filters see no more than this
    seen = (side + 2 * reach, side + 2 * reach, 3)
    inside = jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at[0] - reach, at[1] - reach, 0), seen))(residual, starts)
    detail = jnp.stack([jnp.square(box_mean(inside, a) - box_mean(inside, b)).mean(-1) for a, b in config.bands], 1)
    detail = detail[:, :, reach : reach + side, reach : reach + side]
    e = detail.reshape(*detail.shape[:2], blocks, BLOCK, blocks, BLOCK).mean((3, 5))
    return jnp.log(e + config.floor).mean((2, 3))


def _relative(hypotheses: Sequence[Geometry], logs: Float[np.ndarray, "n bands"]) -> Float[np.ndarray, "n bands"]:
    """What is left of each hypothesis' loss by its controls: at its own size the other offsets of its orientation;
    resized, its orientation and its size (both effects, as in an analysis of variance)."""
    bands = logs.shape[1]
    own = sum(each.size is None for each in hypotheses)
    cropped = logs[:own].reshape(8, -1, bands)
    sized = logs[own:].reshape(8, -1, bands)
    by_offset = cropped - cropped.mean(1, keepdims=True) if cropped.shape[1] > 1 else cropped - cropped.mean(0)
    by_size = sized - sized.mean(0) - sized.mean(1, keepdims=True) + sized.mean((0, 1)) if sized.size else sized
    return np.concatenate([by_offset.reshape(-1, bands), by_size.reshape(-1, bands)])


def _tested(
    autoencoder: Autoencoder,
    image: UInt8[np.ndarray, "h w 3"],
    region: Box,
    geometry: Geometry,
    config: AlignmentConfig,
) -> tuple[float, float]:
    """Alignment and error of the image under a geometry, without the region it was found on."""
    factor = autoencoder.factor
    upright = geometry.upright(image, factor)
    tiles = _tiles(upright, _region_upright(image, region, geometry), factor, config)
    # Side by side in one image, which `align` cuts into these very tiles again.
    side_by_side = np.concatenate([tile.of(upright) for tile in tiles], axis=1)
    found = _align(autoencoder, prepare(side_by_side), config=config)
    return float(found.alignment[0]), float(found.error[0])


_align = jit_network(align, static_argnames="config")


def _region_upright(image: UInt8[np.ndarray, "h w 3"], region: Box, geometry: Geometry) -> Box:
    """The pixels of `geometry.upright` that the region had a part in."""
    box = geometry.box_turned_back(region, *image.shape[:2])
    now = geometry.seen_upright
    down, right = (a / b for a, b in zip(geometry.size or now, now, strict=True))
    (y, x), top, left = geometry.offset, int(box.top * down), int(box.left * right)
    bottom, east = int(np.ceil((box.top + box.height) * down)), int(np.ceil((box.left + box.width) * right))
    return Box(top - y, left - x, bottom - top, east - left)


def _tiles(upright: UInt8[np.ndarray, "h w 3"], region: Box, factor: int, config: AlignmentConfig) -> list[Box]:
    """The tiles of the test: spread over the image, on the grid, off the region; those with most blocks that say
    something, of equal ones the nearest to the middle. Neighbours overlap by a margin at most, and share no block."""
    height, width = upright.shape[:2]
    half = (min(height, width) + factor) // 2
    grid = Grid.of(config, factor, half)
    side = grid.tile if grid else half // factor * factor  # without one `align` says nothing of them
    tops, lefts = (_spread(whole, side, factor) for whole in (height, width))
    boxes = [box for y in tops for x in lefts if not (box := Box(y, x, side, side)).meets(region)]
    telling = telling_blocks(upright, BLOCK, config)

    def order(box: Box) -> tuple[int, float]:
        off = (box.top + (side - height) / 2) ** 2 + (box.left + (side - width) / 2) ** 2
        return -_count(telling, box), off

    return sorted(boxes, key=order)[: config.tiles]


def _spread(whole: int, side: int, factor: int) -> list[int]:
    count = 1 + (whole - side) // (side - factor)
    return [int(at) // factor * factor for at in np.linspace(0, whole - side, count)]

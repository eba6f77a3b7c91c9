"""The map on composites: part of a picture is a model's, the rest is not.

    python -m benchmarks.composites FOLDER --data DATA [--models mini-vq,mini-kl16] [-n 40]

FOLDER/MODEL/*.png are each model's own images, of 128 pixels. "generated region": an own image, less its border, on its
own grid in the middle of a photograph of 256 pixels (half 1 of `benchmarks.sources`). "photograph region": the middle
48 pixels of an own image are a photograph's. Edges are feathered over 4 pixels; each also after JPEG 75. The score of a
pixel is its block's in `alignment_map(standardized=True)`, or the mean over the 3×3 blocks around; pixels that no block
covers, or of which nothing is said, are left out, and their share is shown. AUC over the pixels of each image, the mean
over images with a 95 % bootstrap interval; and the share of pixels wholly inside and wholly outside whose block stands
below -2, which tells the null's level.
"""

from __future__ import annotations

import argparse
from functools import cache
from itertools import chain, islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from aedr_jax import alignment_map, load_autoencoder, prepare, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.images.tiles import AlignmentConfig
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.study.metrics import area_under_curve, interval
from benchmarks.matrix import MODELS
from benchmarks.sources import KINDS, Pixels, half_of, middle, processed

FEATHER = 4
BORDER = 8  # of an own image, which the feather would mix anyway
LIMIT = -2.0
AFTER = ("none", "jpeg75")


def composites(own: Pixels, photograph: Pixels) -> dict[str, tuple[Pixels, np.ndarray]]:
    """Each kind's pixels, and where they are the model's (between 0 and 1 at the feathered edge)."""
    side = own.shape[0]
    large, start = middle(photograph, 2 * side), side // 2
    region = np.zeros(large.shape[:2])
    region[start + BORDER : start + side - BORDER, start + BORDER : start + side - BORDER] = 1
    within = large.copy()
    within[start : start + side, start : start + side] = own
    hole = np.zeros(own.shape[:2])
    hole[40:88, 40:88] = 1
    return {
        "generated region": _blend(large, within, region),
        "photograph region": _blend(own, middle(photograph, side), hole, inside=False),
    }


def _blend(outer: Pixels, inner: Pixels, region: np.ndarray, *, inside: bool = True) -> tuple[Pixels, np.ndarray]:
    soft = ndimage.uniform_filter(region, FEATHER)[..., None]
    mixed = (outer * (1 - soft) + inner * soft).round().astype(np.uint8)
    return mixed, soft[..., 0] if inside else 1 - soft[..., 0]


@cache
def mapping(side: int):
    config = AlignmentConfig(tile=side)  # one tile, so that no block is lost between tiles
    return jax.jit(lambda autoencoder, images: alignment_map(autoencoder, images, config=config, standardized=True))


def smoothed(blocks: np.ndarray) -> np.ndarray:
    """Means over the 3×3 blocks around each, of those that say something."""
    said = np.isfinite(blocks)
    sums, counts = (
        ndimage.uniform_filter(values, 3, mode="constant") for values in (np.nan_to_num(blocks), said.astype(float))
    )
    return np.where(said, sums / np.maximum(counts, 1e-9), np.nan)


def of_pixels(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The map's blocks as pixels; NaN where none is."""
    config = AlignmentConfig()
    found = np.full(shape, np.nan)
    large = np.kron(blocks, np.ones((config.block, config.block)))
    found[config.margin : config.margin + large.shape[0], config.margin : config.margin + large.shape[1]] = large
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("-n", type=int, default=40)
    args = parser.parse_args()
    sources = chain(KINDS["photographs"](args.data), KINDS["JPEG files"](args.data))
    photographs = list(islice((image for group, image in sources if half_of(group) == 1), args.n))
    rows = []
    for model in args.models:
        autoencoder = load_autoencoder(model)
        files = sorted((args.folder / model).glob("*.png"))[: args.n]
        seen: dict[tuple[str, str], list[list[float]]] = {}
        for i, (file, photograph) in enumerate(zip(tqdm(files, desc=model, disable=None), photographs, strict=False)):
            for kind, (pixels, truth) in composites(read_image(file), photograph).items():
                for process in AFTER:
                    image = processed(pixels, process, i)
                    blocks = np.asarray(mapping(len(image))(autoencoder, jnp.asarray(prepare(image))))[0]
                    scores = of_pixels(blocks, truth.shape)
                    wider = of_pixels(smoothed(blocks), truth.shape)
                    said = np.isfinite(scores)
                    inside, outside = said & (truth > 0.99), said & (truth < 0.01)
                    both = inside.any() and outside.any()
                    areas = [area_under_curve(of[inside], of[outside]) if both else 0.5 for of in (scores, wider)]
                    shares = [(scores[where] < LIMIT).mean() if where.any() else np.nan for where in (inside, outside)]
                    seen.setdefault((kind, process), []).append([*areas, *shares, 1 - said.mean()])
        for (kind, process), of in seen.items():
            values = np.array(of)
            rng = np.random.default_rng(0)
            low, high = interval([values[rng.integers(len(of), size=len(of)), 0].mean() for _ in range(1000)])
            means = [f"{mean:.3f}" for mean in np.nanmean(values[:, 1:], axis=0)]
            rows.append(
                [model, kind, process, f"{values[:, 0].mean():.3f} [{low:.3f}, {high:.3f}]", *means, str(len(of))]
            )
    header = [
        "model",
        "composite",
        "after",
        "pixel AUC",
        "of 3×3 blocks",
        "inside below -2",
        "outside below -2",
        "nothing said",
        "n",
    ]
    print(to_markdown(header, rows))


if __name__ == "__main__":
    main()

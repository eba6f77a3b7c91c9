"""Does the paper's ratio add anything to the alignment? Both on the same tiles and bands, and the paper's own signal.

    python -m benchmarks.ratios measure --data DATA --own FOLDER --work RATIOS [--half 0]
    python -m benchmarks.ratios print --work RATIOS --null WORK

FOLDER is that of `python -m benchmarks.null measure`, and WORK its result: the same images in the same order. `measure`
adds the second pass: with e'_b the block loss of A(A(x)) − A(x) in a band, the ratio of a block is log e_b − log e'_b,
about 0 for own images and above for foreign ones. Kept in RATIOS/HALF/MODEL/KIND.npz; what is there is not made again.

`print` judges candidates as `benchmarks.choose` does, by one limit for all models, the lowest of their 1 % quantiles of
half 0's foreign images: the alignment as it is, the ratio alone, the sum of both in each block, each over the error of
its blocks (and controls, where it has them), and AEDR's signal, texture and all, of the whole image. The alignment is
without the veto of turned copies, which came later.
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import SignalConfig, load_autoencoder, measure
from aedr_jax.autoencoders.names import split_list
from aedr_jax.images.tiles import FEWEST, AlignmentConfig, Grid
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import FLOOR_OF_ERROR, box_mean
from benchmarks.batches import keep_columns
from benchmarks.choose import RATE, blocks, halves
from benchmarks.matrix import MODELS, related
from benchmarks.null import FOR_OWN, MOST, file_name
from benchmarks.sources import foreign, own

KINDS = (
    "photographs",
    "JPEG files",
    "JPEG 95 off the grid",
    "JPEG 50",
    "enlarged",
    "other generators",
    "noise",
    "screens",
)
CONFIG = AlignmentConfig()
COLUMNS = ("losses", "signal")  # what `second` gives


@jax.jit
def second(autoencoder, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each image e'_b [n, bands, blocks], of the unmoved window of the one tile that it is, and AEDR's signal."""
    grid = Grid.of(CONFIG, autoencoder.factor, images.shape[1])
    top, left = grid.corners(*images.shape[1:3])[0]
    reconstruction = images[:, top : top + grid.window, left : left + grid.window]
    for _ in range(2):
        before = reconstruction
        reconstruction = jnp.clip(autoencoder.decode(autoencoder.encode(before)), -1.0, 1.0)
    residual, inside = reconstruction - before, slice(grid.margin, grid.margin + grid.inner)
    detail = [jnp.square(box_mean(residual, a) - box_mean(residual, b)).mean(-1) for a, b in CONFIG.bands]
    detail = jnp.stack(detail, axis=1)[..., inside, inside]
    side = grid.inner // grid.block
    losses = detail.reshape(*detail.shape[:2], side, grid.block, side, grid.block).mean((3, 5))
    return losses.reshape(*losses.shape[:2], -1), measure(autoencoder, images, config=SignalConfig.paper()).signal


@cache
def parts(null: Path, work: Path, at: str) -> tuple[np.ndarray, ...]:
    """Differences and ratios [n, bands, blocks], what the controls vary by [n, bands], which blocks tell [n, blocks],
    and AEDR's signal [n], of one file."""
    logs, telling = blocks(null / at)
    with np.load(work / at) as table:
        again, signal = np.log(table["losses"].astype(np.float64) + CONFIG.floor), table["signal"].astype(np.float64)
    controls = np.einsum("nb,nfvb->nfv", telling, logs[:, :, 1:]) / np.maximum(telling.sum(1), 2.0)[:, None, None]
    differences = logs[:, :, 0] - logs[:, :, 1:].mean(2)
    return differences, logs[:, :, 0] - again, controls.var(2, ddof=1) / controls.shape[2], telling, signal


def standing(values: np.ndarray, controls: np.ndarray | float, telling: np.ndarray) -> np.ndarray:
    """Mean over the blocks that tell, over its error, in the band where that is lowest; 0 where nothing is said."""
    count = telling.sum(1)
    safe = np.maximum(count, 2.0)[:, None]
    mean = np.einsum("nb,nfb->nf", telling, values) / safe
    spread = np.einsum("nb,nfb->nf", telling, np.square(values - mean[..., None])) / (safe - 1.0) / safe
    enough = count >= max(FEWEST, CONFIG.least_blocks * telling.shape[1])
    return np.where(enough, (mean / np.sqrt(spread + controls + FLOOR_OF_ERROR**2)).min(1), 0.0)


def candidates(of: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """Scores [n], small where an image belongs. The ratio is about 0 where it does, so foreign ones lie above."""
    differences, ratio, controls, telling, signal = of
    said = telling.sum(1) >= FEWEST
    mean = np.einsum("nb,nfb->nf", telling, ratio) / np.maximum(telling.sum(1), 1.0)[:, None]
    return {
        "alignment": standing(differences, controls, telling),
        "alignment + ratio / 4": standing(differences + ratio / 4, controls, telling),
        "alignment + ratio": standing(differences + ratio, controls, telling),
        "ratio over its error": np.where(said, standing(ratio, 0.0, telling), np.inf),
        "ratio, fine": np.where(said, mean[:, 0], np.inf),
        "ratio, wide": np.where(said, mean[:, 1], np.inf),
        "AEDR's signal": np.nan_to_num(signal, nan=np.inf),
    }


def score(null: Path, work: Path, name: str, path: Path) -> np.ndarray:
    """A candidate's scores of the images of one of WORK's files."""
    return candidates(parts(null, work, str(path.relative_to(work))))[name]


def report(null: Path, work: Path) -> None:
    rows = []
    for name in candidates(parts(null, work, f"0/{MODELS[0]}/{file_name(KINDS[0])}")):
        candidate = partial(score, null, work, name)
        (strange, ours), (strange_1, ours_1) = (halves(work, half, candidate) for half in (0, 1))
        quantiles = [np.quantile(values, RATE) for values in strange.values()]
        limit = min(quantiles)
        chosen, reported = (
            np.array([(values < limit).mean() for of in found.values() for values in of.values()])
            for found in (ours, ours_1)
        )
        false = [(values < limit).mean() for values in strange_1.values()]
        spread = f"{min(quantiles):.2f} to {max(quantiles):.2f}"
        shares = [f"{chosen.mean():.3f}", f"{reported.mean():.3f}", f"{reported.min():.2f}"]
        rows.append([name, spread, *shares, f"{max(false):.4f}", f"{np.mean(false):.4f}"])
    header = ["candidate", "1 % quantiles, by model", "own, half 0", "own, half 1", "worst cell"]
    print(to_markdown([*header, "foreign, worst model", "foreign, mean"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--own", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--null", type=Path)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("--half", type=int, choices=(0, 1), default=0)
    args = parser.parse_args()
    if args.step == "print":
        report(args.null, args.work)
        return
    for model in args.models:
        autoencoder, folder = load_autoencoder(model), args.work / str(args.half) / model
        for kind in tqdm(KINDS, desc=model, disable=None):
            images = foreign(kind, args.half, args.data, most=MOST)
            keep_columns(folder / file_name(kind), COLUMNS, second, autoencoder, images)
        for other in MODELS:
            for process in FOR_OWN if other == model else () if related(model, other) else FOR_OWN[:1]:
                images = own(other, args.own, process, most=MOST)
                keep_columns(folder / f"of-{other}-{process}.npz", COLUMNS, second, autoencoder, images)


if __name__ == "__main__":
    main()

"""Which alignment: bands, controls, mean over blocks and scale, compared on one half and reported on the other.

    python -m benchmarks.choose --work WORK

All without the veto of turned copies, which came later. WORK holds the block losses of `python -m benchmarks.null
measure`, both halves. A candidate's limit is the lowest, over the models, of the 1 % quantile of half 0's foreign
images: so that one limit serves all models. It is judged by the share of own images below the limit, over models and
what was done to the images (`null.FOR_OWN`), in half 0 to choose and in half 1 to report; and by how even the tails
are, the ratio of the models' 1 % quantiles that lie nearest and farthest. In half 1 the share of foreign images below
half 0's limit is reported for the worst model, and the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from aedr_jax.images.tiles import AlignmentConfig
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import FLOOR_OF_ERROR
from benchmarks.matrix import MODELS
from benchmarks.null import CONTROLS, is_foreign, maker

CONFIG = AlignmentConfig()
BANDS = {"fine": [0], "wide": [1], "both": [0, 1]}
MEANS = ("of logs", "log of", "median of logs")
SCALES = ("none", "blocks", "blocks, controls", "blocks, controls, floor .02")
RATE = 0.01


@cache
def blocks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as table:
        return np.log(table["losses"].astype(np.float64) + CONFIG.floor), table["telling"].astype(np.float64)


@np.errstate(divide="ignore", invalid="ignore")
def score(path: Path, bands: str, controls: str, mean: str, scale: str) -> np.ndarray:
    """A candidate's score of each image of a file, small where it belongs; 0 where nothing can be said."""
    logs, weight = blocks(path)
    logs = logs[:, BANDS[bands]]
    count = weight.sum(1)
    others = logs[:, :, CONTROLS[controls][0]]
    safe = np.maximum(count, 2.0)[:, None]
    differences = logs[:, :, 0] - others.mean(2)
    average = np.einsum("nb,nfb->nf", weight, differences) / safe
    of_controls = np.einsum("nb,nfvb->nfv", weight, others) / safe[..., None]
    if mean == "of logs":
        found = average
    elif mean == "median of logs":
        told = np.where(weight[:, None] > 0, differences, np.nan)
        found = np.nanmedian(np.where(count[:, None, None] > 0, told, 0.0), axis=2)
    else:  # of an image of which nothing is said the logarithm is of 0; it scores 0 in the end
        whole = np.log(np.einsum("nb,nfvb->nfv", weight, np.exp(logs[:, :, [0]])) / safe[..., None])[..., 0]
        found = whole - np.log(np.einsum("nb,nfvb->nfv", weight, np.exp(others)) / safe[..., None]).mean(2)
    square = np.zeros_like(found) + (scale == "none")
    if scale != "none":
        spread = np.einsum("nb,nfb->nf", weight, np.square(differences - average[..., None]))
        square = spread / (safe - 1.0) / safe + FLOOR_OF_ERROR**2
    if scale.startswith("blocks, controls"):
        square = square + of_controls.var(2, ddof=1) / others.shape[2]
    if scale.endswith("floor .02"):
        square = square + 0.02**2
    enough = count >= max(4, CONFIG.least_blocks * weight.shape[1])
    return np.where(enough, (found / np.sqrt(square)).min(1), 0.0)


def halves(work: Path, half: int, candidate: Callable[[Path], np.ndarray]) -> tuple[dict, dict]:
    """Of each model the scores of foreign images, and those of its own by what was done to them."""
    foreign, own = {}, {}
    for model in MODELS:
        files = sorted((work / str(half) / model).glob("*.npz"))
        foreign[model] = np.concatenate([candidate(file) for file in files if is_foreign(model, file.stem)])
        own[model] = {file.stem: candidate(file) for file in files if maker(file.stem) == model}
    return foreign, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    rows = []
    for names in product(BANDS, CONTROLS, MEANS, SCALES):
        (foreign, own), (foreign_1, own_1) = (
            halves(work, half, lambda path, names=names: score(path, *names)) for half in (0, 1)
        )
        quantiles = [np.quantile(values, RATE) for values in foreign.values()]
        limit = min(quantiles)
        accepted, reported = (
            np.mean([(values < limit).mean() for of in found.values() for values in of.values()])
            for found in (own, own_1)
        )
        false = [(values < limit).mean() for values in foreign_1.values()]
        worst = min((v < limit).mean() for of in own_1.values() for v in of.values())
        tails = [f"{limit:.2f}", f"{max(quantiles) / limit:.2f}"]
        shares = [f"{accepted:.3f}", f"{reported:.3f}", f"{worst:.2f}", f"{max(false):.4f}", f"{np.mean(false):.4f}"]
        rows.append((accepted, [*names, *tails, *shares]))
    rows.sort(key=lambda row: -row[0])
    header = ["bands", "controls", "mean", "scale", "limit", "evenness", "own, half 0", "own, half 1", "worst cell"]
    print(to_markdown([*header, "foreign, worst model", "foreign, mean"], [row for _, row in rows]))


if __name__ == "__main__":
    main()

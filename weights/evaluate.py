"""How well a miniature autoencoder's own images are told from photographs of subjects that it never saw.

    python weights/evaluate.py mini-kl4-a --photos DIR --work WORK

Own images: made by `samples.py` from the test photographs, seed 2, which played no part in training or calibration.
Photographs: three crops of each test photograph (held-out dreambooth subjects, Kodak, Debian). Every image is an 8-bit
PNG of the same size, read back from disk.

AUC of the default signal, of the paper's, and of homogeneity and first loss alone: own images and photographs differ
in content as well, and what content alone achieves must stand beside. Intervals: 95 % percentile bootstrap over
clusters, which are photographs (a photograph's crops, and the own images whose first parent it is).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from aedr_jax import __version__
from aedr_jax.autoencoders.registry import calibration_file
from aedr_jax.calibration import Calibration
from aedr_jax.scoring import Row, Scorer, load_candidate
from aedr_jax.sources import find_images
from photos import random_crop, subjects_split
from samples import SIDE, write_samples

CROPS = 3
OWN = 200
SEED = 2
REPEATS = 1000


def write_crops(photos: Path, out: Path) -> None:
    """Three crops of each test photograph, `NUMBER_PHOTOGRAPH.png`."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(file for file, part in subjects_split(photos).items() if part == "test")
    for n, file in enumerate(files):
        rng = np.random.default_rng([SEED, n])
        for i in range(CROPS):
            Image.fromarray(random_crop(photos / file, SIDE, rng)).save(out / f"{i}_{Path(file).stem}.png")


def score(model: str, preset: str, folder: Path) -> list[Row]:
    scorer = Scorer([load_candidate(model)], preset=preset, batch_size=8)
    items = find_images([folder])
    with tqdm(total=len(items), desc=f"{folder.name} {preset}", disable=None) as bar:
        return list(scorer.score(items, on_progress=bar.update))


def cluster(row: Row) -> str:
    return Path(row.path).stem.split("_", 1)[1]


def auc(own: np.ndarray, other: np.ndarray) -> float:
    """The share of (own, other) pairs in which the other image has the larger value."""
    truth = np.r_[np.zeros(len(own)), np.ones(len(other))]
    return float(roc_auc_score(truth, np.r_[own, other]))


def bootstrap_auc(own: list[Row], other: list[Row], values: dict[str, float]) -> tuple[float, float, float]:
    """AUC with a 95 % interval; clusters of both sides are drawn with replacement."""
    sides = []
    for rows in (own, other):
        groups: dict[str, list[float]] = {}
        for row in rows:
            groups.setdefault(cluster(row), []).append(values[row.path])
        sides.append([np.array(group) for group in groups.values()])
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(REPEATS):
        picks = [[groups[i] for i in rng.integers(len(groups), size=len(groups))] for groups in sides]
        drawn.append(auc(np.concatenate(picks[0]), np.concatenate(picks[1])))
    point = auc(*(np.concatenate(groups) for groups in sides))
    return point, *map(float, np.percentile(drawn, [2.5, 97.5]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a registry name or a folder")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the images")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    write_samples(args.model, args.photos, "test", OWN, SEED, args.work / "own")
    write_crops(args.photos, args.work / "photographs")

    rows = {
        p: [score(args.model, p, args.work / side) for side in ("own", "photographs")] for p in ("default", "paper")
    }
    own, other = rows["default"]
    columns = {
        "default signal": {row.path: row.signal for row in own + other},
        "paper's signal": {row.path: row.signal for side in rows["paper"] for row in side},
        "homogeneity alone": {row.path: row.homogeneity for row in own + other},
        "first loss alone": {row.path: row.first_loss for row in own + other},
    }
    counts = {side: (len(r), len(set(map(cluster, r)))) for side, r in (("own", own), ("photographs", other))}
    print(f"{args.model}, aedr_jax {__version__}, {SIDE} px")
    for side, (images, clusters) in counts.items():
        print(f"{side}: {images} images of {clusters} photographs")
    figures = {name: bootstrap_auc(own, other, values) for name, values in columns.items()}
    for name, (point, low, high) in figures.items():
        print(f"AUC {name:18s} {point:.3f}  [{low:.3f}, {high:.3f}]")
    medians = [float(np.median([row.ratio for row in side])) for side in (own, other)]
    print(f"median ratio: own {medians[0]:.2f}, photographs {medians[1]:.2f}")
    psnr = [10 * np.log10(4 / row.first_loss) for row in other if "kodak" in row.path]
    print(f"PSNR(x, AE x) on Kodak crops: median {np.median(psnr):.1f} dB")
    if file := calibration_file(args.model):
        calibration = Calibration.load(file)
        accepted = [float(np.mean([row.signal < calibration.threshold for row in side])) for side in (own, other)]
        print(f"at the shipped threshold: {accepted[0]:.3f} of own images accepted, {accepted[1]:.3f} of photographs")
    if args.json:
        args.json.write_text(json.dumps({"counts": counts, "auc": figures, "median_ratio": medians}, indent=1) + "\n")


if __name__ == "__main__":
    main()

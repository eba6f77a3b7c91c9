"""What compression, resizing, cropping, blur and noise do to the verdict, with nothing calibrated for any of it.

    python -m benchmarks.robustness measure FOLDER --data DATA --work WORK [--models mini-vq,mini-kl16]
        [--conditions jpeg50,jpeg30]
    python -m benchmarks.robustness print --work WORK

FOLDER/MODEL/*.png are each model's own images, of seeds that chose nothing. Of each model 100 are processed and
measured under each of `CONDITIONS`, and so are 50 photographs of half 1 (`benchmarks.sources`) and 50 images of another
model, which shares no encoder with it. Alignments are kept in WORK/MODEL/CONDITION.npz; an interrupted run goes on.
Noise and the place of a crop follow from an image's number. Intervals: 95 %, Clopper-Pearson.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from aedr_jax import Null, load_autoencoder, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.images.pixels import fit_crop
from aedr_jax.images.processing import GRID
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import align
from benchmarks.batches import in_batches, keep_arrays, of_one_version
from benchmarks.matrix import MODELS, related, share
from benchmarks.sources import CHAIN, Pixels, foreign, processed

COUNT = 100
KINDS = ("own", "foreign")
RATES = (0.05, 0.01)  # a foreign p-value's bound: of one candidate at the default, and of the smallest of five
FIRST = ("none", "jpeg50", "jpeg30", CHAIN, "jpeg70", "webp80", "noise0.02", "blur1", "crop0.8")
CONDITIONS = tuple(dict.fromkeys((*FIRST, *map(str, GRID), "resize0.5+back", "resize2+back")))


@cache
def aligning():
    return jax.jit(align)


def measured(autoencoder, images: Iterable[Pixels]) -> dict[str, np.ndarray]:
    """alignment and error of each image, cut right and bottom to a multiple of the factor."""
    return in_batches(aligning(), autoencoder, (fit_crop(image, autoencoder.factor) for image in images))._asdict()


def made_by(model: str, folder: Path, most: int) -> Iterator[Pixels]:
    return (read_image(path) for path in sorted((folder / model).glob("*.png"))[:most])


def another(model: str) -> str:
    """The next model that shares no encoder with it."""
    start = MODELS.index(model)
    return next(name for name in (*MODELS[start:], *MODELS[:start]) if not related(model, name))


def measure(model: str, condition: str, folder: Path, data: Path, work: Path) -> None:
    out = work / model / f"{condition}.npz"
    if out.exists():
        return
    photographs = chain(*(foreign(kind, 1, data, most=COUNT // 4) for kind in ("photographs", "JPEG files")))
    others = chain(photographs, made_by(another(model), folder, COUNT // 2))
    autoencoder = load_autoencoder(model)
    found = {}
    for what, images in zip(KINDS, (made_by(model, folder, COUNT), others), strict=True):
        after = (processed(image, condition, i) for i, image in enumerate(images))
        found |= {f"{what}_{name}": values for name, values in measured(autoencoder, after).items()}
    keep_arrays(out, **found)


def report(work: Path, models: list[str]) -> None:
    null = Null.shipped()
    for rate in RATES:
        rows, counts = [], set()
        for condition in [c for c in CONDITIONS if all((work / m / f"{c}.npz").exists() for m in models)]:
            own, others, silent = [], [], []
            for model in models:
                with np.load(work / model / f"{condition}.npz") as table:
                    p, q = (np.asarray(null.p_value(table[f"{w}_alignment"] / table[f"{w}_error"])) for w in KINDS)
                counts.add(len(p))
                own.append(p <= rate)
                others.append(q <= rate)
                silent.append(np.isnan(p).mean())
            cells = [f"{accepted.mean():.2f}" for accepted in own]
            means = [f"{np.mean(own):.3f}", share(np.concatenate(others)), f"{np.mean(silent):.3f}"]
            rows.append([condition, *cells, *means])
        print(f"**own images accepted, foreign p <= {rate:g}; n = {', '.join(map(str, sorted(counts)))} a cell**\n")
        print(to_markdown(["condition", *models, "mean", "foreign accepted, pooled", "nothing said of own"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument(
        "--conditions", type=split_list, default=list(CONDITIONS), help="A,B: only these (default: all)"
    )
    args = parser.parse_args()
    of_one_version(args.work)
    if args.step == "print":
        report(args.work, args.models)
        return
    for condition in tqdm(args.conditions, disable=None):
        for model in args.models:
            measure(model, condition, args.folder, args.data, args.work)


if __name__ == "__main__":
    main()

"""The null of the alignment: what images that have nothing to do with an autoencoder score, and how level it is.

    python -m benchmarks.null measure --data DATA --own FOLDER --work WORK [--models mini-vq,mini-kl16] [--half 0]
    python -m benchmarks.null fit --work WORK --out FILE
    python -m benchmarks.null print --work WORK

`measure` keeps the losses of every block, band and view, of foreign images of every kind (`benchmarks.sources`) and of
other models' own images (FOLDER/MODEL/*.png), in WORK/HALF/MODEL/KIND.npz; an interrupted run goes on where it stopped.
`fit` makes the reference that ships of half 0. `print` has the level of half 1 by model and kind.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import load_autoencoder, prepare
from aedr_jax.autoencoders.names import split_list
from aedr_jax.files import whole_file
from aedr_jax.signal.alignment import block_losses
from benchmarks.matrix import MODELS
from benchmarks.sources import CHAIN, KINDS, Pixels, foreign, own

MOST = 50  # images of a kind, a half and a model
FOR_OWN = ("none", "jpeg50", CHAIN)  # other models' own images take part as these


@cache
def measuring():
    return jax.jit(block_losses)


def measured(autoencoder, images: Iterable[Pixels]) -> dict[str, np.ndarray]:
    """`losses` [n, bands, views, blocks] and `telling` [n, blocks] of images of one shape."""
    found = [measuring()(autoencoder, jnp.asarray(prepare(image))) for image in images]
    return {
        "losses": np.concatenate([losses for losses, _ in found]),
        "telling": np.concatenate([telling for _, telling in found]),
    }


def keep(path: Path, autoencoder, images: Iterable[Pixels]) -> None:
    """Write a file of `measured`, whole or not at all; what is there already is not made again."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    table = measured(autoencoder, images)
    with whole_file(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **table)


def file_name(kind: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", kind.lower()) + ".npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure",))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--own", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", help="A,B: only these (default: all)")
    parser.add_argument("--half", type=int, choices=(0, 1), default=0)
    args = parser.parse_args()
    models = split_list(args.models) if args.models else list(MODELS)
    for model in models:
        autoencoder = load_autoencoder(model)
        folder = args.work / str(args.half) / model
        for kind in tqdm(KINDS, desc=model, disable=None):
            keep(folder / file_name(kind), autoencoder, foreign(kind, args.half, args.data, most=MOST))
        for other in MODELS:
            for process in FOR_OWN:
                keep(folder / f"of-{other}-{process}.npz", autoencoder, own(other, args.own, process, most=MOST))


if __name__ == "__main__":
    main()

"""How far the rivals that descend get in how many steps: the loss curves behind docs/results.md.

    python benchmarks/descent.py IMAGES --model mini-kl4-a --count 5 --steps 1500
    python benchmarks/descent.py IMAGES --method latenttracer --steps 100 --processing resize2

The first `--count` images of a folder, as they are or processed; prints the smallest loss up to each number of steps as
a Markdown table.
"""

from __future__ import annotations

import argparse
from functools import partial

import jax
import numpy as np

import aedr_jax as aedr
from aedr_jax.images.pixels import fit_crop
from aedr_jax.images.processing import Processing
from aedr_jax.inputs.sources import find_images
from aedr_jax.rivals import RIVALS
from aedr_jax.scoring.tables import to_markdown

DESCENTS = {name: rival.losses for name, rival in RIVALS.items() if rival.losses}
SHOWN = (1, 10, 30, 100, 200, 300, 600, 1000, 1500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder; images of one size")
    parser.add_argument("--model", default="mini-kl4-a")
    parser.add_argument("--method", choices=DESCENTS, default="ronan")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--processing", default="none", help="first, as in images.processing: resize2, jpeg70, ...")
    args = parser.parse_args()
    autoencoder = aedr.load_autoencoder(args.model)
    items = find_images([args.images])[: args.count]
    processing = Processing.parse(args.processing)
    pixels = np.stack([fit_crop(processing.apply(aedr.read_image(item.path)), autoencoder.factor) for item in items])
    images = pixels.astype(np.float32) / 127.5 - 1.0
    losses = jax.jit(partial(DESCENTS[args.method], steps=args.steps))(autoencoder, images)
    smallest = np.minimum.accumulate(np.asarray(losses), axis=0)
    steps = [step for step in SHOWN if step < args.steps] + [args.steps]
    rows = [
        [item.id, *(f"{curve[step - 1]:.2g}" for step in steps)] for item, curve in zip(items, smallest.T, strict=True)
    ]
    print(to_markdown(["image", *(f"{step} steps" for step in steps)], rows), end="")


if __name__ == "__main__":
    main()

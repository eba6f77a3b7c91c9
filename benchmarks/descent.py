"""How far the rivals that descend get in how many steps: the loss curves behind docs/results.md.

    python benchmarks/descent.py IMAGES --model mini-kl4-a --count 5 --steps 1500
    python benchmarks/descent.py IMAGES --method latenttracer --steps 100 --processing resize2

The first `--count` images of a folder, as they are or processed; prints the smallest loss up to each number of steps as
a Markdown table.
"""

from __future__ import annotations

import argparse

import numpy as np

import aedr_jax as aedr
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import find_images
from aedr_jax.rivals import latenttracer_losses, ronan_losses
from aedr_jax.scoring.engine import Engine
from aedr_jax.scoring.tables import to_markdown

DESCENTS = {"latenttracer": latenttracer_losses, "ronan": ronan_losses}
SHOWN = (1, 10, 30, 100, 200, 300, 600, 1000, 1500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder")
    parser.add_argument("--model", default="mini-kl4-a")
    parser.add_argument("--method", choices=DESCENTS, default="ronan")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--processing", default="none", help="first, as in images.processing: resize2, jpeg70, ...")
    args = parser.parse_args()
    autoencoder = aedr.load_autoencoder(args.model)
    engine = Engine(
        lambda autoencoder, batch: DESCENTS[args.method](autoencoder, batch.images, steps=args.steps).T,
        [autoencoder],
        batch_size=args.count,
    )
    steps = [step for step in SHOWN if step < args.steps] + [args.steps]
    stream = map(Decoder(autoencoder.factor, processing=args.processing), find_images([args.images])[: args.count])
    rows = []
    for measured in engine.measured(stream):
        for image, losses in measured.images():
            smallest = np.minimum.accumulate(losses)
            rows.append([image.id, *(f"{smallest[step - 1]:.2g}" for step in steps)])
    print(to_markdown(["image", *(f"{step} steps" for step in steps)], rows), end="")


if __name__ == "__main__":
    main()

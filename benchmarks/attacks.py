"""How a verdict is misled: laundering through an autoencoder, and white-box perturbations of one to four grey levels.

    python -m benchmarks.attacks --work WORK [--models mini-kl4-a,mini-vq] [--count 16]

Reads the images of `python -m benchmarks.matrix generate`. Every figure is a share of images that the shipped
calibration of the model accepts; attacks are on its own score (`Calibration.score`), 20 steps of projected signed
gradients.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import Calibration, load_autoencoder, measure, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import calibration_file
from aedr_jax.decision.intervals import share_interval
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.study.attacks import LEVEL, launder, perturb
from benchmarks.matrix import MODELS, print_table

BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS), help="A,B (default: all)")
    parser.add_argument("--count", type=int, default=16)
    args = parser.parse_args()
    rows = []
    for model in tqdm(split_list(args.models), disable=None):
        rows += report(model, args.work, args.count)
    print_table("Accepted as the model's own [95 %]", ["model", "images", "what was done", "accepted"], rows)


def images_of(source: str, work: Path, count: int) -> jax.Array:
    files = sorted((work / "images" / source).glob("*.png"))[:count]
    return jnp.asarray(np.stack([read_image(file) for file in files]), jnp.float32) / 127.5 - 1


def report(model: str, work: Path, count: int) -> list[list[str]]:
    autoencoder, calibration = load_autoencoder(model), Calibration.load(calibration_file(model))
    own, photographs = images_of(model, work, count), images_of(PHOTOGRAPHS, work, count)
    scores = jax.jit(lambda ae, x: calibration.score(measure(ae, x)))
    rows = []

    def row(images: str, done: str, changed: jax.Array) -> None:
        batches = [scores(autoencoder, changed[i : i + BATCH]) for i in range(0, count, BATCH)]
        accepted = int((np.concatenate([np.asarray(b) for b in batches]) < calibration.threshold).sum())
        low, high = share_interval(accepted, count)
        rows.append([model, images, done, f"{accepted / count:.2f} [{low:.2f}, {high:.2f}]"])

    def in_batches(change, images: jax.Array) -> jax.Array:
        return jnp.concatenate([change(images[i : i + BATCH]) for i in range(0, count, BATCH)])

    row("own", "nothing", own)
    row("photographs", "nothing", photographs)
    passed = jax.jit(launder)
    row("photographs", "one pass through this model", in_batches(partial(passed, autoencoder), photographs))
    foreign = next(name for name in MODELS if name != model)
    row("own", f"one pass through {foreign}", in_batches(partial(passed, load_autoencoder(foreign)), own))
    for levels in (1, 2, 4):
        for images, name, target in ((own, "own", "reject"), (photographs, "photographs", "accept")):
            attack = jax.jit(
                partial(perturb, statistic=calibration.score, target=target, epsilon=levels * LEVEL, steps=20)
            )
            row(
                name,
                f"{target}, {levels} grey level{'s' * (levels > 1)}",
                in_batches(partial(attack, with_fast_gradients(autoencoder)), images),
            )
    return rows


if __name__ == "__main__":
    main()

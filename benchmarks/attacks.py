"""How a verdict is misled: laundering through an autoencoder, and white-box perturbations of one to four grey levels.

    python -m benchmarks.attacks --work WORK [--models mini-kl4-a,mini-vq] [--count 16]

Reads the images of `python -m benchmarks.matrix generate`. Every figure is a share of images that the model accepts at
a foreign p-value of .05, with nothing calibrated; attacks are on what decides, alignment over its error
(`Measurement.standing`), 20 steps of projected signed gradients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import Measurement, Null, load_autoencoder, measure
from aedr_jax.autoencoders.names import split_list
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.scoring.engine import Engine
from aedr_jax.study.attacks import LEVEL, launder, perturb
from benchmarks.matrix import MODELS, RATE, items_of, print_table, related, share

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


def standing(measured: Measurement) -> jax.Array:
    return jnp.asarray(measured.standing)


def report(model: str, work: Path, count: int) -> list[list[str]]:
    autoencoder, limit = load_autoencoder(model), Null.shipped().threshold(RATE)
    foreign = next(name for name in MODELS if not related(model, name))
    folders = {"own": work / "images" / model, "photographs": work / "images" / PHOTOGRAPHS}
    rows = []

    def report_on(names: Sequence[str], done: str, change: Callable[[Any, jax.Array], jax.Array], by: Any) -> None:
        def scores(autoencoders, batch):
            attacked, attacking = autoencoders
            return standing(measure(attacked, change(attacking, batch.images)))

        engine = Engine(scores, [(autoencoder, by)], batch_size=BATCH)
        for name in names:
            stream = map(Decoder(autoencoder.factor), items_of(sorted(folders[name].glob("*.png"))[:count]))
            found = np.concatenate([measured.columns[0] for measured in engine.measured(stream)])
            rows.append([model, name, done, share(found < limit)])  # NaN, where nothing can be said, is below nothing

    report_on(["own", "photographs"], "nothing", lambda _, images: images, autoencoder)
    report_on(["photographs"], "one pass through this model", launder, autoencoder)
    report_on(["own"], f"one pass through {foreign}", launder, load_autoencoder(foreign))
    for levels in (1, 2, 4):
        for name, target in (("own", "reject"), ("photographs", "accept")):
            attack = partial(perturb, statistic=standing, target=target, epsilon=levels * LEVEL, steps=20)
            done = f"{target}, {levels} grey level{'s' * (levels > 1)}"
            report_on([name], done, attack, with_fast_gradients(autoencoder))
    return rows


if __name__ == "__main__":
    main()

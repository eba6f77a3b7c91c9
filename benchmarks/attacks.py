"""How a verdict is misled: laundering through an autoencoder, and white-box perturbations of one to four grey levels.

    python -m benchmarks.attacks --work WORK [--models mini-kl4-a,mini-vq] [--count 16]

Reads the images of `python -m benchmarks.matrix generate`. Every figure is a share of images that the shipped
calibration of the model accepts; attacks are on its own score (`Calibration.score`), 20 steps of projected signed
gradients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aedr_jax import Calibration, load_autoencoder, measure
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import calibration_file
from aedr_jax.decision.intervals import share_interval
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.scoring.engine import Engine
from aedr_jax.study.attacks import LEVEL, launder, perturb
from benchmarks.matrix import MODELS, items_of, print_table

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


def report(model: str, work: Path, count: int) -> list[list[str]]:
    autoencoder, calibration = load_autoencoder(model), Calibration.load(calibration_file(model))
    foreign = next(name for name in MODELS if name != model)
    folders = {"own": work / "images" / model, "photographs": work / "images" / PHOTOGRAPHS}
    rows = []

    def report_on(names: Sequence[str], done: str, change: Callable[[Any, jax.Array], jax.Array], by: Any) -> None:
        def scores(autoencoders, batch):
            attacked, attacking = autoencoders
            return calibration.score(measure(attacked, change(attacking, batch.images)))

        engine = Engine(scores, [(autoencoder, by)], batch_size=BATCH)
        for name in names:
            stream = map(Decoder(autoencoder.factor), items_of(sorted(folders[name].glob("*.png"))[:count]))
            found = np.concatenate([measured.columns[0] for measured in engine.measured(stream)])
            accepted = int((found < calibration.threshold).sum())
            low, high = share_interval(accepted, len(found))
            rows.append([model, name, done, f"{accepted / len(found):.2f} [{low:.2f}, {high:.2f}]"])

    report_on(["own", "photographs"], "nothing", lambda _, images: images, autoencoder)
    report_on(["photographs"], "one pass through this model", launder, autoencoder)
    report_on(["own"], f"one pass through {foreign}", launder, load_autoencoder(foreign))
    for levels in (1, 2, 4):
        for name, target in (("own", "reject"), ("photographs", "accept")):
            attack = partial(perturb, statistic=calibration.score, target=target, epsilon=levels * LEVEL, steps=20)
            done = f"{target}, {levels} grey level{'s' * (levels > 1)}"
            report_on([name], done, attack, with_fast_gradients(autoencoder))
    return rows


if __name__ == "__main__":
    main()

"""The alignment beside the paper's signal: own images and foreign ones, at one threshold for all models.

    python -m benchmarks.alignment FOLDER [--models mini-kl4-a,mini-vq]

FOLDER holds a folder of images for each model, named like it, and others whose images are of no candidate; all images
of 128 pixels, since the paper's signal is measured of the whole and the alignment of the middle tile. Every image is
measured by every model, with the settings of the preset "paper" and the alignment beside them. The threshold on
alignment / error is the lower 1 % quantile of foreign images, all models pooled, of even number; the table is of own
images, and of the foreign ones of odd number. A model that shares an encoder with another is not held against it.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aedr_jax import Measurement, SignalConfig
from aedr_jax.autoencoders.names import split_list
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring.rows import rows_to_measurement
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import AlignmentConfig
from aedr_jax.study.metrics import area_under_curve
from benchmarks.matrix import MODELS, related, share, standing

RATE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", help="default: the miniature models")
    args = parser.parse_args()
    models = split_list(args.models) if args.models else list(MODELS)
    found = {model: measured_by(model, args.folder) for model in models}
    foreign = {model: {s: m for s, m in of.items() if not related(model, s)} for model, of in found.items()}
    limit = np.quantile(np.concatenate([standing(m)[::2] for of in foreign.values() for m in of.values()]), RATE)
    print(f"accepted: alignment / error at most {limit:.2f}\n")
    header = ["model", "own accepted", *(f"{s} accepted" for s in next(iter(found.values()))), "AUC", "paper's AUC"]
    rows = []
    for model, of in found.items():
        own = of[model]
        others = list(foreign[model].values())
        rows.append(
            [
                model,
                share(standing(own) <= limit),
                *("" if s == model else share(standing(m)[1::2] <= limit) for s, m in of.items()),
                f"{auc(own, others, standing):.4f}",
                f"{auc(own, others, lambda m: np.asarray(m.signal)):.4f}",
            ]
        )
    print(to_markdown(header, rows))


def measured_by(model: str, folder: Path) -> dict[str, Measurement]:
    """What a model says of the images of each folder."""
    config = dataclasses.replace(SignalConfig.paper(), alignment=AlignmentConfig())
    scorer = Scorer([load_candidate(model)], config=config)
    found = {}
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        items = find_images([source])
        with tqdm(total=len(items), desc=f"{model} on {source.name}", disable=None) as bar:
            found[source.name] = rows_to_measurement(list(scorer.score(items, on_progress=bar.update)))
    return found


def auc(own: Measurement, others: list[Measurement], score) -> float:
    return float(np.mean([area_under_curve(score(own), score(other)) for other in others]))


if __name__ == "__main__":
    main()

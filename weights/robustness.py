"""What compression, resizing, cropping, blur and noise do to the verdict, and what a calibration that knows them gains.

    python weights/robustness.py score --work WORK [--models mini-vq,mini-kl16]
    python weights/robustness.py print --work WORK

Own images, photographs and calibration images are those of `weights/evaluate.py generate`; 100 of each are processed
and measured under each condition of `aedr_jax.processing.GRID`. Scores are kept in WORK/robustness model by model and
condition by condition. Thresholds are at alpha .05, fitted on 100 other images of the model (seeds 0 to 99).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import Calibration, SignalConfig, attribute, calibrate, load_autoencoder, read_image
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.demo import PHOTOGRAPHS
from aedr_jax.experiments import area_under_curve, columns, measurement_of
from aedr_jax.images import fit_crop
from aedr_jax.processing import GRID, Processing
from aedr_jax.texture import gray_levels
from evaluate import CALIBRATION, MODELS, print_table, read_csv, write_csv

COUNT = 100
BATCH = 4
KEPT = ("homogeneity", "first_clip", "second_clip", "first_raw", "second_raw")
PASTS = ("none", "jpeg90", "jpeg70", "resize0.5", "blur1")  # the histories that an image is tested against


def files_of(source: str, model: str, work: Path) -> list[Path]:
    if source == CALIBRATION:
        return sorted((work / "calibration" / model).glob("*.png"))[:COUNT]
    files = sorted((work / "images" / (model if source == "own" else PHOTOGRAPHS)).glob("*.png"))
    return files[:COUNT]  # of photographs: the first crop of each, then some second ones


@lru_cache
def measuring() -> Callable:
    def losses(autoencoder, images):  # what is not returned is not computed
        table = columns(autoencoder, images, gray_levels(images), passes=("clip", "raw"))
        return {name: table[name] for name in KEPT}

    return jax.jit(losses)


def score(model: str, condition: Processing, work: Path) -> None:
    """Write `WORK/robustness/MODEL/CONDITION.csv`."""
    out = work / "robustness" / model / f"{condition}.csv"
    if out.exists():
        return
    autoencoder = load_autoencoder(model)
    rows = []
    for source in (CALIBRATION, "own", PHOTOGRAPHS):
        files = files_of(source, model, work)
        pixels = [fit_crop(condition.apply(read_image(f), seed=i), autoencoder.factor) for i, f in enumerate(files)]
        for start in range(0, len(files), BATCH):
            images = jnp.asarray(np.stack(pixels[start : start + BATCH]), jnp.float32) / 127.5 - 1
            table = {k: np.asarray(v) for k, v in measuring()(autoencoder, images).items()}
            rows += [{"source": source, **{k: v[i] for k, v in table.items()}} for i in range(len(images))]
    write_csv(rows, out)


def read(model: str, condition: str, work: Path) -> dict[str, dict[str, np.ndarray]]:
    table = read_csv(work / "robustness" / model / f"{condition}.csv")
    source = table.pop("source")
    return {s: {k: v[source == s] for k, v in table.items()} for s in (CALIBRATION, "own", PHOTOGRAPHS)}


def report(model: str, work: Path) -> None:
    """A line for each condition: AUC, and own images accepted and photographs turned away at each threshold."""

    def calibrated(condition: str, config: SignalConfig) -> Calibration:
        measured = measurement_of(read(model, condition, work)[CALIBRATION], "clip" if config.fitted else "raw")
        return calibrate(measured, config=config, quantized=bool(REGISTRY[model].quantize), processing=condition)

    paper, default = (calibrated("none", config) for config in (SignalConfig.paper(), SignalConfig()))
    pasts = [calibrated(past, SignalConfig()) for past in PASTS]
    rows = []
    for condition in map(str, GRID):
        tables = read(model, condition, work)
        own, other = (measurement_of(tables[s]) for s in ("own", PHOTOGRAPHS))
        raw = [measurement_of(tables[s], "raw") for s in ("own", PHOTOGRAPHS)]
        matched = calibrated(condition, SignalConfig())

        def rates(calibration: Calibration | list[Calibration], pair: tuple) -> str:
            accepted = [attribute({model: m}, {model: calibration}).accepted.mean() for m in pair]
            return f"{accepted[0]:.2f} / {1 - accepted[1]:.2f}"

        areas = [
            area_under_curve(*(np.asarray(c.score(m), np.float64) for m in pair))
            for c, pair in ((paper, raw), (default, (own, other)), (matched, (own, other)))
        ]
        cells = [rates(paper, tuple(raw)), *(rates(c, (own, other)) for c in (default, matched, pasts))]
        rows.append([condition, *(f"{a:.3f}" for a in areas), *cells])
    header = ["condition", "AUC, the paper's", "default", "default, fitted under it"]
    header += ["accepted / turned away, the paper's", "default", "calibrated under it", f"any of {', '.join(PASTS)}"]
    print_table(f"{model}: {COUNT} own images and {COUNT} crops of photographs under each condition", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("score", "print"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", help="A,B: only these (default: all)")
    args = parser.parse_args()
    for model in args.models.split(",") if args.models else MODELS:
        if args.step == "print":
            report(model, args.work)
            continue
        for condition in tqdm(GRID, desc=model, disable=None):
            score(model, condition, args.work)


if __name__ == "__main__":
    main()

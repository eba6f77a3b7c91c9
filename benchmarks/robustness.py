"""What compression, resizing, cropping, blur and noise do to the verdict, and what a calibration that knows them gains.

    python -m benchmarks.robustness score --work WORK [--models mini-vq,mini-kl16]
    python -m benchmarks.robustness print --work WORK

Own images and photographs are those of `python -m benchmarks.matrix generate`; 100 of each are processed and measured
under each condition of `aedr_jax.images.processing.GRID`. Scores are kept in WORK/robustness model by model and
condition by condition. Thresholds are at alpha .05, fitted on 100 other images of the model (seeds 0 to 99), as they
are or under one of `PASTS`. Noise and the place of a crop follow from an image's content.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aedr_jax import Calibration, Measurement, SignalConfig, attribute, calibrate, load_autoencoder
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.images.processing import GRID, Processing
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.scoring.engine import Engine
from aedr_jax.scoring.sharding import Sharded, make_sharded
from aedr_jax.signal.texture import gray_levels
from aedr_jax.study.metrics import area_under_curve
from aedr_jax.study.signals import columns, measurement_of
from benchmarks.matrix import CALIBRATION, MODELS, items_of, print_table, read_scores, write_scores

COUNT = 100
BATCH = 4
KEPT = ("homogeneity", "first_clip", "second_clip", "first_raw", "second_raw")
PASTS = ("none", "jpeg90", "jpeg70", "resize0.5", "blur1")  # calibrations are made under each of these
# The histories that an image is tested against: pasts under which own images still stand apart, as resize0.5's do not.
HISTORIES = ("none", "jpeg90", "jpeg70", "blur1")
RESIZED = ("resize0.5", "resize2")  # also measured after resizing back to the size before


def files_of(source: str, model: str, work: Path) -> list[Path]:
    if source == CALIBRATION:
        return sorted((work / "calibration" / model).glob("*.png"))[:COUNT]
    files = sorted((work / "images" / (model if source == "own" else PHOTOGRAPHS)).glob("*.png"))
    return files[:COUNT]  # of photographs: the first crop of each, then some second ones


@cache
def measuring(passes: tuple[str, ...]) -> Sharded:
    def losses(autoencoder, batch):  # what is not returned is not computed
        table = columns(autoencoder, batch.images, gray_levels(batch.images), passes=passes)
        return {name: table[name] for name in KEPT}

    return make_sharded(losses)


def score(model: str, condition: Processing, work: Path, *, back: bool = False) -> None:
    """Write `WORK/robustness/MODEL/CONDITION.csv`; `back`: resized back to the size that the model made it at."""
    out = work / "robustness" / model / f"{condition}{'-back' if back else ''}.csv"
    if out.exists():
        return
    autoencoder = load_autoencoder(model)
    decoder = Decoder(autoencoder.factor, processing=str(condition), resize_back=back)
    rows = []
    for source in (CALIBRATION, "own", PHOTOGRAPHS):
        if source == CALIBRATION and (back or str(condition) not in PASTS):
            continue
        # The paper's threshold is drawn on images as they are; under a past, only the default's is.
        passes = ("clip",) if source == CALIBRATION and condition.kind != "none" else ("clip", "raw")
        engine = Engine(measuring(passes), [autoencoder], batch_size=BATCH)
        for measured in engine.measured(map(decoder, items_of(files_of(source, model, work)))):
            rows += [{"source": source, **{k: float(v) for k, v in of.items()}} for _, of in measured.images()]
    write_scores(rows, out)


def read(model: str, condition: str, work: Path) -> dict[str, dict[str, np.ndarray]]:
    table = read_scores(work / "robustness" / model / f"{condition}.csv")
    source = table.pop("source")
    return {s: {k: v[source == s] for k, v in table.items()} for s in np.unique(source)}


def report(model: str, work: Path) -> None:
    """A line for each condition: AUC, and own images accepted and photographs turned away at each threshold."""

    def calibrated(condition: str, config: SignalConfig) -> Calibration:
        measured = measurement_of(read(model, condition, work)[CALIBRATION], "clip" if config.fitted else "raw")
        return calibrate(measured, config=config, quantized=bool(REGISTRY[model].quantize), processing=condition)

    paper, default = (calibrated("none", config) for config in (SignalConfig.paper(), SignalConfig()))
    histories = [calibrated(past, SignalConfig()) for past in HISTORIES]

    def pairs(condition: str) -> tuple[list[Measurement], list[Measurement]]:
        """Own images and photographs by the default's passes, and by the paper's."""
        tables = read(model, condition, work)
        clipped, raw = ([measurement_of(tables[s], p) for s in ("own", PHOTOGRAPHS)] for p in ("clip", "raw"))
        return clipped, raw

    def area(calibration: Calibration | None, pair: list[Measurement]) -> str:
        if calibration is None:
            return "-"
        return f"{area_under_curve(*(np.asarray(calibration.score(m), np.float64) for m in pair)):.3f}"

    def rates(calibration: Calibration | list[Calibration] | None, pair: list[Measurement]) -> str:
        if calibration is None:
            return "-"
        accepted = [attribute({model: m}, {model: calibration}).accepted.mean() for m in pair]
        return f"{accepted[0]:.2f} / {1 - accepted[1]:.2f}"

    rows = []
    for condition in map(str, GRID):
        clipped, raw = pairs(condition)
        matched = calibrated(condition, SignalConfig()) if condition in PASTS else None
        areas = [area(paper, raw), area(default, clipped), area(matched, clipped)]
        cells = [rates(paper, raw), *(rates(c, clipped) for c in (default, matched, histories))]
        rows.append([condition, *areas, *cells])
    header = ["condition", "AUC, the paper's", "default", "default, fitted under it"]
    header += ["accepted / turned away, the paper's", "default", "calibrated under it"]
    header += [f"any of {', '.join(HISTORIES)}"]
    print_table(f"{model}: {COUNT} own images and {COUNT} crops of photographs under each condition", header, rows)
    rows = []
    for condition in RESIZED:
        clipped, raw = pairs(f"{condition}-back")
        rows.append([condition, area(paper, raw), area(default, clipped), rates(paper, raw), rates(default, clipped)])
    header = ["condition", "AUC, the paper's", "default", "accepted / turned away, the paper's", "default"]
    print_table(f"{model}: resized back to the size before", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("score", "print"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", help="A,B: only these (default: all)")
    args = parser.parse_args()
    for model in split_list(args.models) if args.models else MODELS:
        if args.step == "print":
            report(model, args.work)
            continue
        for condition in tqdm(GRID, desc=model, disable=None):
            score(model, condition, args.work)
            if str(condition) in RESIZED:
                score(model, condition, args.work, back=True)


if __name__ == "__main__":
    main()

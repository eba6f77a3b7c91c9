"""The models' cards, and the matrix: how well each miniature model's own images are told from all others.

    python -m benchmarks.matrix generate --photos DIR --work WORK [--models mini-vq,mini-movq]
    python -m benchmarks.matrix score --photos DIR --work WORK [--models mini-vq,mini-movq]
    python -m benchmarks.matrix print --photos DIR --work WORK [--json FILE]

Own images: `--count` from each model's sampler, with seeds that played no part in calibration. Photographs: two crops
of each that no model was trained or calibrated on (held-out dreambooth subjects, Kodak, Debian). Every image is an
8-bit PNG of 128 pixels, read back from disk. What the default and the paper's settings measure is kept in WORK model by
model, so an interrupted run goes on where it stopped; `--models` scores some of them only, so that several processes
can share the work.

Printed for each candidate against each other source: AUC of the default (alignment over its error; 0 where nothing can
be said), of the paper's signal, and of homogeneity and first loss alone, since content alone may tell images apart; and
the default's accuracy at a foreign p-value of .05 with nothing calibrated, the mean of own images accepted and others
turned away. Intervals: 95 % percentile bootstrap over clusters, which are single generated images, and subjects of
photographs.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from aedr_jax import (
    Measurement,
    Null,
    SignalConfig,
    homogeneity,
    load_autoencoder,
    measure,
    prepare,
    read_gray,
    read_image,
)
from aedr_jax.autoencoders.checkpoints import to_flat_dict
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import miniature_models
from aedr_jax.decision.intervals import share_interval
from aedr_jax.files import whole_file
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.generate.folder import generate, plan_images
from aedr_jax.generate.pipelines import choose_settings
from aedr_jax.inputs.decoding import Decoded, Decoder, Refused
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.engine import Batch, Engine
from aedr_jax.scoring.sharding import Sharded, make_sharded
from aedr_jax.scoring.tables import to_markdown, write_csv
from aedr_jax.study.metrics import area_under_curve, balanced_accuracy, interval, resample
from weights.photos import random_crop, read_index, subject, subjects_split

MODELS = miniature_models()
COUSINS = ({"mini-kl4-a", "mini-kl4-b"},)  # that share an encoder: an image of one stands on the other's grid too
PRESETS = ("default", "paper")
RATE = 0.05
SIDE = 128
SEED = 1_000_000  # calibrations use small seeds
CROPS = 2
REPEATS = 1000
BATCH = 8


def write_images(models: Sequence[str], photos: Path, work: Path, count: int, seed: int) -> None:
    """What is there already is kept.

    `WORK/calibration/MODEL/NUMBER.png` with seeds 0 to count − 1, which `aedr calibrate` reads,
    `WORK/images/MODEL/NUMBER.png` with seeds from a multiple of `seed`, another for each model, and
    `WORK/images/photographs/NUMBER_PHOTOGRAPH.png`.
    """
    for model in models:
        for folder, first in (("calibration", 0), ("images", seed * (MODELS.index(model) + 1))):
            settings = choose_settings(model, seed=first)
            with tqdm(total=count, desc=f"{folder} of {model}", disable=None) as bar:
                generate(settings, plan_images(settings, n=count), work / folder / model, on_progress=bar.update)
    folder = work / "images" / PHOTOGRAPHS
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(file for file, part in subjects_split(photos).items() if part == "test")
    for n, file in enumerate(files):
        rng = np.random.default_rng([SEED, n])
        for i in range(CROPS):
            Image.fromarray(random_crop(photos / file, SIDE, rng)).save(folder / f"{i}_{Path(file).stem}.png")


def score(model: str, source: str, work: Path) -> None:
    """Write `WORK/scores/MODEL/SOURCE.csv`, what `rows_of` measures of each image; what is there is kept."""
    out = work / "scores" / model / f"{source}.csv"
    if out.exists():
        return
    autoencoder = load_autoencoder(model)
    files = tqdm(items_of(sorted((work / "images" / source).glob("*.png"))), leave=False, disable=None)
    write_scores(rows_of(autoencoder, map(Decoder(autoencoder.factor), files)), out)


def write_scores(rows: Sequence[dict], out: Path) -> None:
    """Whole or not at all: what is there already is not made again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as unfinished, open(unfinished, "w", newline="") as file:
        write_csv(rows, file, ending="\n")


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """`{column: [n]}` of what `write_scores` wrote: the first column as text, all others as numbers."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    first, *others = rows[0]
    return {first: np.array([r[first] for r in rows]), **{k: np.array([float(r[k]) for r in rows]) for k in others}}


@cache
def measuring() -> Sharded:
    """The measurements of a batch by each of `PRESETS`; models of one architecture share the program."""

    def measured(autoencoder, batch: Batch) -> dict[str, Measurement]:
        return {name: measure(autoencoder, batch.images, config=SignalConfig.preset(name)) for name in PRESETS}

    return make_sharded(measured)


def rows_of(autoencoder, stream: Iterable[Decoded | Refused]) -> list[dict]:
    """A row for each image: its id, and the columns of its measurements, such as "paper signal"."""
    engine = Engine(measuring(), [autoencoder], batch_size=BATCH)
    return [
        {"image": photo.id}
        | {f"{name} {column}": float(value) for name in PRESETS for column, value in of[name]._asdict().items()}
        for measured in engine.measured(stream)
        for photo, of in measured.images()
    ]


def measurement_of(table: dict[str, np.ndarray], preset: str) -> Measurement:
    """What rows of `rows_of` hold of one preset."""
    return Measurement(*(table[f"{preset} {column}"] for column in Measurement._fields))


def standing(measured: Measurement) -> np.ndarray:
    """Alignment over its error; 0, as of a foreign image, where nothing can be said, which no threshold accepts."""
    return np.nan_to_num(np.asarray(measured.standing))


def related(model: str, source: str) -> bool:
    """Whether a source's images stand on a model's grid: its own, and those of a model that shares its encoder."""
    return model == source or any({model, source} <= cousins for cousins in COUSINS)


def share(accepted: np.ndarray) -> str:
    """The mean of booleans with its 95 % Clopper-Pearson interval."""
    low, high = share_interval(int(accepted.sum()), accepted.size)
    return f"{accepted.mean():.3f} [{low:.3f}, {high:.3f}]"


def items_of(files: Sequence[Path]) -> list[Item]:
    """Files by their names without ending."""
    return [Item(file.stem, file) for file in files]


def clusters(source: str, images: np.ndarray, subjects: dict[str, str]) -> np.ndarray:
    """What is drawn together in a bootstrap: a generated image alone, photographs by their subject."""
    names = [subjects[image.split("_", 1)[1]] if source == PHOTOGRAPHS else image for image in images]
    return np.unique(names, return_inverse=True)[1]


def signals_of(model: str, work: Path, subjects: dict[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """`{source: {signal: [n]}}`: the default's standing, the paper's signal, and what else may tell images apart."""
    scores = {}
    for source in (*MODELS, PHOTOGRAPHS):
        table = read_scores(work / "scores" / model / f"{source}.csv")
        default, paper = (measurement_of(table, preset) for preset in PRESETS)
        scores[source] = {
            "image": table["image"],
            "default": standing(default),
            "paper": paper.signal,
            "homogeneity": default.homogeneity,
            "first_loss": default.first_loss,
            "ratio": default.ratio,
            "cluster": clusters(source, table["image"], subjects),
        }
    return scores


def card(model: str, scores: dict, photos: Path) -> dict:
    """What a model's card says about reconstruction, codebook and samples."""
    autoencoder = load_autoencoder(model)
    encode = jax.jit(lambda ae, x: ae.encode(x))
    own, photographs = scores[model], scores[PHOTOGRAPHS]
    kodak = photographs["first_loss"][np.char.find(photographs["image"], "kodak") >= 0]
    figures = {
        "model": model,
        "parameters": sum(value.size for value in to_flat_dict(autoencoder).values()),
        "psnr_kodak": float(np.median(10 * np.log10(4 / kodak))),
        "ratio_own": float(np.median(own["ratio"])),
        "ratio_photographs": float(np.median(photographs["ratio"])),
        "codes_used": None,
    }
    if hasattr(autoencoder, "quantize"):
        files = sorted(file for file, part in subjects_split(photos).items() if part == "train")
        rng = np.random.default_rng(SEED)
        used: set[bytes] = set()
        for start in range(0, 512, BATCH):
            crops = [random_crop(photos / files[i % len(files)], SIDE, rng) for i in range(start, start + BATCH)]
            latents = encode(autoencoder, prepare(crops))
            entries = np.asarray(autoencoder.quantize(latents))
            used |= {entry.tobytes() for entry in entries.reshape(-1, entries.shape[-1])}
        figures["codes_used"] = len(used)
    return figures


def diversity(source: str, work: Path) -> dict:
    """Spread of a source's images: colour, homogeneity, and how alike the two most alike are."""
    files = sorted((work / "images" / source).glob("*.png"))
    images = np.stack([read_image(file) for file in files]).astype(np.float64) / 255
    small = images.reshape(len(images), 16, SIDE // 16, 16, SIDE // 16, 3).mean((2, 4)).reshape(len(images), -1)
    squares = (small**2).sum(1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * small @ small.T, 0) / small.shape[1])
    if source == PHOTOGRAPHS:  # crops of one photograph may be alike
        stems = np.array([file.stem.split("_", 1)[1] for file in files])
        distance[stems[:, None] == stems] = np.inf
    np.fill_diagonal(distance, np.inf)
    texture = np.asarray(homogeneity(jnp.asarray(np.stack([read_gray(file) for file in files]))))
    return {
        "source": source,
        "images": len(files),
        "nearest_pair": float(distance.min()),
        "median_nearest": float(np.median(distance.min(1))),
        "colour_spread": float(images.mean((1, 2)).std(0).mean()),
        "contrast": float(np.median(images.std((1, 2)).mean(1))),
        "homogeneity_median": float(np.median(texture)),
        "homogeneity_spread": float(texture.std()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("generate", "score", "print"))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the images and the scores")
    parser.add_argument("--count", type=int, default=200, help="generated images of each model (default 200)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the generated images (default {SEED})")
    parser.add_argument("--models", type=split_list, default=MODELS, help="A,B: only generate or score these")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    if args.step == "generate":
        write_images(args.models, args.photos, args.work, args.count, args.seed)
    elif args.step == "score":
        for model in args.models:
            for source in tqdm((*MODELS, PHOTOGRAPHS), desc=f"scores by {model}", disable=None):
                score(model, source, args.work)
    else:
        report(args.photos, args.work, args.json)


def report(photos: Path, work: Path, json_file: Path | None) -> None:
    """Print the tables, and write their figures as JSON where asked."""
    subjects = {Path(row["file"]).stem: subject(row) for row in read_index(photos)}
    scores = {model: signals_of(model, work, subjects) for model in MODELS}
    figures: dict[str, list[dict]] = {
        "cards": [card(model, scores[model], photos) for model in MODELS],
        "diversity": [diversity(source, work) for source in (*MODELS, PHOTOGRAPHS)],
        "cells": [],
    }
    limit = Null.shipped().threshold(RATE)
    accuracy = partial(balanced_accuracy, threshold=limit)
    for model in MODELS:
        own = scores[model][model]
        for source in (*MODELS, PHOTOGRAPHS):
            other = scores[model][source]
            cell = {"model": model, "source": source, "accepted": share(other["default"] < limit)}
            if source != model:
                resampled = resample((own["cluster"], other["cluster"]), repeats=REPEATS)
                for column in ("default", "paper", "homogeneity", "first_loss"):
                    cell[column] = with_interval(area_under_curve, (own[column], other[column]), resampled)
                cell["accuracy"] = with_interval(accuracy, (own["default"], other["default"]), resampled)
            figures["cells"].append(cell)
    print_tables(figures)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def with_interval(
    metric: Callable[..., float], samples: Sequence[np.ndarray], drawn: Sequence[Sequence[np.ndarray]]
) -> tuple[float, float, float]:
    """A metric of samples, `metric(*samples)`, and the ends of its interval over draws of them (`resample`)."""
    return metric(*samples), *interval([metric(*(s[i] for s, i in zip(samples, draw, strict=True))) for draw in drawn])


def print_tables(figures: dict[str, list[dict]]) -> None:
    """The figures as Markdown tables."""
    for name in ("cards", "diversity"):
        rows = [{k: f"{v:.3g}" if isinstance(v, float) else str(v or "-") for k, v in r.items()} for r in figures[name]]
        print_table(name, list(rows[0]), [list(row.values()) for row in rows])
    sources = (*MODELS, PHOTOGRAPHS)
    cells = {(cell["model"], cell["source"]): cell for cell in figures["cells"]}
    titles = {
        "default": "AUC, the default: alignment over its error",
        "paper": "AUC, the paper's signal",
        "homogeneity": "AUC, homogeneity alone",
        "first_loss": "AUC, first loss alone",
        "accuracy": f"accuracy of the default at a foreign p-value of {RATE:g}, nothing calibrated",
    }
    for column, title in titles.items():
        table = []
        for model in MODELS:
            shown = [cells[model, source].get(column) for source in sources]
            table.append([model, *(f"{c[0]:.3f} [{c[1]:.3f}, {c[2]:.3f}]" if c else "-" for c in shown)])
        print_table(title, ["candidate", *sources], table)
    accepted = [[model, *(cells[model, source]["accepted"] for source in sources)] for model in MODELS]
    print_table(f"share accepted at a foreign p-value of {RATE:g}", ["candidate", *sources], accepted)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n**{title}**\n\n{to_markdown(header, rows)}", end="")


if __name__ == "__main__":
    main()

"""The models' cards, and the matrix: how well each miniature model's own images are told from all others.

    python -m benchmarks.matrix generate --photos DIR --work WORK [--models mini-vq,mini-movq]
    python -m benchmarks.matrix score --photos DIR --work WORK [--models mini-vq,mini-movq]
    python -m benchmarks.matrix print --photos DIR --work WORK [--json FILE]

Own images: `--count` from each model's sampler, with seeds that played no part in calibration. Photographs: two crops
of each that no model was trained or calibrated on (held-out dreambooth subjects, Kodak, Debian). Every image is an
8-bit PNG of 128 pixels, read back from disk. Scores are kept in WORK model by model, so an interrupted run goes on
where it stopped; `--models` scores some of them only, so that several processes can share the work.

Printed for each candidate against each other source: AUC of the default signal, of the paper's, and of homogeneity and
first loss alone, since content alone may tell images apart; and accuracy at the shipped threshold, the mean of own
images accepted and others turned away. Intervals: 95 % percentile bootstrap over clusters, which are single generated
images, and subjects of photographs.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from aedr_jax import Calibration, homogeneity, load_autoencoder, prepare, read_gray, read_image
from aedr_jax.autoencoders.checkpoints import to_flat_dict
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import calibration_file, miniature_models
from aedr_jax.files import whole_file
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.generate.folder import generate, plan_images
from aedr_jax.generate.pipelines import choose_settings
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.engine import Engine
from aedr_jax.scoring.sharding import Sharded, make_sharded
from aedr_jax.scoring.tables import to_markdown, write_csv
from aedr_jax.study.metrics import area_under_curve, balanced_accuracy, resample, with_interval
from aedr_jax.study.signals import columns, measurement_of
from weights.photos import random_crop, read_index, subject, subjects_split

MODELS = miniature_models()
SIDE = 128
CALIBRATION = "calibration"
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
    """Write `WORK/scores/MODEL/SOURCE.csv`, a row of `signals.columns` for each image; what is there is kept."""
    out = work / "scores" / model / f"{source}.csv"
    if out.exists():
        return
    folder = work / "calibration" / model if source == CALIBRATION else work / "images" / source
    write_scores(score_files(load_autoencoder(model), sorted(folder.glob("*.png"))), out)


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
    """`signals.columns` of a batch; models of one architecture share the program."""
    return make_sharded(lambda autoencoder, batch: columns(autoencoder, batch.images, batch.extra))


def score_files(autoencoder, files: Sequence[Path]) -> list[dict]:
    """A row of `signals.columns` for each file."""
    engine = Engine(measuring(), [autoencoder], batch_size=BATCH, extra=lambda photo: photo.gray.astype(np.int32))
    stream = map(Decoder(autoencoder.factor), tqdm(items_of(files), leave=False, disable=None))
    return [
        {"image": photo.id, **{name: float(value) for name, value in of.items()}}
        for measured in engine.measured(stream)
        for photo, of in measured.images()
    ]


def items_of(files: Sequence[Path]) -> list[Item]:
    """Files by their names without ending."""
    return [Item(file.stem, file) for file in files]


def read_tables(model: str, work: Path) -> dict[str, dict[str, np.ndarray]]:
    """`{source: {column: [n]}}` of a model's scores, "image" among the columns."""
    sources = (CALIBRATION, *MODELS, PHOTOGRAPHS)
    return {source: read_scores(work / "scores" / model / f"{source}.csv") for source in sources}


def clusters(source: str, images: np.ndarray, subjects: dict[str, str]) -> np.ndarray:
    """What is drawn together in a bootstrap: a generated image alone, photographs by their subject."""
    names = [subjects[image.split("_", 1)[1]] if source == PHOTOGRAPHS else image for image in images]
    return np.unique(names, return_inverse=True)[1]


def signals_of(model: str, work: Path, subjects: dict[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """`{source: {signal: [n]}}`: the default by the shipped calibration, the paper's, and what each is made of."""
    calibration = Calibration.load(calibration_file(model))
    scores = {}
    for source, table in read_tables(model, work).items():
        measured = measurement_of(table)
        scores[source] = {
            "image": table["image"],
            "default": np.asarray(calibration.score(measured), np.float64),
            "paper": measurement_of(table, "raw").signal,
            "homogeneity": table["homogeneity"],
            "first_loss": table["first_clip"],
            "ratio": measured.ratio,
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
    parser.add_argument("--models", help="A,B: only generate or score these")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    chosen = split_list(args.models) if args.models else MODELS
    if args.step == "generate":
        write_images(chosen, args.photos, args.work, args.count, args.seed)
    elif args.step == "score":
        for model in chosen:
            for source in tqdm((*MODELS, PHOTOGRAPHS, CALIBRATION), desc=f"scores by {model}", disable=None):
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
    for model in MODELS:
        own, calibration = scores[model][model], Calibration.load(calibration_file(model))
        accuracy = partial(balanced_accuracy, threshold=calibration.threshold)
        for source in (*MODELS, PHOTOGRAPHS):
            other = scores[model][source]
            accepted = float((other["default"] < calibration.threshold).mean())
            cell = {"model": model, "source": source, "accepted": accepted}
            if source != model:
                resampled = resample((own["cluster"], other["cluster"]), repeats=REPEATS)
                for column in ("default", "paper", "homogeneity", "first_loss"):
                    cell[column] = with_interval(area_under_curve, (own[column], other[column]), resampled)
                cell["accuracy"] = with_interval(accuracy, (own["default"], other["default"]), resampled)
            figures["cells"].append(cell)
    print_tables(figures)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def print_tables(figures: dict[str, list[dict]]) -> None:
    """The figures as Markdown tables."""
    for name in ("cards", "diversity"):
        rows = [{k: f"{v:.3g}" if isinstance(v, float) else str(v or "-") for k, v in r.items()} for r in figures[name]]
        print_table(name, list(rows[0]), [list(row.values()) for row in rows])
    sources = (*MODELS, PHOTOGRAPHS)
    cells = {(cell["model"], cell["source"]): cell for cell in figures["cells"]}
    titles = {
        "default": "AUC, default signal",
        "paper": "AUC, the paper's signal",
        "homogeneity": "AUC, homogeneity alone",
        "first_loss": "AUC, first loss alone",
        "accuracy": "accuracy at the shipped threshold",
    }
    for column, title in titles.items():
        table = []
        for model in MODELS:
            shown = [cells[model, source].get(column) for source in sources]
            table.append([model, *(f"{c[0]:.3f} [{c[1]:.3f}, {c[2]:.3f}]" if c else "-" for c in shown)])
        print_table(title, ["candidate", *sources], table)
    accepted = [[model, *(f"{cells[model, source]['accepted']:.3f}" for source in sources)] for model in MODELS]
    print_table("share accepted at the shipped threshold", ["candidate", *sources], accepted)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n**{title}**\n\n{to_markdown(header, rows)}", end="")


if __name__ == "__main__":
    main()

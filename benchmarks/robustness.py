"""What compression, resizing, cropping, blur and noise do to the verdict, with nothing calibrated for any of it.

    python -m benchmarks.robustness score --work WORK [--models mini-vq,mini-kl16] [--count 100]
    python -m benchmarks.robustness print --work WORK

Images are those of `python -m benchmarks.matrix generate`: each model's own, and foreign ones, which are photographs
and another model's own. All are processed alike under each of `CONDITIONS`, and measured by the default and the paper's
settings, whose columns are kept in WORK/robustness model by model and condition by condition. An image that nothing can
be said of, too small after the processing say, counts as not accepted. Noise and the place of a crop follow from an
image's number.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from aedr_jax import Measurement, Null, load_autoencoder, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.images.processing import GRID
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import Item
from aedr_jax.study.metrics import area_under_curve
from benchmarks.matrix import (
    MODELS,
    measurement_of,
    print_table,
    read_scores,
    related,
    rows_of,
    share,
    standing,
    write_scores,
)
from benchmarks.sources import CHAIN, processed

CONDITIONS = (*map(str, GRID), "jpeg30", CHAIN)
LEVELS = (0.05, 0.01)


def sources_of(model: str) -> tuple[str, ...]:
    """Whose images a model is asked about: its own, and foreign ones."""
    return model, PHOTOGRAPHS, next(other for other in MODELS if not related(model, other))


def processed_items(files: Iterable[Path], condition: str) -> Iterator[Item]:
    """Images as they are saved after their processing."""
    for i, path in enumerate(files):
        saved = io.BytesIO()
        Image.fromarray(processed(read_image(path), condition, seed=i)).save(saved, "PNG")
        yield Item(path.stem, path, saved.getvalue())


def score(model: str, condition: str, work: Path, count: int) -> None:
    """Write `WORK/robustness/MODEL/CONDITION.csv`; what is there is kept."""
    out = work / "robustness" / model / f"{condition}.csv"
    if out.exists():
        return
    autoencoder = load_autoencoder(model)
    rows = []
    for source in sources_of(model):
        # Of photographs: the first crop of each, then some second ones.
        files = sorted((work / "images" / source).glob("*.png"))[:count]
        stream = map(Decoder(autoencoder.factor), processed_items(files, condition))
        rows += [{"source": source, **row} for row in rows_of(autoencoder, stream)]
    write_scores([{k: v for k, v in row.items() if k != "image"} for row in rows], out)


def read(model: str, condition: str, work: Path) -> dict[str, dict[str, Measurement]]:
    """`{source: {preset: measurement}}`."""
    table = read_scores(work / "robustness" / model / f"{condition}.csv")
    found = {}
    for source in sources_of(model):
        chosen = {name: column[table["source"] == source] for name, column in table.items()}
        found[source] = {preset: measurement_of(chosen, preset) for preset in ("default", "paper")}
    return found


def report(models: list[str], work: Path) -> None:
    """A table for each model, a line for each condition; and the means over the models."""
    limits = [Null.shipped().threshold(level) for level in LEVELS]
    header = ["condition", *(f"{what} accepted at {level:g}" for what in ("own", "foreign") for level in LEVELS)]
    header += ["own that nothing is said of", "AUC, default", "AUC, the paper's signal"]
    found: dict[str, list[tuple[float, ...]]] = {condition: [] for condition in CONDITIONS}
    for model in models:
        rows = []
        for condition in CONDITIONS:
            own, *foreign = read(model, condition, work).values()
            scores = standing(own["default"]), np.concatenate([standing(of["default"]) for of in foreign])
            accepted = [of < limit for of in scores for limit in limits]
            silent = np.isnan(np.asarray(own["default"].standing))
            of_paper = [np.nan_to_num(np.asarray(of["paper"].signal), nan=np.inf) for of in (own, *foreign)]
            areas = area_under_curve(*scores), area_under_curve(of_paper[0], np.concatenate(of_paper[1:]))
            rows.append([condition, *map(share, (*accepted, silent)), *(f"{area:.3f}" for area in areas)])
            found[condition].append((*(float(some.mean()) for some in (*accepted, silent)), *areas))
        _, *names = sources_of(model)
        print_table(f"{model}; foreign: {', '.join(names)}; {len(scores[0])} and {len(scores[1])} images", header, rows)
    means = [[condition, *(f"{value:.3f}" for value in np.mean(of, axis=0))] for condition, of in found.items()]
    print_table(f"Means over {len(models)} models", header, means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("score", "print"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", help="A,B: only these (default: all)")
    parser.add_argument("--count", type=int, default=100, help="images of each source (default 100)")
    args = parser.parse_args()
    models = split_list(args.models) if args.models else list(MODELS)
    if args.step == "print":
        report(models, args.work)
        return
    for model in models:
        for condition in tqdm(CONDITIONS, desc=model, disable=None):
            score(model, condition, args.work, args.count)


if __name__ == "__main__":
    main()

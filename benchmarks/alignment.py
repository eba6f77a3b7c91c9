"""The alignment beside the paper's signal, with nothing calibrated: each model's own images, the others', photographs.

    python -m benchmarks.alignment measure FOLDER --work WORK [--models mini-kl4-a,mini-vq] [--others 100]
    python -m benchmarks.alignment print --work WORK

FOLDER holds a folder of images for each model, named like it, and others whose images are of no candidate (here
`photographs`); all of 128 pixels, so that both signals see the same pixels. Rows are kept in WORK/MODEL/SOURCE.parquet;
an interrupted run goes on where it stopped. Every image (of other sources the first `--others`) is measured by every
model, with the settings of the preset "paper" and the alignment beside them. An image of which nothing can be said
counts as one that stands at 0: as not accepted, and not right. Models that share an encoder are shown apart
(`matrix.COUSINS`). Intervals: 95 %, Clopper-Pearson for shares, percentile bootstrap over images for areas.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from aedr_jax import Measurement, SignalConfig, attribute
from aedr_jax.autoencoders.names import split_list
from aedr_jax.decision.attribution import NONE, NOT_ASSESSABLE
from aedr_jax.images.tiles import AlignmentConfig
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.scoring.tables import to_markdown, write_rows
from aedr_jax.study.metrics import area_under_curve, interval, resample
from benchmarks.batches import of_one_version
from benchmarks.matrix import MODELS, related, share, standing

RATES = (0.01, 0.001)
REPEATS = 300

Tables = Mapping[str, Mapping[str, Measurement]]


def measure(model: str, folder: Path, work: Path, others: int | None) -> None:
    """Rows of the images of each folder; what is there already is not measured again."""
    config = dataclasses.replace(SignalConfig.paper(), alignment=AlignmentConfig())
    scorer = Scorer([load_candidate(model)], config=config)
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        out = work / model / f"{source.name}.parquet"
        if out.exists():
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        items = find_images([source])[: None if source.name == model else others]
        with tqdm(total=len(items), desc=f"{model} on {source.name}", disable=None) as bar:
            rows = sorted(scorer.score(items, on_progress=bar.update), key=lambda row: row.path)
        write_rows(rows, out)


def read(work: Path, models: Sequence[str]) -> Tables:
    found: dict[str, dict[str, Measurement]] = {}
    for model in models:
        found[model] = {}
        for file in sorted((work / model).glob("*.parquet")):
            table = pq.read_table(file)
            found[model][file.stem] = Measurement(*(table.column(name).to_numpy() for name in Measurement._fields))
    return found


def papers(measured: Measurement) -> np.ndarray:
    return np.nan_to_num(np.asarray(measured.signal, np.float64), nan=np.inf)


def areas(tables: Tables) -> None:
    """AUC of standings and of the paper's signal, and the difference."""
    rows, means = [], []
    for model, of in tables.items():
        for source, other in of.items():
            if source == model:
                continue
            own = of[model]
            pairs = [(standing(own), standing(other)), (papers(own), papers(other))]
            ours, theirs = (area_under_curve(*pair) for pair in pairs)
            drawn = resample([np.arange(len(pair)) for pair in pairs[0]], REPEATS)
            low, high = interval(
                [
                    area_under_curve(pairs[0][0][i], pairs[0][1][j]) - area_under_curve(pairs[1][0][i], pairs[1][1][j])
                    for i, j in drawn
                ]
            )
            note = " (same encoder)" if related(model, source) else ""
            rows.append([model, f"{source}{note}", f"{ours:.4f}", f"{theirs:.4f}", f"[{low:+.4f}, {high:+.4f}]"])
            means.append((ours, theirs, bool(note)))
    print(to_markdown(["model", "against", "AUC, standing", "AUC, the paper's", "difference"], rows))
    for what, kept in (("all pairs", means), ("without the pair of cousins", [m for m in means if not m[2]])):
        print(f"mean over {what}: {np.mean([m[0] for m in kept]):.4f}, the paper's {np.mean([m[1] for m in kept]):.4f}")


def pooled(tables: Tables) -> None:
    """Own images accepted at one threshold for all models, drawn at a rate of false names over image × candidate."""
    rows = []
    for name, score in (("standing", standing), ("the paper's", papers)):
        for cousins in (False, True):
            own = np.concatenate([score(of[model]) for model, of in tables.items()])
            others = np.concatenate(
                [
                    score(measured)
                    for model, of in tables.items()
                    for source, measured in of.items()
                    if source != model and (cousins or not related(model, source))
                ]
            )
            for rate in RATES:
                limit = np.quantile(others, rate, method="lower")
                rows.append([name, "with" if cousins else "without", f"{rate:g}", share(own < limit), str(others.size)])
    print("\n**one threshold for all models**\n")
    print(to_markdown(["signal", "cousins", "false names", "own accepted", "foreign n"], rows))


def verdicts(tables: Tables) -> None:
    """Which model made it, all candidates asked, nothing calibrated."""
    models = list(tables)
    rows, right, total = [], 0, 0
    for source in next(iter(tables.values())):
        count = min(len(tables[model][source].alignment) for model in models)  # those that all have measured
        given = attribute({model: tables[model][source].take(slice(count)) for model in models}).verdicts
        truth = source if source in models else NONE
        found = {
            "right": sum(verdict == truth for verdict in given),
            "ambiguous with it": sum(
                v.startswith("ambiguous") and truth in v.split(": ")[1].split(", ") for v in given
            ),
            "none": sum(verdict == NONE for verdict in given) if truth != NONE else 0,
            "nothing said": sum(verdict == NOT_ASSESSABLE for verdict in given),
        }
        wrong = len(given) - sum(found.values())
        rows.append(
            [source, share(np.array([v == truth for v in given])), *map(str, list(found.values())[1:]), str(wrong)]
        )
        right, total = right + found["right"], total + len(given)
    print(f"\n**verdicts of {len(models)} candidates, nothing calibrated: {right} of {total} right**\n")
    print(to_markdown(["images of", "right", "ambiguous with it", "none", "nothing said", "wrong"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="default: the miniature models")
    parser.add_argument("--others", type=int, help="at most so many images of another source (default: all)")
    args = parser.parse_args()
    of_one_version(args.work)
    if args.step == "measure":
        for model in args.models:
            measure(model, args.folder, args.work, args.others)
        return
    tables = read(args.work, args.models)
    areas(tables)
    pooled(tables)
    verdicts(tables)


if __name__ == "__main__":
    main()

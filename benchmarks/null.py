"""The null of the alignment: what images that have nothing to do with an autoencoder score, and how level it is.

    python -m benchmarks.null measure --data DATA --own FOLDER --work WORK [--models mini-vq,mini-kl16] [--half 0]
        [--kinds gradients,noise] [--after 50] [--most 200]
    python -m benchmarks.null fit --work WORK --out FILE
    python -m benchmarks.null print --work WORK

`measure` keeps the losses of every block, band and view, of foreign images of every kind (`benchmarks.sources`) and of
other models' own images (FOLDER/MODEL/*.png), in WORK/HALF/MODEL/KIND.npz; an interrupted run goes on where it stopped.
With `--after` a kind's first images are left out, so that what is drawn (gradients, noise, ...) is drawn anew. For
other kinds than the reference's (`sources.LATER`), and images anew, give another WORK.

`fit` makes the reference that ships of half 0, a group for each model, without the veto of turned copies: that can only
raise a foreign image's standing, and its p-value with it. `print` has the level of half 1 by model and
kind, how own images and cousins stand, how near turned copies come to their image, and, where half 0 was measured
too, what each margin of the veto turns down there, the level with the shifts or the turns alone for controls (each with
a null of its own), and that of a null which never saw a model.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import AlignmentConfig, Null, load_autoencoder
from aedr_jax.autoencoders.names import split_list
from aedr_jax.decision.null import ROUNDING
from aedr_jax.images.tiles import FEWEST
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import COMMUTES, block_losses, of_blocks, over_blocks
from benchmarks.batches import keep_columns
from benchmarks.matrix import MODELS, related
from benchmarks.sources import CHAIN, KINDS, LATER, Pixels, foreign, own

MOST = 50  # images of a kind, a half and a model
RATES = (0.05, 0.01, 0.05 / 30)
TURNS = slice(4, 6)  # of the views; the moved copies stand before them
CONTROLS = {
    "shifts": (slice(1, 4), AlignmentConfig(turns=())),
    "turns": (TURNS, AlignmentConfig(shifts=())),
    "both": (slice(1, 6), AlignmentConfig()),
}
VETO = AlignmentConfig.least_turned
MARGINS = (None, 0.02, 0.03, 0.05, 0.08, 0.1)  # of the veto
FOR_OWN = ("none", "jpeg50", CHAIN)  # the models' own images take part as these
OF_MODELS = {f"of-{model}-{process}": (model, process) for model in MODELS for process in FOR_OWN}


@cache
def measuring():
    return jax.jit(block_losses)


def keep(path: Path, autoencoder, images: Iterable[Pixels]) -> None:
    """`losses` [n, bands, views, blocks] and `telling` [n, blocks] of images of one shape."""
    keep_columns(path, ("losses", "telling"), measuring(), autoencoder, images)


def file_name(kind: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", kind.lower()) + ".npz"


def standings(path: Path, controls: str = "both", margin: float | None = VETO) -> np.ndarray:
    """alignment / error of each image of a file; NaN where nothing can be said, which no rule accepts."""
    views, config = CONTROLS[controls]
    config = dataclasses.replace(config, least_turned=margin)
    with np.load(path) as table:
        losses = np.concatenate([table["losses"][:, :, :1], table["losses"][:, :, views]], axis=2)
        found = of_blocks(jnp.asarray(losses), jnp.asarray(table["telling"]), tiles=1, config=config)
    return np.asarray(found.alignment / found.error, np.float64)


def nearest_turned(path: Path) -> np.ndarray:
    """Of each image that something can be said of, how near a turned copy's log losses come, the mean over blocks."""
    with np.load(path) as table:
        logs, telling = np.log(table["losses"] + AlignmentConfig.floor), table["telling"]
    off = np.abs(logs[:, :, TURNS] - logs[:, :, :1])
    each = np.asarray(over_blocks(jnp.asarray(off), jnp.asarray(telling)))
    return each.min((1, 2))[telling.sum(1) >= FEWEST]


def tables(
    work: Path, half: int, models: Sequence[str], controls: str = "both", margin: float | None = VETO
) -> dict[str, dict[str, np.ndarray]]:
    """`{model: {kind: standings}}` of a half; the model's own images and its cousins' are kinds like the others."""
    kinds = {file_name(kind): kind for kind in (*KINDS, *LATER)}
    found: dict[str, dict[str, np.ndarray]] = {}
    for model in models:
        files = sorted((work / str(half) / model).glob("*.npz"))
        found[model] = {kinds.get(file.name, file.stem): standings(file, controls, margin) for file in files}
    return found


def maker(kind: str) -> str | None:
    """The miniature model whose images a kind is, or None."""
    return OF_MODELS[kind][0] if kind in OF_MODELS else None


def is_foreign(model: str, kind: str) -> bool:
    made_by = maker(kind)
    return made_by is None or not related(model, made_by)


def fit(found: Mapping[str, Mapping[str, np.ndarray]]) -> Null:
    """A group for each model, of all kinds of foreign images that something can be said of."""
    groups = {}
    for model, of in found.items():
        values = of_foreign(of, model)
        groups[model] = tuple(np.sort(values[~np.isnan(values)]).round(4).tolist())
    return Null(groups)


def level(null: Null, values: np.ndarray) -> np.ndarray:
    """The share of images with a p-value of at most each of `RATES`; those without one count as turned away."""
    p = np.asarray(null.p_value(values), np.float64)
    return np.array([(p <= rate * ROUNDING).mean() for rate in RATES])


def of_foreign(of: Mapping[str, np.ndarray], model: str) -> np.ndarray:
    return np.concatenate([values for kind, values in of.items() if is_foreign(model, kind)])


def report_controls(
    found: Mapping[str, Mapping[str, Mapping]], reference: Mapping[str, Mapping[str, Mapping]], models: Sequence[str]
) -> None:
    """The level at the first of `RATES` by kind, and at all of them over all kinds, under each choice of controls."""
    nulls = {name: fit(of) for name, of in reference.items()}
    kinds = dict.fromkeys(kind for of in found["both"].values() for kind in of)
    rows = []
    for kind in kinds:
        asked = [m for m in models if kind in found["both"][m] and is_foreign(m, kind)]
        shares = {m: [f"{level(nulls[c], of[m][kind])[0]:.3f}" for c, of in found.items()] for m in asked}
        rows.append([kind, *(" ".join(shares.get(m, [])) for m in models)])
    print(f"**share of foreign images with p <= {RATES[0]:g}, controls: {', '.join(CONTROLS)}**\n")
    print(to_markdown(["kind", *models], rows))
    rows = []
    for controls, of in found.items():
        cells = [level(nulls[controls], of[m][kind])[0] for m in models for kind in of[m] if is_foreign(m, kind)]
        each = [shown(nulls[controls], of_foreign(of[m], m)) for m in models]
        rows.append([controls, *each, f"{max(cells):.3f}"])
    print(f"**over all kinds, p <= {', '.join(f'{rate:.3g}' for rate in RATES)}**\n")
    print(to_markdown(["controls", *models, f"worst cell at {RATES[0]:g}"], rows))


def report_levels(null: Null, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    kinds = list(dict.fromkeys(kind for of in found.values() for kind in of))
    rows = []
    for kind in kinds:
        cells = {model: of[kind] for model, of in found.items() if kind in of and is_foreign(model, kind)}
        if not cells:
            continue
        silent = np.isnan(np.concatenate([*cells.values()])).mean()
        each = [shown(null, cells[model]) if model in cells else "" for model in found]
        rows.append([kind, str(len(next(iter(cells.values())))), *each, f"{silent:.3f}"])
    rows.append(["all", "", *(shown(null, of_foreign(of, model)) for model, of in found.items()), ""])
    print(f"**share of foreign images with p <= {', '.join(f'{rate:.3g}' for rate in RATES)}**\n")
    print(to_markdown(["kind", "n", *found, "nothing said"], rows))
    rows = []
    for model, of in found.items():
        for kind, values in of.items():
            if not is_foreign(model, kind):
                quantiles = [f"{value:.1f}" for value in np.nanquantile(values, [0.05, 0.5, 0.95])]
                accepted = [f"{share:.3f}" for share in level(null, values)]
                whose = "own" if maker(kind) == model else "cousin's"
                rows.append([model, kind, whose, *quantiles, *accepted, str(len(values))])
    if rows:
        head = ["model", "images", "whose", "5 %", "50 %", "95 %", *(f"p <= {rate:.3g}" for rate in RATES), "n"]
        print("**own images and those of a model with the same encoder: standings and shares accepted**\n")
        print(to_markdown(head, rows))


def report_margins(work: Path, null: Null, models: Sequence[str]) -> None:
    """Of half 0: what each margin of the veto turns down."""
    rows = []
    for margin in MARGINS:
        found = tables(work, 0, models, margin=margin)
        cells = [level(null, of[kind])[0] for model, of in found.items() for kind in of if is_foreign(model, kind)]
        own = [level(null, of[kind]) for model, of in found.items() for kind in of if maker(kind) == model]
        each = [f"{level(null, of_foreign(of, model))[0]:.3f}" for model, of in found.items()]
        rows.append([str(margin), *each, f"{max(cells):.3f}", *(f"{share:.3f}" for share in np.mean(own, axis=0))])
    head = ["margin", *models, "worst cell", *(f"own p <= {rate:.3g}" for rate in RATES)]
    print(f"**half 0: share of foreign images with p <= {RATES[0]:g}, and of own images, by the margin of the veto**\n")
    print(to_markdown(head, rows))


def report_unseen(found: Mapping[str, Mapping[str, np.ndarray]], reference: Mapping[str, Mapping]) -> None:
    rows = []
    for model, of in found.items():
        others = fit({name: known for name, known in reference.items() if not related(name, model)})
        values = of_foreign(of, model)
        rows.append([model, *(f"{share:.4f}" for share in level(others, values)), str(len(values))])
    print("**the same, with a null that never saw this autoencoder or its cousin**\n")
    print(to_markdown(["model", *(f"{rate:.3g}" for rate in RATES), "n"], rows))


def report_turned(work: Path, models: Sequence[str]) -> None:
    """Of all images of both halves: a turned copy that is as near as `COMMUTES` is no control."""
    rows = []
    for model in models:
        files = [file for half in (0, 1) for file in sorted((work / str(half) / model).glob("*.npz"))]
        values = np.concatenate([nearest_turned(file) for file in files])
        rows.append([model, f"{values.min():.4f}", str((values <= COMMUTES).sum()), str(len(values))])
    print("**how near turned copies come, in mean log losses**\n")
    print(to_markdown(["model", "nearest", f"at most {COMMUTES:g}", "n"], rows))


def shown(null: Null, values: np.ndarray) -> str:
    return " ".join(f"{share:.3f}" for share in level(null, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "fit", "print"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--own", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("--half", type=int, choices=(0, 1), default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kinds", type=split_list, default=[*KINDS, *OF_MODELS], help="A,B (default: the reference's)")
    parser.add_argument("--after", type=int, default=0, help="so many images of each foreign kind are left out")
    parser.add_argument("--most", type=int, default=MOST, help=f"images of a kind and a half (default {MOST})")
    args = parser.parse_args()
    if args.step == "fit":
        null = fit(tables(args.work, 0, args.models, margin=None))
        null.save(args.out)
        print({name: len(group) for name, group in null.groups.items()})
    elif args.step == "print":
        found = {name: tables(args.work, 1, args.models, name) for name in CONTROLS}
        reference = {name: tables(args.work, 0, args.models, name, margin=None) for name in CONTROLS}
        report_levels(Null.shipped(), found["both"])
        report_turned(args.work, args.models)
        if all(reference["both"].values()):
            report_margins(args.work, Null.shipped(), args.models)
            report_unseen(found["both"], reference["both"])
            report_controls(found, reference, args.models)
    for model in args.models if args.step == "measure" else ():
        autoencoder = load_autoencoder(model)
        for kind in tqdm(args.kinds, desc=model, disable=None):
            if kind in OF_MODELS:
                made_by, process = OF_MODELS[kind]
                images = own(made_by, args.own, process, most=args.most)
            else:
                images = foreign(kind, args.half, args.data, most=args.most, after=args.after)
            keep(args.work / str(args.half) / model / file_name(kind), autoencoder, images)


if __name__ == "__main__":
    main()

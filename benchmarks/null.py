"""The null of the alignment: what images that have nothing to do with an autoencoder score, and how level it is.

    python -m benchmarks.null measure --data DATA --own FOLDER --work WORK [--models mini-vq,mini-kl16] [--half 0]
    python -m benchmarks.null fit --work WORK --out FILE
    python -m benchmarks.null print --work WORK

`measure` keeps the losses of every block, band and view, of foreign images of every kind (`benchmarks.sources`) and of
other models' own images (FOLDER/MODEL/*.png), in WORK/HALF/MODEL/KIND.npz; an interrupted run goes on where it stopped.
`fit` makes the reference that ships of half 0, a group for each model. `print` has the level of half 1 by model and
kind, that with the shifts or the turns alone for controls (each with a null of its own), that of a null which never saw
a model, and how own images and cousins stand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import Null, load_autoencoder
from aedr_jax.autoencoders.names import split_list
from aedr_jax.decision.null import ROUNDING
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import block_losses, of_blocks
from benchmarks.batches import keep_columns
from benchmarks.matrix import MODELS, related
from benchmarks.sources import CHAIN, KINDS, Pixels, foreign, own

MOST = 50  # images of a kind, a half and a model
RATES = (0.05, 0.01, 0.05 / 30)
CONTROLS = {"shifts": slice(1, 4), "turns": slice(4, 6), "both": slice(1, 6)}  # of the views
FOR_OWN = ("none", "jpeg50", CHAIN)  # other models' own images take part as these


@cache
def measuring():
    return jax.jit(block_losses)


def keep(path: Path, autoencoder, images: Iterable[Pixels]) -> None:
    """`losses` [n, bands, views, blocks] and `telling` [n, blocks] of images of one shape."""
    keep_columns(path, ("losses", "telling"), measuring(), autoencoder, images)


def file_name(kind: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", kind.lower()) + ".npz"


def standings(path: Path, controls: str = "both") -> np.ndarray:
    """alignment / error of each image of a file; 0 where nothing can be said, which no rule accepts."""
    with np.load(path) as table:
        losses = np.concatenate([table["losses"][:, :, :1], table["losses"][:, :, CONTROLS[controls]]], axis=2)
        found = of_blocks(jnp.asarray(losses), jnp.asarray(table["telling"]), tiles=1)
    return np.nan_to_num(np.asarray(found.alignment / found.error, np.float64))


def tables(work: Path, half: int, models: Sequence[str], controls: str = "both") -> dict[str, dict[str, np.ndarray]]:
    """`{model: {kind: standings}}` of a half; the model's own images and its cousins' are kinds like the others."""
    kinds = {file_name(kind): kind for kind in KINDS}
    found: dict[str, dict[str, np.ndarray]] = {}
    for model in models:
        files = sorted((work / str(half) / model).glob("*.npz"))
        found[model] = {kinds.get(file.name, file.stem): standings(file, controls) for file in files}
    return found


def maker(kind: str) -> str | None:
    """The miniature model whose images a kind is, or None."""
    return next((model for model in MODELS if kind.startswith(f"of-{model}-")), None)


def is_foreign(model: str, kind: str) -> bool:
    made_by = maker(kind)
    return made_by is None or not related(model, made_by)


def fit(found: Mapping[str, Mapping[str, np.ndarray]]) -> Null:
    """A group for each model, of all kinds of foreign images that something can be said of."""
    groups = {}
    for model, of in found.items():
        values = of_foreign(of, model)
        groups[model] = tuple(np.sort(values[values != 0]).round(4).tolist())
    return Null(groups)


def level(null: Null, values: np.ndarray) -> np.ndarray:
    """The share of images with a p-value of at most each of `RATES`; those without one count as turned away."""
    p = np.asarray(null.p_value(np.where(values == 0, np.nan, values)), np.float64)
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


def report(null: Null, found: Mapping[str, Mapping[str, np.ndarray]], reference: Mapping[str, Mapping]) -> None:
    kinds = list(dict.fromkeys(kind for of in found.values() for kind in of))
    rows = []
    for kind in kinds:
        cells = [of[kind] for model, of in found.items() if kind in of and is_foreign(model, kind)]
        each = [shown(null, of[kind]) if kind in of and is_foreign(model, kind) else "" for model, of in found.items()]
        rows.append([kind, str(len(cells[0])), *each, f"{np.mean(np.concatenate(cells) == 0):.3f}"])
    every = {m: of_foreign(of, m) for m, of in found.items()}
    rows.append(["all", "", *(shown(null, values) for values in every.values()), ""])
    header = ["kind", "n", *found, "nothing said"]
    print(f"**share of foreign images with p <= {', '.join(f'{rate:.3g}' for rate in RATES)}**\n")
    print(to_markdown(header, rows))
    rows = []
    for model, values in every.items():
        others = fit({name: of for name, of in reference.items() if name != model and not related(name, model)})
        rows.append([model, *(f"{share:.4f}" for share in level(others, values)), str(len(values))])
    print("**the same, with a null that never saw this autoencoder or its cousin**\n")
    print(to_markdown(["model", *(f"{rate:.3g}" for rate in RATES), "n"], rows))
    rows = []
    for model, of in found.items():
        for kind in kinds:
            if kind in of and not is_foreign(model, kind):
                values = of[kind]
                low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
                accepted = level(null, values)
                what = "own" if maker(kind) == model else "cousin's"
                shares = [f"{share:.3f}" for share in accepted]
                rows.append(
                    [model, kind, what, f"{low:.1f}", f"{middle:.1f}", f"{high:.1f}", *shares, str(len(values))]
                )
    print("**own images and those of a model with the same encoder: standings and shares accepted**\n")
    print(
        to_markdown(
            ["model", "images", "whose", "5 %", "50 %", "95 %", *(f"p <= {rate:.3g}" for rate in RATES), "n"], rows
        )
    )


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
    args = parser.parse_args()
    if args.step == "fit":
        null = fit(tables(args.work, 0, args.models))
        null.save(args.out)
        print({name: len(group) for name, group in null.groups.items()})
    elif args.step == "print":
        reference, found = ({name: tables(args.work, half, args.models, name) for name in CONTROLS} for half in (0, 1))
        report(Null.shipped(), found["both"], reference["both"])
        report_controls(found, reference, args.models)
    for model in args.models if args.step == "measure" else ():
        autoencoder = load_autoencoder(model)
        folder = args.work / str(args.half) / model
        for kind in tqdm(KINDS, desc=model, disable=None):
            keep(folder / file_name(kind), autoencoder, foreign(kind, args.half, args.data, most=MOST))
        for other in MODELS:
            for process in FOR_OWN:
                keep(folder / f"of-{other}-{process}.npz", autoencoder, own(other, args.own, process, most=MOST))


if __name__ == "__main__":
    main()

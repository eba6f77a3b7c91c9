"""How a verdict is misled, and what it costs in grey levels: laundering, and changes made against the standing.

    python -m benchmarks.attacks measure FOLDER --work WORK [--models mini-kl4-a,mini-vq] [--count 40]
    python -m benchmarks.attacks defend LARGE --work WORK [--models mini-kl4-a,mini-vq] [--count 40]
    python -m benchmarks.attacks print --work WORK

FOLDER/MODEL/*.png are each model's own images and FOLDER/photographs/*.png foreign ones, as `benchmarks.matrix
generate` writes them in WORK/images; LARGE/MODEL/*.png are own images as for `benchmarks.search`. Attacks are on what
decides, alignment over its error (`Measurement.standing`), in a ball of one to four grey levels: 20 steps of projected
signed gradients through the filter, the controls and the error, but for the veto of turned copies, which has none; or
to bring about that veto alone, or to be accepted past it; and one step along the image's own residual, which adds
energy on the decoder's grid alone. `defend` attacks large images by gradients, through the tiles that the verdict looks
at or through all of the image, and looks at them with a search, which tests other tiles.

Standings are kept in WORK/MODEL/CELL.npz, and the search's in WORK/MODEL/CELL.csv; an interrupted run goes on. `print`
has the share that the model accepts with nothing calibrated, foreign p at most .05; with a search each of its two looks
has half of that. Grey levels: the root of the mean squared change. Intervals: 95 %, Clopper-Pearson.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import AlignmentConfig, Measurement, Null, load_autoencoder, measure, prepare, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.images.geometry import Geometry
from aedr_jax.images.pixels import fit_crop
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.signal.alignment import align, block_losses, of_blocks, over_blocks
from aedr_jax.study.attacks import LEVEL, along_residual, launder, projected
from benchmarks import search
from benchmarks.batches import in_batches, keep_arrays, of_one_version
from benchmarks.matrix import MODELS, RATE, print_table, related, share
from benchmarks.null import VETO
from benchmarks.sources import GRID

BATCH = 4
COUNT = 40
LEVELS = (1, 2, 4)
STEPS = 20
OPEN = AlignmentConfig(least_turned=None)  # a veto has no gradient
EVERY = dataclasses.replace(OPEN, stop=None)  # all four tiles of a square of `search.SIDE`

Change = Callable[[Any, jax.Array], jax.Array]


class Cell(NamedTuple):
    """Whose images, what is done to them, and with which model's autoencoder."""

    source: str
    done: str
    change: Change
    by: str


def standing(measured: Measurement) -> jax.Array:
    return jnp.asarray(measured.standing)


def of_tiles(autoencoder: Any, images: jax.Array) -> jax.Array:
    """Of the tiles that the verdict looks at."""
    found = align(autoencoder, images, config=OPEN)
    return found.alignment / found.error


def above_turned(losses: jax.Array, telling: jax.Array) -> jax.Array:
    """In each band, how far an image's log loss is above that of the turned copy that loses least."""
    logs = over_blocks(jnp.log(losses + OPEN.floor), telling)
    return (logs[:, :, :1] - logs[:, :, -len(OPEN.turns) :]).max(2)


def of_veto(autoencoder: Any, images: jax.Array) -> jax.Array:
    return above_turned(*block_losses(autoencoder, images, config=OPEN)).sum(1)


def past_veto(autoencoder: Any, images: jax.Array) -> jax.Array:
    """Of images of one tile: in the band that counts, the standing and, in margins, what the veto's margin still lacks,
    with a fifth to spare."""
    losses, telling = block_losses(autoencoder, images, config=OPEN)
    lacking = jax.nn.relu(above_turned(losses, telling) + 1.2 * VETO) / VETO

    def of_band(i: int) -> jax.Array:
        config = dataclasses.replace(OPEN, bands=OPEN.bands[i : i + 1])
        found = of_blocks(losses[:, i : i + 1], telling, tiles=1, config=config)
        return found.alignment / found.error + lacking[:, i]

    return jnp.stack([of_band(i) for i in range(len(OPEN.bands))]).min(0)


def of_all(autoencoder: Any, images: jax.Array) -> jax.Array:
    """Of all tiles of the squares in the four corners, which cover an image of up to twice their side: the sum."""
    ends = [(0, (length - search.SIDE) // GRID * GRID) for length in images.shape[1:3]]
    squares = [images[:, y : y + search.SIDE, x : x + search.SIDE] for y, x in itertools.product(*ends)]

    @jax.checkpoint  # one square at a time, or what gradients need of all four is 16 GiB
    def of_square(square: jax.Array) -> jax.Array:
        found = align(autoencoder, square, config=EVERY)
        return found.alignment / found.error

    return jax.lax.map(of_square, jnp.stack(squares)).sum(0)


THROUGH: dict[str, Callable[[Any, jax.Array], jax.Array]] = {"tiles looked at": of_tiles, "all of it": of_all}
OBJECTIVES = {**THROUGH, "veto": of_veto, "past the veto": past_veto}


@partial(jax.jit, static_argnames="through")
def ascent(autoencoder: Any, images: jax.Array, sign: jax.Array, epsilon: jax.Array, *, through: str) -> jax.Array:
    """`perturb` against the standing, one program for both targets and every radius; a sign of -1 lowers it."""
    gradient = jax.grad(lambda x: sign * OBJECTIVES[through](autoencoder, x).sum())
    return projected(gradient, images, epsilon=epsilon, steps=STEPS, step_size=2.5 * epsilon / STEPS)


def by_gradients(
    autoencoder: Any, images: jax.Array, *, target: str, levels: int, through: str = "tiles looked at"
) -> jax.Array:
    sign = 1.0 if target == "reject" else -1.0
    return ascent(autoencoder, images, jnp.float32(sign), jnp.float32(levels * LEVEL), through=through)


def amount(levels: int) -> str:
    return f"{levels} grey level{'s' * (levels > 1)}"


def cells(model: str) -> Iterator[Cell]:
    """Of a model, the cheap ones first."""
    foreign = next(name for name in MODELS if not related(model, name))
    sources = ((model, "reject"), (PHOTOGRAPHS, "accept"))
    for source, _ in sources:
        yield Cell(source, "nothing", lambda _, images: images, model)
    yield Cell(PHOTOGRAPHS, "one pass through this model", jax.jit(launder), model)
    yield Cell(model, f"one pass through {foreign}", jax.jit(launder), foreign)
    for levels in LEVELS:
        for source, target in sources:
            change = jax.jit(partial(along_residual, target=target, epsilon=levels * LEVEL))
            yield Cell(source, f"{target}, along the residual, {amount(levels)}", change, model)
    for levels in LEVELS:
        for source, target in sources:
            change = partial(by_gradients, target=target, levels=levels)
            yield Cell(source, f"{target}, by gradients, {amount(levels)}", change, model)
        change = partial(by_gradients, target="reject", levels=levels, through="veto")
        yield Cell(model, f"reject, by gradients of the veto, {amount(levels)}", change, model)
        change = partial(by_gradients, target="accept", levels=levels, through="past the veto")
        yield Cell(PHOTOGRAPHS, f"accept, by gradients past the veto, {amount(levels)}", change, model)


def path_of(work: Path, model: str, cell: Cell) -> Path:
    return work / model / f"{'own' if cell.source == model else cell.source}-{search.file_name(cell.done)[:-4]}.npz"


@jax.jit
def columns(candidate: Any, images: jax.Array, changed: jax.Array) -> dict[str, jax.Array]:
    """Of each changed image its standing, and how far it was moved, in grey levels."""
    moved = jnp.sqrt(jnp.mean(jnp.square(changed - images), axis=(1, 2, 3))) / LEVEL
    return {"standing": standing(measure(candidate, changed)), "moved": moved}


def attack_and_score(change: Change, autoencoders: tuple[Any, Any], images: jax.Array) -> dict[str, jax.Array]:
    candidate, by = autoencoders
    return columns(candidate, images, change(by, images))


def measure_cells(model: str, folder: Path, work: Path, count: int) -> None:
    """What is there already is not measured again."""
    candidate = load_autoencoder(model)
    for cell in tqdm(list(cells(model)), desc=model, disable=None):
        out = path_of(work, model, cell)
        if out.exists():
            continue
        images = [fit_crop(read_image(path), candidate.factor) for path in files_of(folder / cell.source, count)]
        by = with_fast_gradients(candidate if cell.by == model else load_autoencoder(cell.by))
        attacked = partial(attack_and_score, cell.change)
        found = in_batches(attacked, (candidate, by), images, size=BATCH)
        keep_arrays(out, **found)


def files_of(folder: Path, count: int) -> list[Path]:
    files = sorted(folder.glob("*.png"))[:count]
    if not files:
        raise SystemExit(f"{folder}: no *.png")
    return files


def defence_of(through: str, levels: int) -> str:
    return search.file_name(f"large reject {through} {levels}")


def defend(model: str, folder: Path, work: Path, count: int) -> None:
    """Own images that gradients moved off, searched: a row each, in the order of the images through all attacks."""
    autoencoder = load_autoencoder(model)
    quick = with_fast_gradients(autoencoder)

    def made(path: Path, through: str, levels: int) -> search.Made:
        pixels = fit_crop(read_image(path), autoencoder.factor)
        images = jnp.asarray(prepare(pixels))
        changed = np.asarray(by_gradients(quick, images, target="reject", levels=levels, through=through))[0]
        return np.round((changed + 1) / LEVEL).astype(np.uint8), Geometry(pixels.shape[:2])

    for path in tqdm(files_of(folder / model, count), desc=model, disable=None):
        for through, levels in itertools.product(THROUGH, LEVELS):
            out = work / model / defence_of(through, levels)
            search.keep(out, autoencoder, path.name, partial(made, path, through, levels))


def report(work: Path, models: list[str]) -> None:
    null = Null.shipped()
    limit, halved = null.threshold(RATE), null.threshold(RATE / 2)
    found: dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for model in models:
        for cell in cells(model):
            if (path := path_of(work, model, cell)).exists():
                with np.load(path) as table:  # NaN, where nothing can be said, is below nothing
                    columns = table["standing"] < limit, table["moved"]
                kind = "own" if cell.source == model else cell.source, cell.done.replace(cell.by, "another model")
                found.setdefault(kind, {})[model] = columns
    rows = []
    for (name, done), of in found.items():
        accepted, moved = (np.concatenate(column) for column in zip(*of.values(), strict=True))
        each = [f"{of[model][0].mean():.3f}" if model in of else "" for model in models]
        rows.append([name, done, f"{moved.mean():.1f}", *each, share(accepted), str(accepted.size)])
    if rows:
        header = ["images", "done", "grey levels", *models, "all [95 %]", "n"]
        print_table("Accepted as the model's own", header, rows)
    rows = []
    for through, levels in itertools.product(THROUGH, LEVELS):
        if of := [row for model in models for row in search.read_rows(work / model / defence_of(through, levels))]:
            first = np.array([float(row["unsearched"]) for row in of])
            then = (first < halved) | (search.standardized(of) < halved)
            right = np.array([row["made"] == row["found"] for row in of])
            rows.append([through, amount(levels), share(first < limit), share(then), share(right), str(len(of))])
    if rows:
        header = ["gradients through", "at most", "accepted with no search", "with a search", "found as it is", "n"]
        print_table("Own images of LARGE, to be rejected; all models", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "defend", "print"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("--count", type=int, default=COUNT, help=f"images of a cell (default {COUNT})")
    args = parser.parse_args()
    of_one_version(args.work)
    if args.step == "print":
        report(args.work, args.models)
        return
    for model in args.models:
        (measure_cells if args.step == "measure" else defend)(model, args.folder, args.work, args.count)


if __name__ == "__main__":
    main()

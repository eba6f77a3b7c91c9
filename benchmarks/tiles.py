"""What a verdict loses by looking at few tiles of a large image, one after another, and how many it looks at.

    aedr generate --model MODEL --out FOLDER/MODEL -n 200 --seed 9500000 --size 512     for each model
    python -m benchmarks.tiles measure FOLDER --data DATA --work WORK [--models mini-vq,mini-movq] [--sources ...]
        [--side 512] [--count 40]
    python -m benchmarks.tiles print --work WORK
    python -m benchmarks.tiles levels --work WORK

Every image is a square of 512 pixels (photographs: of 384), of which a model measures the paper's signal of the whole
and the block losses of all tiles. Foreign to a model are the first 40 images of each other model (`--count`), but for
one with the same encoder, photographs of half 1, other generators' images, and JPEG files as they came, four of 256
pixels side by side, whose grids of 8 pixels agree. Losses are kept in WORK/MODEL/SOURCE.npz; what is there is not made
again.

`print` compares rules on these same losses: the first tile alone, the default (up to four, one after another), four,
all. "AUC": of standings, or of the paper's signal; "tiles": looked at on average; foreign and own images accepted at
bounds of the foreign p-value. An image of which nothing can be said stands at 0. Intervals: 95 %, Clopper-Pearson for
shares, percentile bootstrap over images for areas. `levels` has the share of foreign ones by model and source.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aedr_jax import AlignmentConfig, Null, SignalConfig, load_autoencoder, measure, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.decision.null import ROUNDING
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import block_losses, of_blocks
from aedr_jax.study.metrics import area_under_curve, interval, resample
from benchmarks.batches import keep_columns
from benchmarks.matrix import MODELS, related, share
from benchmarks.sources import Pixels, generated, half_of, jpeg_files, middle, photographs

SIDE = 512
EVERY = AlignmentConfig(tiles=16)
OPEN = dataclasses.replace(EVERY, least_turned=None)  # by which it is told whether further tiles are looked at
STOP = AlignmentConfig().stop
RATES = (0.05, 0.01)
REPEATS = 1000
OF_OTHERS = 40  # images of each


def own(folder: Path, model: str, side: int) -> Iterator[Pixels]:
    return (middle(read_image(path), side) for path in sorted((folder / model).glob("*.png")))


def of_half(found: Iterator[tuple[str, Pixels]], half: int, side: int) -> Iterator[Pixels]:
    return (middle(image, side) for group, image in found if half_of(group) == half and min(image.shape[:2]) >= side)


def mosaics(data: Path, half: int) -> Iterator[Pixels]:
    """Four JPEG files side by side."""
    squares = of_half(jpeg_files(data), half, SIDE // 2)
    while len(four := list(itertools.islice(squares, 4))) == 4:
        yield np.concatenate([np.concatenate(four[:2], axis=1), np.concatenate(four[2:], axis=1)])


SOURCES: Mapping[str, Callable[[Path, int], Iterator[Pixels]]] = {
    "photographs": lambda data, half: of_half(photographs(data), half, 384),
    "JPEG files": mosaics,
    "other generators": lambda data, half: of_half(generated(data), half, SIDE),
}


@cache
def measuring():
    def whole(autoencoder, images):
        losses, telling = block_losses(autoencoder, images, config=EVERY)
        return losses, telling, measure(autoencoder, images, config=SignalConfig.paper()).signal

    return jax.jit(whole)


class Rule(NamedTuple):
    """At most so many tiles, and whether fewer do once it is clear."""

    tiles: int
    stops: bool = False


RULES = {
    "one tile": Rule(1),
    "up to four, one after another": Rule(4, stops=True),
    "four tiles": Rule(4),
    "all tiles": Rule(EVERY.tiles),
}


class Images(NamedTuple):
    """Of one source under one model: for each rule the standings and the numbers of tiles, and the paper's signals."""

    standing: Mapping[str, np.ndarray]
    tiles: Mapping[str, np.ndarray]
    signal: np.ndarray


def read(path: Path) -> Images:
    with np.load(path) as table:
        losses, telling, signal = (table[name] for name in ("losses", "telling", "signal"))
    n, bands, views, _ = losses.shape
    count = telling.shape[1] // 25  # blocks of a tile
    losses, telling = losses.reshape(n, bands, views, count, -1), telling.reshape(n, count, -1)
    order = np.argsort(-telling.sum(-1), axis=1, kind="stable")  # the tiles with most blocks that tell first
    losses = np.take_along_axis(losses, order[:, None, None, :, None], axis=3)
    telling = np.take_along_axis(telling, order[:, :, None], axis=1)

    @cache
    def after(tiles: int, config: AlignmentConfig = EVERY) -> np.ndarray:
        """Standings on the first so many tiles; NaN where they say nothing."""
        found = of_blocks(
            jnp.asarray(losses[:, :, :, :tiles].reshape(n, bands, views, -1)),
            jnp.asarray(telling[:, :tiles].reshape(n, -1)),
            tiles=tiles,
            config=config,
        )
        return np.asarray(found.alignment / found.error, np.float64)

    standings, looked = {}, {}
    for name, rule in RULES.items():
        most = min(rule.tiles, count)
        number = np.full(n, most)
        if rule.stops:
            for tiles in range(most - 1, 0, -1):
                so_far = after(tiles, OPEN)
                number[(so_far <= STOP[0]) | (so_far >= STOP[1])] = tiles
        standings[name] = np.nan_to_num(np.choose(number - 1, [after(tiles) for tiles in range(1, most + 1)]))
        looked[name] = number
    return Images(standings, looked, np.nan_to_num(signal, nan=np.inf))


def joined(found: Sequence[Images]) -> Images:
    return jax.tree.map(lambda *columns: np.concatenate(columns), *found)


def areas_of(drawn: Sequence[tuple[np.ndarray, np.ndarray]], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([area_under_curve(a[i], b[j]) for i, j in drawn])


def p_values(images: Images, rule: str) -> np.ndarray:
    return np.asarray(Null.shipped().p_value(images.standing[rule]))


def read_all(work: Path, models: Sequence[str]) -> dict[str, dict[str, Images]]:
    return {m: {path.stem: read(path) for path in sorted((work / m).glob("*.npz"))} for m in models}


def foreign_to(of: Mapping[str, Mapping[str, Images]]) -> dict[str, dict[str, Images]]:
    return {m: {source: one for source, one in found.items() if not related(m, source)} for m, found in of.items()}


def report(of: Mapping[str, Mapping[str, Images]]) -> None:
    models = list(of)
    own_images = {m: of[m][m] for m in models}
    others = {m: joined([*found.values()]) for m, found in foreign_to(of).items()}
    rows = []
    for model in models:
        ours, foreign = own_images[model], others[model]
        whole = [np.arange(len(images.signal)) for images in (ours, foreign)]
        areas = partial(areas_of, [whole, *resample(whole, REPEATS)])
        scores = {name: (ours.standing[name], foreign.standing[name]) for name in RULES}
        scores["the paper's signal of the whole"] = (ours.signal, foreign.signal)
        best = areas(*scores["all tiles"])
        for name, pair in scores.items():
            found = areas(*pair)
            low, high = interval((found - best)[1:])
            rows.append([model, name, f"{found[0]:.4f}", f"[{low:+.4f}, {high:+.4f}]"])
    counts = ", ".join(f"{len(own_images[m].signal)} and {len(others[m].signal)}" for m in models)
    print(f"**AUC, and its difference to all tiles (own and foreign images: {counts})**\n")
    print(to_markdown(["model", "what is looked at", "AUC", "difference"], rows))
    rows = []
    for name in RULES:
        for what, images in (("own", own_images), ("foreign", others)):
            found = {model: p_values(images[model], name) for model in models}
            every = np.concatenate(list(found.values()))
            shares = [share(every <= rate * ROUNDING) for rate in RATES]
            of_models = [(p <= RATES[0] * ROUNDING).mean() for p in found.values()]
            tiles = np.concatenate([images[m].tiles[name] for m in models]).mean()
            span = f"{min(of_models):.3f} to {max(of_models):.3f}"
            rows.append([name, what, f"{tiles:.2f}", *shares, span, str(len(every))])
    print("**All models together**\n")
    header = ["what is looked at", "images", "tiles", *(f"p <= {rate:g}" for rate in RATES), "by model, .05", "n"]
    print(to_markdown(header, rows))


def report_levels(of: Mapping[str, Mapping[str, Images]]) -> None:
    """Of each model and source, where what all tiles of a pair's images have in common shows, and of all sources."""
    others = foreign_to(of)
    sources = [*dict.fromkeys(source for found in others.values() for source in found), "all"]
    for found in others.values():
        if found:
            found["all"] = joined([*found.values()])
    several = any(one.tiles["all tiles"].max() > 1 for found in others.values() for one in found.values())
    rules = [*RULES] if several else ["one tile"]
    rows = []
    for source in sources:
        images = {model: found[source] for model, found in others.items() if source in found}
        shares = {
            model: " ".join(f"{(p_values(one, rule) <= RATES[0] * ROUNDING).mean():.3f}" for rule in rules)
            for model, one in images.items()
        }
        counts = sorted({len(one.signal) for one in images.values()})
        rows.append([source, ", ".join(map(str, counts)), *(shares.get(model, "") for model in of)])
    print(f"**Foreign images with p <= {RATES[0]:g}: {'; '.join(rules)}**\n")
    print(to_markdown(["source", "n", *of], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print", "levels"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=SIDE, help=f"of the models' images (default {SIDE})")
    parser.add_argument("--count", type=int, default=OF_OTHERS, help=f"of each other model (default {OF_OTHERS})")
    parser.add_argument("--half", type=int, default=1, choices=(0, 1), help="of photographs and files (default 1)")
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("--sources", type=split_list, default=[*MODELS, *SOURCES], help="A,B (default: all)")
    args = parser.parse_args()
    if args.step != "measure":
        {"print": report, "levels": report_levels}[args.step](read_all(args.work, args.models))
        return
    for model in args.models:
        autoencoder = load_autoencoder(model)
        for source in tqdm(args.sources, desc=model, disable=None):
            images = SOURCES[source](args.data, args.half) if source in SOURCES else own(args.folder, source, args.side)
            if source in MODELS and source != model:
                images = itertools.islice(images, args.count)
            path = args.work / model / f"{source}.npz"
            keep_columns(path, ("losses", "telling", "signal"), measuring(), autoencoder, images)


if __name__ == "__main__":
    main()

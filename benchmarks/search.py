"""The search: own images cropped, mirrored, turned and resized, and foreign ones, under the geometry found for them.

    aedr generate --model MODEL --out FOLDER/MODEL -n 40 --seed 7000000 --size 352      for each model
    python -m benchmarks.search measure FOLDER --data DATA --work WORK [--models mini-vq,mini-movq]
    python -m benchmarks.search print FOLDER --data DATA --work WORK [--limit -4]

FOLDER/MODEL/*.png are own images of at least 352 pixels: what is resized to three quarters is the whole, of all else
squares of 256 pixels are cut. Foreign: photographs that trained nothing, and JPEG files as they came (their grid of 8
pixels kept), each given to one of the models in turn. `measure` writes a row for each image in WORK/MODEL/KIND.csv as
it goes, image by image through all models and kinds, and goes on where it stopped.

`print` has the share in which the geometry was found as it was made, and the share accepted: alignment / error at most
`--limit`, or else the 1 % quantile of the foreign images of even number; those of odd number are reported, as is what
the same images score with no search.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from tqdm import tqdm

from aedr_jax import load_autoencoder, prepare, read_image
from aedr_jax.autoencoders.names import split_list
from aedr_jax.images.geometry import Geometry
from aedr_jax.images.pixels import fit_crop
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import align
from aedr_jax.signal.search import search
from benchmarks.batches import of_one_version
from benchmarks.matrix import MODELS, share
from benchmarks.sources import GRID, Pixels, jpeg_files, middle, photographs, processed

SIDE = 256
COUNT = 40  # own images of a model and a kind, and foreign ones of a model
FOREIGN = "foreign"
RATE = 0.01
UNSEARCHED = jax.jit(align)

Made = tuple[Pixels, Geometry]


def cropped(
    image: Pixels, rng: np.random.Generator, *, offset: bool, mirrored: bool = False, quarters: int = 0
) -> Made:
    """A square that begins off the grid, or in the corner; mirrored, then turned."""
    y, x = divmod(int(rng.integers(1, GRID**2)), GRID) if offset else (0, 0)
    square = image[y : y + SIDE, x : x + SIDE]
    square = np.rot90(square[:, ::-1] if mirrored else square, quarters)
    off = (-y % GRID, -x % GRID)
    return np.ascontiguousarray(square), Geometry((SIDE, SIDE), mirrored, quarters, offset=off)


def mirrored(image: Pixels, rng: np.random.Generator) -> Made:
    return cropped(image, rng, offset=False, mirrored=True)


def turned(image: Pixels, rng: np.random.Generator) -> Made:
    return cropped(image, rng, offset=False, quarters=int(rng.integers(1, 4)))


def all_of_them(image: Pixels, rng: np.random.Generator) -> Made:
    return cropped(image, rng, offset=True, mirrored=True, quarters=int(rng.integers(4)))


def resized(image: Pixels, rng: np.random.Generator, *, scale: float, mirror: bool = False) -> Made:
    """The whole where that is still large enough, or else a square."""
    before = image if scale < 1 else image[:SIDE, :SIDE]
    after = processed(before, f"resize{scale}")
    geometry = Geometry(after.shape[:2], mirror, 0, before.shape[:2])
    return np.ascontiguousarray(after[:, ::-1] if mirror else after), geometry


def compressed(make: Callable[[Pixels, np.random.Generator], Made], image: Pixels, rng: np.random.Generator) -> Made:
    pixels, geometry = make(image, rng)
    return processed(pixels, "jpeg75"), geometry


KINDS: dict[str, Callable[[Pixels, np.random.Generator], Made]] = {
    "cropped": partial(cropped, offset=True),
    "mirrored": mirrored,
    "turned": turned,
    "resized x0.75": partial(resized, scale=0.75),
    "resized x1.25": partial(resized, scale=1.25),
    "cropped, mirrored, turned": all_of_them,
    "mirrored, resized x1.25": partial(resized, scale=1.25, mirror=True),
    "cropped, JPEG 75": partial(compressed, partial(cropped, offset=True)),
}


def foreign(model: str, models: list[str], data: Path) -> Iterator[tuple[str, Pixels]]:
    """This model's share, photographs and JPEG files in turn."""
    pairs = itertools.zip_longest(photographs(data), jpeg_files(data))
    named = (image for pair in pairs for image in pair if image is not None and min(image[1].shape[:2]) >= SIDE)
    for name, image in itertools.islice(named, models.index(model), None, len(models)):
        yield name, middle(image, SIDE)


def file_name(kind: str) -> str:
    return kind.replace(",", "").replace(" ", "-").lower() + ".csv"


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def keep(path: Path, autoencoder, name: str, make: Callable[[], Made]) -> None:
    """Search one image and append its row, if it has none."""
    if name in {row["image"] for row in read_rows(path)}:
        return
    pixels, made = make()
    began = perf_counter()
    found = search(autoencoder, pixels)
    seconds = perf_counter() - began
    unsearched = UNSEARCHED(autoencoder, prepare(fit_crop(pixels, GRID)))
    row = {
        "image": name,
        "made": made,
        "found": found,
        "alignment": found.alignment,
        "error": found.error,
        "unsearched": float(unsearched.alignment[0] / unsearched.error[0]),
        "seconds": f"{seconds:.1f}",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


def measure(folder: Path, data: Path, work: Path, models: list[str], count: int, of_each: int) -> None:
    """Own images first, one of each kind; what `--foreign` asks for beyond `--count` comes last."""
    autoencoders = {model: load_autoencoder(model) for model in models}
    others = {model: itertools.islice(foreign(model, list(MODELS), data), of_each) for model in models}
    for i in tqdm(range(max(count, of_each)), disable=None):
        for model, autoencoder in autoencoders.items():
            for name, pixels in itertools.islice(others[model], 1):
                as_it_is = pixels, Geometry(pixels.shape[:2])
                keep(work / model / file_name(FOREIGN), autoencoder, f"{i} {name}", lambda made=as_it_is: made)
            files = sorted((folder / model).glob("*.png"))[i : i + 1] if i < count else []
            for path, (kind, make) in itertools.product(files, KINDS.items()):
                rng = np.random.default_rng([zlib.crc32(f"{model} {kind}".encode()), i])
                keep(work / model / file_name(kind), autoencoder, path.name, partial(make, read_image(path), rng))


def standardized(rows: list[dict[str, str]]) -> np.ndarray:
    """Alignment / error of the test; 0 where it says nothing, which no limit accepts."""
    return np.nan_to_num([float(row["alignment"]) / float(row["error"]) for row in rows])


def table(work: Path, models: list[str], limit: float | None) -> str:
    def rows(kind: str) -> list[dict[str, str]]:
        return [row for model in models for row in read_rows(work / model / file_name(kind))]

    others = rows(FOREIGN)
    if limit is None:
        limit = float(np.quantile(standardized(others[::2]), RATE))
        others = others[1::2]
    lines = []
    for kind, of in ((FOREIGN, others), *((kind, rows(kind)) for kind in KINDS)):
        if of:
            scores = standardized(of)
            unsearched = np.nan_to_num([float(row["unsearched"]) for row in of])
            right = np.array([row["made"] == row["found"] for row in of])
            spread = " / ".join(f"{q:.1f}" for q in np.quantile(scores, (0, 0.05, 0.5, 0.95, 1)))
            lines.append([kind, str(len(of)), share(right), share(scores <= limit), share(unsearched <= limit), spread])
    header = [
        "image",
        "n",
        "found as made",
        "accepted",
        "with no search",
        "alignment / error: 0, 5, 50, 95, 100 %",
    ]
    seconds = np.median([float(row["seconds"]) for row in others])
    return f"accepted: alignment / error at most {limit:.2f}; median {seconds:.0f} s\n\n" + to_markdown(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="A,B: only these (default: all)")
    parser.add_argument("--count", type=int, default=COUNT, help="own images of each model and kind")
    parser.add_argument("--foreign", type=int, default=COUNT, help="foreign images given to each model")
    parser.add_argument("--limit", type=float, help="on alignment / error")
    args = parser.parse_args()
    of_one_version(args.work)
    if args.step == "measure":
        measure(args.folder, args.data, args.work, args.models, args.count, args.foreign)
    else:
        print(table(args.work, args.models, args.limit))


if __name__ == "__main__":
    main()

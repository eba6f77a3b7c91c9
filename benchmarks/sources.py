"""Images whose alignment the studies measure: foreign ones of many kinds, and own ones, as they are and processed.

All are uint8 squares of one side, `SIDE` unless said. Foreign photographs and generated images are read from DATA
(`photos/` with its INDEX.csv, `foreign/` with `photographs/` and `generated/`); of photographs, only those that no
weights saw (`weights/photos.py`). Screens, drawings, text, gradients and noise are drawn here from a seed. Half 0 chose
the reference, half 1 reports: photographs go by subject, generated ones by their model, what is drawn by its seed.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from aedr_jax import read_image
from aedr_jax.images.processing import Processing
from weights.photos import read_index, subject, subjects_split

SIDE = 128
GRID = 8  # of JPEG and of most decoders
CHAIN = "resize0.75+jpeg75+back"  # as a social network does

Pixels = np.ndarray


def processed(image: Pixels, name: str, seed: int = 0) -> Pixels:
    """What is left after some `Processing`s, joined by "+"; "back" resizes to the size before all of them."""
    height, width = image.shape[:2]
    for part in name.split("+"):
        if part == "back":
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        else:
            image = Processing.parse(part).apply(image, seed=seed)
    return image


def middle(image: Pixels, side: int = SIDE, off: tuple[int, int] = (0, 0)) -> Pixels:
    """The square around the middle, on the grid of 8 pixels but for `off`."""
    y, x = ((whole - side) // 2 // GRID * GRID + o for whole, o in zip(image.shape, off, strict=False))
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def half_of(name: str) -> int:
    return zlib.crc32(name.encode()) % 2


def photographs(data: Path) -> Iterator[tuple[str, Pixels]]:
    """Group and pixels of each photograph that trained and calibrated nothing; JPEG files as they came among them."""
    split = subjects_split(data / "photos")
    for row in read_index(data / "photos"):
        if split[row["file"]] == "test":
            yield subject(row), read_image(data / "photos" / row["file"])


def jpeg_files(data: Path) -> Iterator[tuple[str, Pixels]]:
    for path in sorted((data / "foreign" / "photographs").glob("*.jpg")):
        yield path.stem, read_image(path)


def generated(data: Path) -> Iterator[tuple[str, Pixels]]:
    """Other generators' images; the group is the model, by its file's name."""
    for path in sorted((data / "foreign" / "generated").glob("*.png")):
        yield path.stem.split("_")[0].split("-")[0] + path.stem, read_image(path)


def drawn(draw: Callable[[np.random.Generator], Pixels], name: str) -> Callable[[Path], Iterator[tuple[str, Pixels]]]:
    def pictures(data: Path) -> Iterator[tuple[str, Pixels]]:
        for i in itertools.count():  # about half of them in each half
            rng = np.random.default_rng([zlib.crc32(name.encode()), i])
            yield f"{name} {i}", draw(rng).clip(0, 255).astype(np.uint8)

    return pictures


def gradient(rng: np.random.Generator) -> Pixels:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angles = rng.uniform(0, 2 * np.pi, 3)
    ramp = np.stack([np.cos(a) * x + np.sin(a) * y for a in angles], -1) ** rng.choice([1, 3])
    return 128 + rng.uniform(40, 120) * ramp + rng.normal(0, rng.choice([0.4, 1.0, 2.0]), (SIDE, SIDE, 3))


def noise(rng: np.random.Generator) -> Pixels:
    white = rng.normal(0, 1, (SIDE, SIDE, 3)) if rng.random() < 0.5 else rng.normal(0, 1, (SIDE, SIDE, 1)) * np.ones(3)
    blur = rng.choice([0, 0.7, 1.5, 3.0, 6.0])
    soft = ndimage.gaussian_filter(white, (blur, blur, 0))
    return 128 + rng.uniform(8, 50) * soft / soft.std()


def line_art(rng: np.random.Generator) -> Pixels:
    scale = 3
    image = Image.new("RGB", (SIDE * scale, SIDE * scale), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(15, 60)):
        points = rng.integers(0, SIDE * scale, (rng.integers(2, 5), 2))
        pen.line(
            [tuple(map(int, p)) for p in points],
            fill=tuple(map(int, rng.integers(0, 120, 3))),
            width=int(rng.integers(2, 9)),
        )
    for _ in range(rng.integers(3, 12)):
        x, y = rng.integers(0, SIDE * scale, 2)
        r = rng.integers(8, 90)
        pen.ellipse([int(x - r), int(y - r), int(x + r), int(y + r)], outline="black", width=int(rng.integers(2, 9)))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)).astype(float)


def _words(rng: np.random.Generator) -> str:
    return " ".join("".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(12))


def text(rng: np.random.Generator) -> Pixels:
    paper, ink = (255, 0) if rng.random() < 0.7 else (20, 230)
    image = Image.new("RGB", (SIDE, SIDE), (paper,) * 3)
    pen = ImageDraw.Draw(image)
    size = int(rng.integers(8, 18))
    for top in range(2, SIDE, size + 3):
        pen.text((3, top), _words(rng), fill=(ink,) * 3, font_size=size)
    return np.asarray(image).astype(float)


def screen(rng: np.random.Generator) -> Pixels:
    """Windows, buttons, captions and icons in flat colours."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(map(int, rng.integers(180, 256, 3))))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(8, 20)):
        x, y = map(int, rng.integers(0, SIDE - 10, 2))
        w, h = map(int, rng.integers(8, 70, 2))
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        pen.rounded_rectangle([x, y, x + w, y + h], radius=int(rng.integers(0, 6)), fill=colour, outline=(90,) * 3)
        pen.text(
            (x + 3, y + 2),
            _words(rng)[: max(1, w // 6)],
            fill=(0,) * 3 if sum(colour) > 380 else (255,) * 3,
            font_size=10,
        )
    return np.asarray(image).astype(float)


def _then(
    pictures: Callable[[Path], Iterator], process: str, off: tuple[int, int] = (0, 0)
) -> Callable[[Path], Iterator]:
    def others(data: Path) -> Iterator[tuple[str, Pixels]]:
        for i, (group, image) in enumerate(pictures(data)):
            around = middle(image, min(SIDE * 2, min(image.shape[:2]) // GRID * GRID))
            yield group, middle(processed(around, process, i), off=off)

    return others


def smoothest(image: Pixels, side: int = SIDE) -> Pixels:
    """The square with the least fine detail, such as a sky's, on the grid of 8 pixels."""
    detail = np.abs(image - ndimage.uniform_filter(image.astype(np.float32), (3, 3, 0))).mean(-1)
    corners = [(y, x) for y in range(0, image.shape[0] - side + 1, 32) for x in range(0, image.shape[1] - side + 1, 32)]
    y, x = min(corners, key=lambda at: detail[at[0] : at[0] + side, at[1] : at[1] + side].mean())
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def _smooth(process: str) -> Callable[[Path], Iterator[tuple[str, Pixels]]]:
    """Of photographs and JPEG files, processed as a whole, one after another."""

    def pictures(data: Path) -> Iterator[tuple[str, Pixels]]:
        pairs = zip(photographs(data), jpeg_files(data), strict=False)
        for i, (group, image) in enumerate(itertools.chain.from_iterable(pairs)):
            if min(image.shape[:2]) >= SIDE:
                yield group, smoothest(processed(image, process, i))

    return pictures


_DRAWN = {"gradients": gradient, "noise": noise, "line art": line_art, "text": text, "screens": screen}

KINDS: Mapping[str, Callable[[Path], Iterator[tuple[str, Pixels]]]] = {
    "photographs": photographs,
    "JPEG files": jpeg_files,
    "JPEG files off the grid": _then(jpeg_files, "none", (5, 3)),
    **{f"JPEG {q}": _then(photographs, f"jpeg{q}") for q in (95, 75, 50, 30)},
    **{f"JPEG {q} off the grid": _then(photographs, f"jpeg{q}", (3, 5)) for q in (95, 75, 50, 30)},
    "enlarged": _then(photographs, "resize1.7"),
    "shrunk": _then(photographs, "resize0.6"),
    "other generators": generated,
    "other generators, JPEG 75": _then(generated, "jpeg75"),
    **{name: drawn(draw, name) for name, draw in _DRAWN.items()},
    "text, JPEG 75": _then(drawn(text, "text"), "jpeg75"),
    "screens, JPEG 75": _then(drawn(screen, "screens"), "jpeg75"),
}

LATER: Mapping[str, Callable[[Path], Iterator[tuple[str, Pixels]]]] = {  # which the reference that ships has not
    "smooth parts": _smooth("none"),
    **{f"JPEG {q} of smooth parts": _smooth(f"jpeg{q}") for q in (75, 50, 30)},
    **{f"JPEG {q} of gradients": _then(drawn(gradient, "gradients"), f"jpeg{q}") for q in (75, 50, 30)},
    "JPEG 50 of noise": _then(drawn(noise, "noise"), "jpeg50"),
}


def squares(kind: str, data: Path, side: int = SIDE, *, half: int | None = None) -> Iterator[Pixels]:
    """Middle squares of the images of a kind that are large enough, of one half or both. What is drawn has no end."""
    for group, image in {**KINDS, **LATER}[kind](data):
        if half in (None, half_of(group)) and min(image.shape[:2]) >= side:
            yield middle(image, side)


def foreign(kind: str, half: int, data: Path, *, most: int, after: int = 0) -> Iterator[Pixels]:
    """The first `most` squares of a kind in a half, or the first after so many others."""
    return itertools.islice(squares(kind, data, half=half), after, after + most)


def own(model: str, folder: Path, process: str, *, most: int) -> Iterator[Pixels]:
    """The first `most` images of FOLDER/MODEL, processed."""
    for i, path in enumerate(sorted((folder / model).glob("*.png"))[:most]):
        yield middle(processed(read_image(path), process, i))

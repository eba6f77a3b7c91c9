"""The images of the demo, and how well they were judged: samples of the miniature models, and photographs."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from aedr_jax.decision.attribution import AMBIGUOUS
from aedr_jax.generate.miniature import sample_images
from aedr_jax.images.codec import read_image
from aedr_jax.scoring.verdicts import Verdict

__all__ = ["PHOTOGRAPHS", "Outcome", "middle", "outcome", "photograph_files", "write_images"]

FIRST_SEED = 7_000_000  # no calibration and no table has seeds near it
PHOTOGRAPHS = "photographs"
SHORT_SIDE = 192
SIDE = 128
# Photographs of open licence inside installed packages: public domain, CC0 or CC-BY (their READMEs name each).
SHIPPED = {
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many verdicts were right, named several models with the right one among them, or were wrong."""

    right: int
    ambiguous: int
    wrong: int


def photograph_files() -> list[Path]:
    """The photographs that scikit-image and scikit-learn ship, where those are installed; neither is imported."""
    files = []
    for package, names in SHIPPED.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            root = Path(next(iter(spec.submodule_search_locations)))
            files += [root / name for name in names if (root / name).is_file()]
    return files


def write_images(out: Path, models: Sequence[str], count: int) -> Iterator[Path]:
    """Write `count` images of each model and the photographs, `OUT/SOURCE/NAME.png`, one after the other."""
    for model in models:
        folder = out / model
        folder.mkdir(parents=True, exist_ok=True)
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        for seed, pixels in zip(seeds, sample_images(model, seeds), strict=True):
            yield _save(pixels, folder / f"{seed}.png")
    for file in photograph_files():
        folder = out / PHOTOGRAPHS
        folder.mkdir(parents=True, exist_ok=True)
        yield _save(middle(file), folder / f"{file.stem}.png")


def _save(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def middle(file: Path) -> UInt8[np.ndarray, "128 128 3"]:
    """The middle of a photograph brought to a short side of 192 pixels."""
    image = Image.fromarray(read_image(file))
    scale = SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def outcome(verdicts: Sequence[Verdict]) -> Outcome:
    """Count verdicts against the folder that an image lies in; a photograph's right verdict is "none"."""
    right = ambiguous = 0
    for verdict in verdicts:
        source = Path(verdict.path).parent.name
        truth = "none" if source == PHOTOGRAPHS else source
        right += verdict.verdict == truth
        named = verdict.verdict.removeprefix(AMBIGUOUS)  # who accepts it may stand behind firmer ones
        ambiguous += named != verdict.verdict and truth in re.split(r", |\|", named)
    return Outcome(right, ambiguous, len(verdicts) - right - ambiguous)

"""`aedr demo`: the whole story offline. Generate with each miniature model, add photographs, attribute all of them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aedr_jax.autoencoders.registry import REGISTRY, calibration_file
from aedr_jax.decision.calibration import Calibration
from aedr_jax.generate.miniature import sample_images
from aedr_jax.images.codec import read_image
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.scoring.verdicts import Verdict, verdict_rows

__all__ = ["Outcome", "attribute_folder", "miniature_models", "outcome", "photograph_files", "write_images"]

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


def miniature_models() -> tuple[str, ...]:
    """The models that ship with weights and calibration."""
    return tuple(name for name, entry in REGISTRY.items() if entry.repository is None)


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


def middle(file: Path) -> np.ndarray:
    """The middle of a photograph brought to a short side of 192 pixels: uint8 [128, 128, 3]."""
    image = Image.fromarray(read_image(file))
    scale = SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def attribute_folder(out: Path, models: Sequence[str], on_progress: Callable[[int], None]) -> list[Verdict]:
    """A verdict for each image of `write_images`, with the calibrations that ship; progress counts images."""
    calibrations = {}
    for model in models:
        file = calibration_file(model)
        assert file is not None
        calibrations[model] = Calibration.load(file)
    scorer = Scorer([load_candidate(model) for model in models])
    rows = list(scorer.score(find_images([out]), on_progress=on_progress))
    return sorted(verdict_rows(rows, calibrations), key=lambda verdict: verdict.path)


def outcome(verdicts: Sequence[Verdict]) -> Outcome:
    """Count verdicts against the folder that an image lies in; a photograph's right verdict is "none"."""
    right = ambiguous = 0
    for verdict in verdicts:
        source = Path(verdict.path).parent.name
        truth = "none" if source == PHOTOGRAPHS else source
        right += verdict.verdict == truth
        ambiguous += verdict.verdict.startswith("ambiguous") and verdict.accepted.get(truth, False)
    return Outcome(right, ambiguous, len(verdicts) - right - ambiguous)

"""The photographs that weights are trained, calibrated and tested on, split by subject.

    python weights/photos.py --photos DIR > weights/photos.csv

`DIR` (`--photos`) holds PNG files and an `INDEX.csv` with the columns `file, source, original`; the subject of a
`dreambooth` photograph is the folder of its original. A subject is in one split only, and photographs from other
sources (`kodak`, `debian`) are never trained or calibrated on. Run as a script it prints where each `dreambooth`
photograph comes from, the sha256 of the PNG that was used, and what part of the original it shows.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = "https://github.com/google/dreambooth"
COMMIT = "e9b8c013ef2e30ab3d5d9018808513e9093e3bc4"
TRAINING_SIZES = (384, 256, 192)  # short sides: textures at three scales


def read_index(photos: Path) -> list[dict[str, str]]:
    """The rows of `INDEX.csv`."""
    with open(photos / "INDEX.csv", newline="") as file:
        return list(csv.DictReader(file))


def subject(row: dict[str, str]) -> str:
    """The subject of a photograph: its original's folder for `dreambooth`, the file itself elsewhere."""
    return row["original"].split("/")[-2] if row["source"] == "dreambooth" else row["file"]


def subjects_split(photos: Path) -> dict[str, str]:
    """`{file: "train" | "calibration" | "test"}`: of 30 sorted subjects, two of six are held out, one for each use."""
    rows = read_index(photos)
    subjects = sorted({subject(row) for row in rows if row["source"] == "dreambooth"})
    part = {name: ("train", "train", "calibration", "train", "train", "test")[i % 6] for i, name in enumerate(subjects)}
    return {row["file"]: part.get(subject(row), "test") for row in rows}


def resized(path: Path, short_side: int) -> np.ndarray:
    """A photograph at a short side, Lanczos, uint8 [h, w, 3]."""
    image = Image.open(path).convert("RGB")
    scale = short_side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def training_images(photos: Path, split: dict[str, str], least: int = 1) -> list[np.ndarray]:
    """Every training photograph at those of the three sizes whose short side is `least` or more, uint8 [h, w, 3]."""
    files = sorted(name for name, part in split.items() if part == "train")
    return [resized(photos / file, size) for file in files for size in TRAINING_SIZES if size >= least]


def random_crop(path: Path, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, at a random one of the training sizes, uint8 [side, side, 3]."""
    image = resized(path, int(rng.choice(TRAINING_SIZES)))
    top = rng.integers(image.shape[0] - side + 1)
    left = rng.integers(image.shape[1] - side + 1)
    return image[top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    photos = parser.parse_args().photos
    split = subjects_split(photos)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("file", "split", "repository", "commit", "path", "sha256", "crop"))
    for row in read_index(photos):
        if row["source"] == "dreambooth":
            path = "dataset/" + row["original"].split("/dataset/")[1]
            digest = hashlib.sha256((photos / row["file"]).read_bytes()).hexdigest()
            crop = f"whole frame at {row['width']}x{row['height']}"
            writer.writerow((row["file"], split[row["file"]], REPOSITORY, COMMIT, path, digest, crop))


if __name__ == "__main__":
    main()

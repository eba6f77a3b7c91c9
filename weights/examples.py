"""The example images that ship: `mini-kl4-a`'s own, and photographs that scikit-image and scikit-learn ship.

    python weights/examples.py --photos DIR --out examples

Own images: `samples.py`, test photographs, seed 3. Photographs: the middle 128 pixels at a short side of 192, PNG;
their licences stand in `examples/README.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import skimage
import sklearn.datasets
from PIL import Image

from photos import resized
from samples import SIDE, write_samples

SHORT_SIDE = 192
SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
SKLEARN = ("china.jpg", "flower.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    # Only photographs under CC-BY-4.0: what is decoded from a blend of their latents is shipped.
    write_samples("mini-kl4-a", args.photos, "test", 6, 3, args.out / "own", source="dreambooth")
    files = [Path(skimage.__file__).parent / "data" / name for name in SKIMAGE]
    files += [Path(sklearn.datasets.__file__).parent / "images" / name for name in SKLEARN]
    (args.out / "photographs").mkdir(parents=True, exist_ok=True)
    for file in files:
        image = resized(file, SHORT_SIDE)
        top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
        crop = Image.fromarray(image[top : top + SIDE, left : left + SIDE])
        crop.save(args.out / "photographs" / f"{file.stem}.png")


if __name__ == "__main__":
    main()

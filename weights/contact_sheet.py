"""A contact sheet of samples: one row for each miniature model, on top photographs that none was trained on.

    python weights/contact_sheet.py --images WORK/images --out weights/samples.jpg

`WORK` is that of `python -m benchmarks.matrix`; the first images of each folder are taken, none is chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from aedr_jax.autoencoders.registry import miniature_models

COLUMNS = 8
SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    folders = ("photographs", *miniature_models())
    sheet = Image.new("RGB", (COLUMNS * SIDE, len(folders) * SIDE))
    for row, folder in enumerate(folders):
        files = sorted((args.images / folder).glob("*.png"))
        step = max(1, len(files) // COLUMNS) if folder == "photographs" else 1  # one photograph has several crops
        for column, file in enumerate(files[::step][:COLUMNS]):
            sheet.paste(Image.open(file), (column * SIDE, row * SIDE))
    sheet.save(args.out, quality=88)


if __name__ == "__main__":
    main()

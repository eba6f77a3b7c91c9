"""What a network in half precision does to verdicts: standings and foreign p-values beside those in float32.

    python -m benchmarks.dtypes PHOTOGRAPHS --out ROWS.jsonl [--dtype bfloat16] [--images 20] [--models mini-kl4-a,...]

Of each model as many photographs as `--images` says, a square of 128 pixels from the middle of each (one tile), and as
many images of its own: the reconstructions of these squares by the network in float32, which are decoded images,
rounded to 8 bits. Statistics of norms are float32 in both. Prints Markdown; the file gets a line for each image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import aedr_jax as aedr
from aedr_jax.autoencoders.registry import miniature_models
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.alignment import align
from benchmarks.batches import in_batches

RATE = 0.05  # of false names, as `aedr attribute` has it
SIDE = 128


def squares(folder: Path, count: int) -> list[np.ndarray]:
    """From the middle of the first photographs that are large enough, uint8 [s,s,3]."""
    found: list[np.ndarray] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp") or len(found) == count:
            continue
        image = aedr.read_image(path)
        top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
        if min(top, left) >= 0:
            found.append(image[top : top + SIDE, left : left + SIDE])
    return found


def standings(autoencoder: Any, images: list[np.ndarray]) -> np.ndarray:
    found = in_batches(jax.jit(align), autoencoder, images)
    return np.asarray(found.alignment / found.error, np.float64)


def own_images(autoencoder: Any, images: list[np.ndarray]) -> list[np.ndarray]:
    decoded = in_batches(jax.jit(lambda ae, x: ae.decode(ae.encode(x))), autoencoder, images)
    return list(np.round((np.clip(decoded, -1, 1) + 1) * 127.5).astype(np.uint8))


def compared(images: str, exact: np.ndarray, half: np.ndarray, p_exact: np.ndarray, p_half: np.ndarray) -> list[str]:
    """A line of the table: of images of which both say something."""
    known = ~(np.isnan(exact) | np.isnan(half))
    moved, moved_p = np.abs(half - exact)[known], np.abs(p_half - p_exact)[known]
    accepted, accepted_half = p_exact <= RATE, p_half <= RATE
    return [
        images,
        str(len(exact)),
        f"{np.isnan(exact).sum()}, {np.isnan(half).sum()}",
        f"{np.median(exact[known]):.2f}",
        f"{np.median(moved):.2f}",
        f"{moved.max():.2f}",
        f"{np.median(moved_p):.3f}",
        f"{moved_p.max():.3f}",
        f"{accepted.sum()}, {accepted_half.sum()}",
        str((accepted != accepted_half).sum()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--models", default=",".join(miniature_models()))
    args = parser.parse_args()
    foreign, null, table = squares(args.photographs, args.images), aedr.Null.shipped(), []
    for name in args.models.split(","):
        exact, half = (aedr.load_autoencoder(name, dtype=dtype) for dtype in ("float32", args.dtype))
        for kind, images in {"foreign": foreign, "own": own_images(exact, foreign)}.items():
            one, other = standings(exact, images), standings(half, images)
            p, q = (np.asarray(null.p_value(values), np.float64) for values in (one, other))
            for values in zip(one, other, p, q, strict=True):
                row = dict(zip(("float32", args.dtype, "p_float32", f"p_{args.dtype}"), values, strict=True))
                with args.out.open("a") as file:
                    file.write(json.dumps({"model": name, "kind": kind, **row}) + "\n")
            table.append(compared(f"{name}, {kind}", one, other, p, q))
    header = [
        "images",
        "number",
        "not assessable",
        "median standing",
        "its change, median",
        "largest",
        "of the p-value, median",
        "largest",
    ]
    print(to_markdown([*header, f"p ≤ {RATE}, both", "verdicts that change"], table), end="")


if __name__ == "__main__":
    main()

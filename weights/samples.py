"""Belonging images of a miniature autoencoder: decoded from latents that are no photograph's encoding.

    python weights/samples.py mini-kl4-a --photos DIR --split calibration --count 200 --seed 1 --out OUT

Each image starts from the latents of two crops of two held-out photographs, blended under a smooth random mask, with
noise added, and is written as an 8-bit PNG, `SEED-NUMBER_PARENT.png`, where PARENT is the first photograph.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import trange

from aedr_jax import load_autoencoder
from photos import random_crop, read_index, subjects_split

SIDE = 128
NOISE = 0.1  # in standard deviations of the latents


def smooth_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random field in [0, 1], near its ends almost everywhere: half-and-half blends decode to mere blur."""
    coarse = Image.fromarray(rng.random((4, 4)).astype(np.float32))
    field = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    return 1 / (1 + np.exp(-32 * (field - 0.5)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a registry name or a folder")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--split", choices=("calibration", "test"), required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_samples(args.model, args.photos, args.split, args.count, args.seed, args.out)


def write_samples(
    model: str, photos: Path, split: str, count: int, seed: int, out: Path, source: str | None = None
) -> None:
    """Write `count` belonging images made from the photographs of a split (and source); each has its own seed."""
    autoencoder = load_autoencoder(model)
    encode = jax.jit(lambda ae, x: ae.encode(x))
    decode = jax.jit(lambda ae, z: ae.decode(z))
    sources = {row["file"]: row["source"] for row in read_index(photos)}
    parts = subjects_split(photos)
    files = sorted(file for file, part in parts.items() if part == split and source in (None, sources[file]))
    out.mkdir(parents=True, exist_ok=True)
    for i in trange(count, desc=out.name, disable=None):
        rng = np.random.default_rng([seed, i])
        parents = rng.choice(files, 2, replace=False)
        crops = np.stack([random_crop(photos / parent, SIDE, rng) for parent in parents])
        a, b = np.asarray(encode(autoencoder, jnp.asarray(crops, jnp.float32) / 127.5 - 1))
        mask = smooth_mask(a.shape[:2], rng)[..., None]
        latents = mask * a + (1 - mask) * b
        latents = latents + NOISE * latents.std() * rng.standard_normal(latents.shape)
        image = np.asarray(decode(autoencoder, jnp.asarray(latents[None], jnp.float32)))[0]
        pixels = np.clip(np.round((image + 1) * 127.5), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out / f"{seed}-{i:04d}_{Path(parents[0]).stem}.png")


if __name__ == "__main__":
    main()

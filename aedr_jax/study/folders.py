"""Where an evaluation's images come from: one folder for each model, one `real`, and any others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import SourceError
from aedr_jax.inputs.decoding import Decoder, Refused
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.inputs.workers import decode_all
from aedr_jax.study.comparison import REAL

__all__ = ["Sources", "find_sources"]


class Sources(NamedTuple):
    """Images by source, in the order in which they are taken, and what was left out, with the reason."""

    images: dict[str, list[Item]]
    left_out: list[str]


def find_sources(
    folder: str | os.PathLike[str], models: Sequence[str], out: Path, *, count: int, side: int, seed: int = 0
) -> Sources:
    """The images of each model, of `real` and of every other folder, shuffled by a seed and cut to `count`.

    A miniature model's folder that is missing is made, `OUT/images/MODEL`: nothing is written beside the user's images.
    Images that cannot be read or are too small are left out, and so are other folders with fewer than two that can be
    taken. Every image is read once, whole, so that none stops the long work after this.

    Raises:
      SourceError: without a folder `real` (in any case of letters), without one of a model that cannot be sampled
        here, or where one of these has fewer than two images of at least `side` pixels.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; expected one folder for each model and one named {REAL}")
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    real = next((name for name in folders if name.lower() == REAL), None)
    if real is None:
        raise SourceError(f"{folder}: no folder {REAL} in it, of photographs; there are {', '.join(folders) or 'none'}")
    for model in models:
        if model not in folders:
            folders[model] = _sampled(model, folder, out / "images" / model, count)
    names = {model: model for model in models} | {REAL: real}
    # Results may lie beside the images, and sampled images in them.
    others = [name for name, path in folders.items() if not out.resolve().is_relative_to(path.resolve())]
    names |= {name: name for name in others if name not in (*models, real)}
    images: dict[str, list[Item]] = {}
    left_out: list[str] = []
    for source, name in names.items():
        try:
            images[source] = _taken(folders[name], left_out, count=count, side=side, seed=seed)
        except SourceError as error:
            if source in (*models, REAL):
                raise
            left_out.append(str(error))
    return Sources(images, left_out)


def _taken(folder: Path, left_out: list[str], *, count: int, side: int, seed: int) -> list[Item]:
    chosen: list[Item] = []
    items = find_images([folder])
    shuffled = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    # In another process, so that an image that keeps its decoder busy without end is left out.
    with closing(decode_all(Decoder(side=side), shuffled, workers=1)) as decoded:
        for item, image in zip(shuffled, decoded, strict=True):
            if isinstance(image, Refused):
                left_out.append(image.error)
            else:
                chosen.append(item)
            if len(chosen) == count:
                break
    if len(chosen) < 2:
        raise SourceError(f"{folder}: {len(chosen)} images of at least {side} pixels; expected two or more")
    return chosen


def _sampled(model: str, folder: Path, out: Path, count: int) -> Path:
    from tqdm import tqdm

    from aedr_jax.generate.folder import generate, plan_images
    from aedr_jax.generate.pipelines import choose_settings

    entry = REGISTRY.get(model)
    if entry is None or entry.repository is not None:
        raise SourceError(
            f"{folder}: no folder {model} in it; make its images with aedr generate, or name the model "
            "after the folder that holds them: NAME=SOURCE"
        )
    settings = choose_settings(model)
    with tqdm(total=count, unit="image", desc=f"sample {model}", disable=None) as bar:
        generate(settings, plan_images(settings, n=count), out, on_progress=bar.update)
    return out

"""Images of any shapes through a compiled per-image program, a batch of one shape at a time; arrays to files; and
folders of standings, each of one version of what they are made of."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aedr_jax import AlignmentConfig, SignalConfig, prepare
from aedr_jax.files import whole_file
from benchmarks.sources import Pixels

SIZE = 8  # images a call on an accelerator; a CPU gains nothing by more than one


def in_batches(
    program: Callable[[Any, jax.Array], Any], weights: Any, images: Iterable[Pixels], *, size: int | None = None
) -> Any:
    """The program's columns [n] of each image, in the images' order, on the host.

    The last batch of a shape is filled up with its last image, so that each shape is one compiled program.

    Args:
      program: jitted, `(weights, images in [-1, 1]) -> pytree of arrays [n]`.
      weights: an autoencoder, or several.
      images: uint8 [h,w,3] each, at least one.
      size: of a batch.
    """
    size = size or (1 if jax.default_backend() == "cpu" else SIZE)
    places: dict[tuple[int, ...], list[tuple[int, Pixels]]] = defaultdict(list)
    for place, image in enumerate(images):
        places[image.shape].append((place, image))
    order, found = [], []
    for of_shape in places.values():
        for first in range(0, len(of_shape), size):
            batch = of_shape[first : first + size]
            filled = [*batch, *batch[-1:] * (size - len(batch))]
            order += [place for place, _ in batch]
            found.append((len(batch), program(weights, prepare(np.stack([pixels for _, pixels in filled])))))
    columns = [jax.tree.map(lambda column, n=n: np.asarray(column)[:n], one) for n, one in found]
    back = np.argsort(order)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[back], *columns)


def keep_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file, whole or not at all, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **arrays)


def keep_columns(
    path: Path, names: Sequence[str], program: Callable[..., Any], autoencoder: Any, images: Iterable[Pixels]
) -> None:
    """Write what a program gives of each image, a column for each name; what is there already is not made again, and
    nothing is written for no image.

    Args:
      path: of the file.
      names: of the columns.
      program: jitted, `(autoencoder, images in [-1, 1]) -> arrays [n, ...]`, as many as there are names.
      autoencoder: the model's.
      images: uint8 [h,w,3] each, gone through one by one; columns have one shape for all.
    """
    if path.exists():
        return
    found = [jax.device_get(program(autoencoder, jnp.asarray(prepare(image)))) for image in images]
    if found:
        columns = (np.concatenate(column) for column in zip(*found, strict=True))
        keep_arrays(path, **dict(zip(names, columns, strict=True)))


def of_one_version(work: Path, config: AlignmentConfig | None = AlignmentConfig()) -> None:
    """Mark a folder of standings, in WORK/MODEL, with the settings of the alignment and its version.

    Raises:
      SystemExit: what is there is of another version, or of one that left no mark: it would pass for today's.
    """
    mark = work / "version.json"
    text = json.dumps(SignalConfig(alignment=config).describe()["alignment"], indent=1) + "\n"
    if not any(work.glob("*/*")):
        work.mkdir(parents=True, exist_ok=True)
        with whole_file(mark) as unfinished:
            unfinished.write_text(text)
    elif not mark.exists() or mark.read_text() != text:
        raise SystemExit(f"{work}: what is there was measured by another version; give a new folder")

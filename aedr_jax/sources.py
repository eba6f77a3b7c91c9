"""What the user named on the command line, as a list of image files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aedr_jax.errors import SourceError

__all__ = ["SUFFIXES", "Item", "find_images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


class Item(NamedTuple):
    """An image file: `id` is its path relative to the input that named it, `path` where to read it."""

    id: str
    path: Path


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Item]:
    """Image files of folders (searched whole), globs and single files, sorted, each once.

    A file named on its own is taken whatever its ending: if it is no image it becomes an error row.

    Raises:
      SourceError: for an input that names nothing.
    """
    found: dict[Path, Item] = {}
    for name in inputs:
        given = os.fspath(name)
        path = Path(given)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            items = [Item(p.relative_to(path).as_posix(), p) for p in files]
            problem = f"{given}: no image in this folder (looked for {', '.join(SUFFIXES)})"
        elif path.exists():
            items, problem = [Item(path.name, path)], ""
        else:
            items = [Item(p, Path(p)) for p in sorted(glob.glob(given, recursive=True)) if os.path.isfile(p)]
            problem = f"{given}: no such file or folder, and nothing matches it as a pattern"
        if not items:
            raise SourceError(problem)
        for item in items:
            found.setdefault(item.path.resolve(), item)
    return list(found.values())

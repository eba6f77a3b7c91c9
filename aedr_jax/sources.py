"""Where images come from: one protocol, an iterable of items that each hold an id and bytes, or know where bytes lie.

Here are files (folders, patterns, single files); `containers.py` has what holds many images in one file.
"""

from __future__ import annotations

import glob
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aedr_jax.errors import ImageError, RunError, SourceError
from aedr_jax.images import read_bytes

__all__ = ["SUFFIXES", "Files", "Item", "Listed", "Source", "find_images", "nothing_at", "unreadable", "until_failure"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


class Item(NamedTuple):
    """An image before it is decoded.

    Attributes:
      id: its name in the rows, of which a run has each once: a file's path relative to the input that named it.
      path: where to read it; for people only where `data` or `error` is given.
      data: the file's bytes; None: read them from `path`.
      error: why there are none.
    """

    id: str
    path: str | Path
    data: bytes | None = None
    error: str = ""

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
          ImageError: with the file and the reason.
        """
        if self.error:
            raise ImageError(f"{self.path}: {self.error}")
        return read_bytes(self.path) if self.data is None else self.data


class Source(ABC):
    """Items, streamed in an order that repeats; can be gone through again.

    Iterating yields all that can be read, and only then raises `RunError` for what could not.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int | None:
        """How many items, if that can be known without reading them all."""
        return None

    def share(self, index: int, of: int) -> Source:
        """The part of process `index` of `of`; all of them together are the whole, each item once."""
        return Every(self, index, of) if of > 1 else self

    def pieces(self, size: int) -> Iterator[Source]:
        """Parts that together are the whole, to be sent to other machines: of about `size` items, where it can be
        divided so. The same division each time."""
        failures: list[Exception] = []
        items = until_failure(self, failures)
        while chunk := tuple(itertools.islice(items, size)):
            yield Listed(chunk)
        if failures:
            raise failures[0]


class Every(Source):
    """Every n-th item of a source, which is read whole for it."""

    def __init__(self, source: Source, index: int, of: int) -> None:
        self.source, self.index, self.of = source, index, of

    def __iter__(self) -> Iterator[Item]:
        return itertools.islice(self.source, self.index, None, self.of)

    def count(self) -> int | None:
        total = self.source.count()
        return None if total is None else len(range(self.index, total, self.of))


class Listed(Source):
    """Items that are in memory."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def count(self) -> int:
        return len(self.items)


class Files(Source):
    """Image files of folders (searched whole), globs and single files, input by input, each sorted.

    A file named on its own is taken whatever its ending: if it is no image it becomes an error row.
    """

    def __init__(self, inputs: Iterable[str | os.PathLike[str]]) -> None:
        self.inputs = tuple(os.fspath(name) for name in inputs)

    def __iter__(self) -> Iterator[Item]:
        problems: list[str] = []
        for given in self.inputs:
            found = False
            for item in _files(given, problems):
                found = True
                yield item
            if not (found or problems):
                raise SourceError(nothing_at(given))
        if problems:
            raise unreadable(problems)

    def count(self) -> int:
        return sum(1 for given in self.inputs for _ in _files(given, []))


def unreadable(problems: Sequence[str]) -> RunError:
    """What a source raises at its end: the places that it could not read, or not to their end."""
    return RunError(
        f"could not be read to the end: {'; '.join(problems)}. Every other image has its row; repair or remove "
        "what is named here and give the same command again"
    )


def until_failure(stream: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    """A stream that ends where it fails; what it raised goes to `failures`, for when what came before is dealt with."""
    try:
        yield from stream
    except Exception as error:
        failures.append(error)


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Item]:
    """The items of `Files` as a list, each file once, under its first name.

    Raises:
      SourceError: for an input that names nothing.
      RunError: for a folder that cannot be read.
    """
    found: dict[Path, Item] = {}
    for item in Files(inputs):
        found.setdefault(Path(item.path).resolve(), item)
    return list(found.values())


def _files(given: str, problems: list[str]) -> Iterator[Item]:
    path = Path(given)
    if path.is_dir():
        yield from _walk(path, "", problems)
    elif path.exists():
        yield Item(path.name, path)
    else:
        yield from (Item(p, Path(p)) for p in sorted(glob.glob(given, recursive=True)) if os.path.isfile(p))


def _walk(folder: Path, prefix: str, problems: list[str]) -> Iterator[Item]:
    """One folder's names are in memory at a time. Links to folders are not followed: they may lead around in a ring."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", problems)
        elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            yield Item(prefix + entry.name, folder / entry.name)


def nothing_at(given: str) -> str:
    """That an input names no image, and what was looked for."""
    if os.path.isdir(given):
        return f"{given}: no image in this folder (looked for {', '.join(SUFFIXES)})"
    return f"{given}: no such file or folder, and nothing matches it as a pattern"

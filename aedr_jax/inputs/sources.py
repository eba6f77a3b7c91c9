"""Where images come from: one protocol, an iterable of items that each hold an id and bytes, or know where bytes lie.

Here are files (folders, patterns, single files); `containers.py` has what holds many images in one file.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from aedr_jax.errors import ImageError, RunError, SourceError
from aedr_jax.images.codec import read_bytes, why_no_url
from aedr_jax.inputs.ids import Ids, share_of

__all__ = [
    "SUFFIXES",
    "Files",
    "Item",
    "Listed",
    "Source",
    "ending",
    "find_images",
    "nothing_at",
    "said_of_passed_over",
    "unreadable",
    "until_failure",
]

# Every ending that Pillow knows for the formats that are read (`images.codec.FORMATS`).
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)


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

    def sha256(self) -> str:
        """Of these bytes.

        Raises:
          ImageError: likewise.
        """
        return hashlib.sha256(self.read()).hexdigest()


class Source(ABC):
    """Items, streamed in an order that repeats; can be gone through again.

    Iterating yields all that can be read, and only then raises `RunError` for what could not.
    """

    light = False  # whether its items are only named as it is gone through, not read
    places: Sequence[str | os.PathLike[str]] = ()  # the files and folders that were named, or patterns of them
    _passed: Mapping[str, int] = MappingProxyType({})
    _passed_elsewhere: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int | None:
        """How many items, if that can be known without reading them all."""
        return None

    def passed_over(self) -> Counter[str]:
        """What the last iteration took for no image, by kind: an ending, say; here, and where its pieces were read."""
        return Counter(self._passed) + Counter(self._passed_elsewhere)

    def tell_passed_over(self, found: Mapping[str, int]) -> None:
        """What its pieces took for no image on other machines, in place of what was told before."""
        self._passed_elsewhere = found

    def share(self, index: int, of: int) -> Source:
        """The part of process `index` of `of`; all of them together are the whole, each item once, and items of equal
        ids are in one part."""
        return Share(self, index, of) if of > 1 else self

    def pieces(self, size: int) -> Iterator[Source]:
        """Parts that together are the whole, to be sent to other machines: of about `size` items, where it can be
        divided so. The same division each time."""
        failures: list[Exception] = []
        items = until_failure(self, failures)
        while chunk := tuple(itertools.islice(items, size)):
            yield Listed(chunk)
        if failures:
            raise failures[0]


class Share(Source):
    """The items whose ids fall into one of several shares (`ids.share_of`), of a source that is read whole for it."""

    def __init__(self, source: Source, index: int, of: int) -> None:
        self.source, self.index, self.of = source, index, of
        self.light = source.light

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self.source if share_of(item.id, self.of) == self.index)

    def count(self) -> int | None:
        if not self.light or self.source.count() is None:
            return None
        return sum(1 for _ in until_failure(self, []))

    def passed_over(self) -> Counter[str]:
        return self.source.passed_over()


class Listed(Source):
    """Items that are in memory."""

    light = True

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def count(self) -> int:
        return len(self.items)


class Files(Source):
    """Image files of folders (searched whole), globs and single files, input by input, each sorted.

    - In a folder what has an image's ending is an item, if it is a link to nothing or a pipe too: that is an error row.
      Links to folders are not followed: they may lead around in a ring. What is passed over is counted.
    - A pattern or a name takes files whatever their ending: if one is no image it becomes an error row.
    - A file that several inputs name is one item, under its first name. Two links to one file are two names, and two
      items.
    """

    light = True

    def __init__(self, inputs: Iterable[str | os.PathLike[str]]) -> None:
        self.inputs = tuple(os.fspath(name) for name in inputs)
        self.places = self.inputs

    def __iter__(self) -> Iterator[Item]:
        problems: list[str] = []
        self._passed = passed = Counter[str]()
        several, seen = len(self.inputs) > 1, Ids()
        for given in self.inputs:
            found, before = False, Counter(passed)
            for item in _files(given, problems, passed):
                found = True
                if not several or seen.add(os.path.abspath(item.path)):
                    yield item
            if not (found or problems):
                raise SourceError(nothing_at(given, passed - before))
        if problems:
            raise unreadable(problems)

    def check(self) -> None:
        """Look for the first image of each input, before the others' images are scored.

        Raises:
          SourceError: for an input that names nothing.
        """
        for given in self.inputs:
            try:
                next(iter(Files([given])), None)
            except RunError:  # which whoever goes through the files is told
                continue

    def count(self) -> int:
        return sum(1 for _ in until_failure(Files(self.inputs), []))


def unreadable(problems: Sequence[str]) -> RunError:
    """What a source raises at its end: the places that it could not read, or not to their end."""
    return RunError(
        f"could not be read to the end: {'; '.join(problems)}. What lies behind these places has no row, every other "
        "image has; repair or remove what is named here and give the same command again"
    )


def until_failure(stream: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    """A stream that ends where it fails; what it raised goes to `failures`, for when what came before is dealt with."""
    try:
        yield from stream
    except Exception as error:
        failures.append(error)


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Item]:
    """The items of `Files` as a list.

    Raises:
      SourceError: for an input that names nothing.
      RunError: for a folder that cannot be read.
    """
    return list(Files(inputs))


def _files(given: str, problems: list[str], passed: Counter[str]) -> Iterator[Item]:
    path = Path(given)
    if path.is_dir():
        yield from _walk(path, problems, passed)
    elif os.path.lexists(path):
        yield _file(path.name, path)
    else:
        for name in sorted(set(glob.glob(given, recursive=True))):
            if os.path.isdir(name):
                passed["folders"] += 1
            else:
                yield _file(name, Path(name))


def _walk(folder: Path, problems: list[str], passed: Counter[str]) -> Iterator[Item]:
    """Only the names of the folders that lead to the present one are in memory at a time. No recursion, since folders
    may be deeper than Python's stack."""
    waiting = [("", iter(_entries(folder, problems)))]
    while waiting:
        prefix, entries = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
            continue
        name, path = prefix + entry.name, folder / (prefix + entry.name)
        if entry.is_dir(follow_symlinks=False):
            waiting.append((f"{name}/", iter(_entries(path, problems))))
        elif entry.is_symlink() and os.path.isdir(path):
            passed["links to folders"] += 1
        elif entry.name.lower().endswith(SUFFIXES):
            yield _file(name, path)
        else:
            passed[ending(entry.name)] += 1


def _entries(folder: Path, problems: list[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
        return []


def _file(name: str, path: Path) -> Item:
    if os.path.islink(path) and not os.path.exists(path):
        return Item(name, path, error="is a link that leads to no file")
    return Item(name, path)


def ending(name: str) -> str:
    """Under which what is passed over is counted."""
    return os.path.splitext(name)[1].lower() or "without an ending"


def said_of_passed_over(passed: Mapping[str, int]) -> str:
    """ "3 passed over: .txt 2, .json 1", the most first; "" for none."""
    kinds = sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds[:10]) + (", ..." if len(kinds) > 10 else "")
    return f"{sum(passed.values())} passed over: {listed}" if passed else ""


def nothing_at(given: str, passed: Mapping[str, int] | None = None) -> str:
    """That an input names no image, and what was looked for."""
    if os.path.isdir(given):
        there = said_of_passed_over(passed or {})
        return f"{given}: no image in this folder (looked for {', '.join(SUFFIXES)}{there and '; '}{there})"
    return f"{given}: {why_no_url(given) or 'no such file or folder, and nothing matches it as a pattern'}"

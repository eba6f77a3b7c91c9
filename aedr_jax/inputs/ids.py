"""Ids in a few bytes each, so that those of hundreds of millions of images fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

__all__ = ["Done", "Ids", "digest", "share_of"]

MOST_RECENT = 10_000


def digest(text: str) -> bytes:
    """16 bytes for a text. What is no text in a file name counts as it is written in the rows (`tables.printable`)."""
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def share_of(text: str, shares: int) -> int:
    """Which of so many shares an id falls into: equal ids fall into the same one, so that one process sees them all."""
    return int.from_bytes(digest(text)[:8], "big") % shares


class Ids:
    """A set of ids in 16 bytes each: a sorted array of hashes, and a small set of those that came since."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.sorted = np.empty(0, "S16")
        self.recent: set[bytes] = set()
        for text in ids:
            self.add(text)

    def __contains__(self, text: str) -> bool:
        return self._holds(digest(text))

    def __len__(self) -> int:
        return len(self.sorted) + len(self.recent)

    def add(self, text: str) -> bool:
        """Whether it was not there yet."""
        key = digest(text)
        if self._holds(key):
            return False
        self.recent.add(key)
        if len(self.recent) > MOST_RECENT + len(self.sorted) // 8:
            self.sorted = np.sort(np.concatenate([self.sorted, np.array(list(self.recent), "S16")]))
            self.recent = set()
        return True

    def _holds(self, key: bytes) -> bool:
        if key in self.recent:
            return True
        place = int(np.searchsorted(self.sorted, np.array(key, "S16")))
        return place < len(self.sorted) and bool(self.sorted[place] == np.array(key, "S16"))


class Done:
    """The images that have rows, in 32 bytes each: their ids, and what each was: where it was read, what its bytes
    were.

    An id alone does not say that an image is finished: another image may have the same one.

    Args:
      batches: of (id, path, sha256), an image each; sha256 is "" where the file could not be read.
    """

    def __init__(self, batches: Iterable[Iterable[tuple[str, str, str]]] = ()) -> None:
        columns = [_hashed(batch) for batch in batches]
        ids, paths, contents = (
            np.concatenate([np.empty(0, kind), *(column[i] for column in columns)])
            for i, kind in enumerate(("S16", "S8", "S8"))
        )
        order = np.argsort(ids)
        self.ids, self.paths, self.contents = ids[order], paths[order], contents[order]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, text: str) -> bool:
        found = self._slice(text)
        return found.start < found.stop

    def at(self, text: str, path: str) -> bool:
        """Whether an image of this id was read from this place."""
        return _short(path) in self.paths[self._slice(text)]

    def with_bytes(self, text: str, sha256: str) -> bool:
        """Whether an image of this id had these bytes."""
        return _short(sha256) in self.contents[self._slice(text)]

    def doubles(self) -> np.ndarray:
        """The hashes of ids that several images have, each once: S16 [n]."""
        return np.unique(self.ids[1:][self.ids[1:] == self.ids[:-1]])

    def _slice(self, text: str) -> slice:
        key = np.array(digest(text), "S16")
        return slice(*(int(np.searchsorted(self.ids, key, side)) for side in ("left", "right")))


def _short(text: str) -> np.bytes_:
    return np.bytes_(digest(text)[:8])


def _hashed(batch: Iterable[tuple[str, str, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = list(batch)
    ids = np.array([digest(text) for text, _, _ in rows], "S16")
    paths = np.array([digest(path)[:8] for _, path, _ in rows], "S8")
    # Files that could not be read have no bytes to be equal.
    contents = np.array([digest(sha256)[:8] if sha256 else b"" for _, _, sha256 in rows], "S8")
    return ids, paths, contents

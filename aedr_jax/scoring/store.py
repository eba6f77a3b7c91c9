"""The folder that rows are written into, part by part, so that a run can stop anywhere and go on.

- A part holds whole images: a row for each of the models, or a verdict. It is written under another name, flushed to
  the disk and renamed, so it is whole or absent; its name is a hash of the ids (and models) in it, so that writing it
  twice is writing it once. It says when, by what command, with which versions and where it was made, and holds a digest
  of its rows.
- `FOLDER.run.json`, beside the folder, holds the settings. A run with others is refused: their rows do not mix. Beside
  them it has how the first run came to be, and a digest. Together these are the record of the folder (`recorded`).
- An image whose id is in a part is finished, whether scored or an error, and skipped by the next run; another image of
  that id is not. Ids that the parts hold twice are named at the end of each run (`check`).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from aedr_jax.errors import ImageError, RunError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.inputs.ids import Done, Ids, digest
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.tables import printable, saying
from aedr_jax.signal.protocol import differences, told_apart

__all__ = ["Fresh", "Layout", "Parts", "digest_of", "manifest_of"]

LANE = 1_000_000
DIGEST_KEY = b"aedr_jax.digest"  # in Parquet's metadata
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Layout(NamedTuple):
    """How rows of one kind lie in a part: scores, or verdicts.

    Attributes:
      key: what tells a row from others: the id of its image first.
      as_table: rows as an Arrow table, of the same columns whatever is in them; among these are id, path and sha256.
    """

    key: Callable[[Any], tuple[str, ...]]
    as_table: Callable[[Sequence[Any]], Any]


class Fresh:
    """The items of a source that no part holds yet, each id once.

    An id in a part is finished if it was of this image: read from the same place, or of the same bytes (a folder that
    was moved). Otherwise another image took it, and that is said. So is an id that comes twice in the source.
    """

    def __init__(self, source: Iterable[Item], done: Done, on_skip: Callable[[int], Any] = lambda images: None) -> None:
        self.source, self.done, self.seen, self.on_skip = source, done, Ids(), on_skip
        self.skipped = self.doubles = 0
        self.example = ""

    def __iter__(self) -> Iterator[Item]:
        for item in self.source:
            fresh = item.id not in self.done
            if not self.seen.add(item.id) or not (fresh or self._is_done(item)):
                self.doubles += 1
                self.example = self.example or f"{item.id} ({item.path})"
            elif fresh:
                yield item
            else:
                self.skipped += 1
                self.on_skip(1)

    def _is_done(self, item: Item) -> bool:
        if self.done.at(item.id, str(item.path)):
            return True
        try:
            return self.done.with_bytes(item.id, item.sha256())
        except ImageError:
            return False

    def complaint(self) -> str:
        """That ids came twice: images under a taken name get no row, and that is said."""
        return (
            f"{self.doubles} images have an id that another has too, such as {self.example}, and no row: give each its "
            "own, or name a folder of their own"
        )


class Parts:
    """The folder of parts, and the run's settings beside it."""

    def __init__(self, folder: Path, *, tag: str, layout: Layout, command: str | None = None) -> None:
        self.folder, self.tag, self.layout, self.command = folder, tag, layout, command
        self.manifest = manifest_of(folder)

    def open(self, wanted: Mapping[str, Any], about: Mapping[str, Any] = NOTHING) -> Path:
        """Begin a run, or check that this one goes on with the same settings; the manifest's path.

        Args:
          wanted: the settings.
          about: what else the manifest says of the run that begins; JSON values, with which nothing is compared.

        Raises:
          SourceError: on other settings, on files in the folder that no run wrote.
        """
        if not self.folder.parent.is_dir():
            raise SourceError(f"{self.folder}: the folder {self.folder.parent} does not exist")
        if self.folder.exists() and not self.folder.is_dir():
            raise SourceError(f"{self.folder}: is a file; a name without an ending is a Parquet folder")
        self.folder.mkdir(exist_ok=True)  # before the manifest, so that both names are on the disk when that is written
        if not self.manifest.exists():
            if any(self.folder.iterdir()):
                raise SourceError(
                    f"{self.folder}: holds files, but {self.manifest.name} is not beside it; name another"
                )
            values = json.loads(json.dumps({"settings": wanted, **about}))
            text = json.dumps({**values, "digest": told_apart(values)}, indent=1)
            with _written(self.manifest, tag=self.tag, keep=True) as partial:
                partial.write_text(text, encoding="utf-8")
        found = self.settings()
        if different := differences(found, json.loads(json.dumps(wanted))):
            sides = "; ".join(f"{name}: there {there!r}, now {now!r}" for name, (there, now) in different.items())
            raise SourceError(
                f"{self.folder}: holds rows of other settings ({sides}; see {self.manifest.name}); name another folder"
            )
        return self.manifest

    def settings(self) -> dict[str, Any]:
        """Those of the run, from its manifest.

        Raises:
          SourceError: where it is none.
        """
        try:
            return dict(json.loads(self.manifest.read_text(encoding="utf-8"))["settings"])
        except (ValueError, KeyError, TypeError):
            raise SourceError(
                f"{self.manifest}: does not hold the settings of a run; restore it, or name another folder"
            ) from None

    @contextmanager
    def going_on(
        self, wanted: Mapping[str, Any], shard: tuple[int, int], about: Mapping[str, Any] = NOTHING
    ) -> Iterator[Done]:
        """Begin or go on with a run, alone in doing this share; the images that have rows already.

        What ends it in a `RunError`, and ids that two images have by then (`check`), are said in one."""
        with _locked(self.open(wanted, about), self.folder, shard):
            self.sweep(shard[1])
            try:
                yield self.done()
            except RunError as error:
                try:
                    self.check()
                except RunError as doubles:
                    raise RunError(f"{error}; {doubles}") from error
                raise
            self.check()

    def sweep(self, shares: int) -> None:
        """Remove what killed processes left half-written: this share's, and that of runs with other shares, of which
        none is under way now."""
        for left in self.folder.glob(".*.partial"):
            tag = left.name.split(".")[1]
            if tag == self.tag or not tag.endswith(f"-of-{shares}"):
                left.unlink(missing_ok=True)

    def done(self) -> Done:
        """All images that have rows.

        Raises:
          SourceError: for a part that cannot be read.
        """
        return Done(images for _, images in self._images())

    def _images(self) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
        """For each part its name, and the id, path and sha256 of each image in it."""
        import pyarrow.parquet as pq

        for part in sorted(self.folder.glob("part-*.parquet")):
            try:
                columns = pq.ParquetFile(part).read(columns=["id", "path", "sha256"]).to_pydict()
            except Exception as error:  # pyarrow's and the file system's
                raise SourceError(
                    f"{part}: cannot be read ({error}); remove it, and its images are done again"
                ) from None
            rows = zip(columns["id"], columns["path"], columns["sha256"], strict=True)
            yield part.name, list({row[0]: row for row in rows}.values())  # of scores there is one for each model

    def check(self) -> None:
        """Raise a `RunError` if an id has its rows in two parts: processes that did not see each other's have written
        rows of two images. Whichever ends last sees both, and so does every later run."""
        doubles = set(self.done().doubles().tolist())
        if not doubles:
            return
        images = (image for _, images in self._images() for image in images)
        key = min(doubles)
        first, second, *_ = ((name, path) for name, path, _ in images if _stored(name) == key)
        raise RunError(
            f"{self.folder}: {len(doubles)} ids have rows of several images, such as {first[0]} ({first[1]} and "
            f"{second[1]}); give each image its own id, and name another folder"
        )

    def name(self, keys: Iterable[tuple[str, ...]]) -> str:
        """Of the part that holds the rows of these keys."""
        return f"part-{hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:32]}.parquet"

    def write(self, rows: Sequence[Any]) -> None:
        """Write rows as a part; none is written for none."""
        import pyarrow.parquet as pq

        if not rows:
            return
        ordered = sorted(rows, key=self.layout.key)
        path = self.folder / self.name(tuple(map(printable, self.layout.key(row))) for row in ordered)
        table = self.layout.as_table(ordered)
        said = {**Made.now(self.command).in_parquet(), DIGEST_KEY: digest_of(table).encode()}
        with _written(path, tag=self.tag) as partial:
            pq.write_table(saying(table, said), partial)


def manifest_of(folder: Path) -> Path:
    """Where the settings of the run that filled a folder lie."""
    return folder.with_name(folder.name + ".run.json")


def digest_of(table: Any) -> str:
    """sha256 over the rows of an Arrow table, as they come back from a file too."""
    return hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()


def _stored(text: str) -> bytes:
    """As NumPy gives a hash back: without zeros at its end."""
    return digest(text).rstrip(b"\0")


@contextmanager
def _written(path: Path, *, tag: str, keep: bool = False) -> Iterator[Path]:
    """`whole_file`, with an error that says how to go on."""
    try:
        with whole_file(path, tag=tag, keep=keep) as partial:
            yield partial
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. Every part before it is whole; make room and give "
            "the same command again"
        ) from error


@contextmanager
def _locked(manifest: Path, folder: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Refuse to do what another run is doing: both would write rows of the same images. The lock is the kernel's and
    goes with the process, however that ends; file systems without locks go without.

    Byte N · LANE + I of the manifest stands for share I of N; its run holds it alone, and asks first whether anyone
    holds a byte of another N, whose shares overlap with its own."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    index, shares = shard
    others = ((0, shares * LANE), ((shares + 1) * LANE, 0))  # start and length; 0: to the end
    busy = f"{folder}: another run is writing into it, share {{}}; two at once would double its rows"
    with open(manifest, "rb+") as file:
        try:
            _lock(file, fcntl.LOCK_EX, shares * LANE + index, 1)
        except BlockingIOError:
            raise SourceError(busy.format(f"{index}/{shares}")) from None
        except OSError:
            yield
            return
        try:
            for start, length in others:
                _lock(file, fcntl.LOCK_SH, start, length)
        except BlockingIOError:
            raise SourceError(busy.format("of another N")) from None
        for start, length in others:
            _lock(file, fcntl.LOCK_UN, start, length)
        try:
            yield
        finally:
            _lock(file, fcntl.LOCK_UN, 0, 0)  # a process that was forked off has this handle too


def _lock(file: IO[bytes], how: int, start: int, length: int) -> None:
    """Lock bytes of a file, or unlock them, without waiting.

    On Linux the lock is this handle's. POSIX's own, which other systems have, is the process's: it keeps no second run
    out of the same process, and goes as soon as that closes any other handle to the file.

    Raises:
      BlockingIOError: where somebody holds one of them.
    """
    import fcntl

    if sys.platform == "linux":
        kind = {fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}[how]
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
    else:
        fcntl.lockf(file, how if how == fcntl.LOCK_UN else how | fcntl.LOCK_NB, length, start)

"""The folder that rows are written into, part by part, so that a run can stop anywhere and go on.

- A part holds whole images: a row for each of the models. It is written under another name, flushed to the disk and
  renamed, so it is whole or absent; its name is a hash of the ids and models in it, so that writing it twice is writing
  it once.
- `FOLDER.run.json`, beside the folder, holds the settings. A run with others is refused: their rows do not mix.
- An id that is in a part is finished, whether scored or an error, and skipped by the next run.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from aedr_jax import __version__
from aedr_jax.errors import RunError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.protocol import differences
from aedr_jax.sources import Item
from aedr_jax.tables import printable

if TYPE_CHECKING:
    from aedr_jax.scoring import Row

__all__ = ["Fresh", "Ids", "Parts", "as_table"]

LANE = 1_000_000
SCHEMA_VERSION_KEY = b"aedr_jax.schema_version"


class Fresh:
    """The items of a source whose ids no part holds yet, each id once."""

    def __init__(self, source: Iterable[Item], done: Ids, on_skip: Callable[[int], Any] = lambda images: None) -> None:
        self.source, self.done, self.seen, self.on_skip = source, done, Ids(), on_skip
        self.skipped = self.doubles = 0
        self.example = ""

    def __iter__(self) -> Iterator[Item]:
        for item in self.source:
            name = printable(item.id)  # as it stands in the rows
            if not self.seen.add(name):
                self.doubles += 1
                self.example = self.example or f"{item.id} ({item.path})"
            elif name in self.done:
                self.skipped += 1
                self.on_skip(1)
            else:
                yield item

    def complaint(self) -> str:
        """That ids came twice: images under a taken name are not scored, and that is said."""
        return (
            f"{self.doubles} images have an id that another has too, such as {self.example}, and no row: score them "
            "into a folder of their own"
        )


class Ids:
    """A set of ids in 16 bytes each: a sorted array of hashes, and a small set of those that came since."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.sorted = np.empty(0, "S16")
        self.recent: set[bytes] = set()
        for text in ids:
            self.add(text)

    def __contains__(self, text: str) -> bool:
        return self._holds(_digest(text))

    def __len__(self) -> int:
        return len(self.sorted) + len(self.recent)

    def add(self, text: str) -> bool:
        """Whether it was not there yet."""
        digest = _digest(text)
        if self._holds(digest):
            return False
        self.recent.add(digest)
        if len(self.recent) > 10_000 + len(self.sorted) // 8:
            self.sorted = np.sort(np.concatenate([self.sorted, np.array(list(self.recent), "S16")]))
            self.recent = set()
        return True

    def _holds(self, digest: bytes) -> bool:
        if digest in self.recent:
            return True
        place = int(np.searchsorted(self.sorted, np.array(digest, "S16")))
        return place < len(self.sorted) and bool(self.sorted[place] == np.array(digest, "S16"))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Parts:
    """The folder of parts, and the run's settings beside it."""

    def __init__(self, folder: Path, *, tag: str) -> None:
        self.folder, self.tag = folder, tag
        self.manifest = folder.with_name(folder.name + ".run.json")

    def open(self, wanted: Mapping[str, Any]) -> Path:
        """Begin a run, or check that this one goes on with the same settings; the manifest's path.

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
            started = time.strftime("%FT%TZ", time.gmtime())
            about = {"version": __version__, "python": platform.python_version(), "started": started}
            text = json.dumps({"settings": wanted, "about": about}, indent=1)
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
    def going_on(self, wanted: Mapping[str, Any], shard: tuple[int, int]) -> Iterator[Ids]:
        """Begin or go on with a run, alone in doing this share; the ids that have rows already."""
        with _locked(self.open(wanted), self.folder, shard):
            self.sweep(shard[1])
            yield self.ids()

    def sweep(self, shares: int) -> None:
        """Remove what killed processes left half-written: this share's, and that of runs with other shares, of which
        none is under way now."""
        for left in self.folder.glob(".*.partial"):
            tag = left.name.split(".")[1]
            if tag == self.tag or not tag.endswith(f"-of-{shares}"):
                left.unlink(missing_ok=True)

    def ids(self) -> Ids:
        """Of all images that have rows."""
        import pyarrow.parquet as pq

        found = Ids()
        for part in sorted(self.folder.glob("part-*.parquet")):
            try:
                for text in pq.read_table(part, columns=["id"]).column("id").to_pylist():
                    found.add(text)
            except Exception as error:  # pyarrow's and the file system's
                raise SourceError(
                    f"{part}: cannot be read ({error}); remove it, and its images are scored again"
                ) from None
        return found

    def check(self) -> None:
        """Raise a `RunError` if an id has its rows in two parts."""
        import pyarrow.parquet as pq

        images = sum(pq.read_metadata(part).num_rows for part in self.folder.glob("part-*.parquet"))
        images //= len(self.settings()["models"])
        if doubles := images - len(self.ids()):
            raise RunError(f"{self.folder}: {doubles} images have an id that another has too; give each its own")

    def name(self, keys: Iterable[tuple[str, str]]) -> str:
        """Of the part that holds rows of these ids and models."""
        return f"part-{hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:32]}.parquet"

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows as a part; none is written for none."""
        import pyarrow.parquet as pq

        if not rows:
            return
        ordered = sorted(rows, key=lambda row: (row.id, row.model))
        path = self.folder / self.name((printable(row.id), row.model) for row in ordered)
        with _written(path, tag=self.tag) as partial:
            pq.write_table(as_table(ordered), partial)


def as_table(rows: Sequence[Row]) -> Any:
    """Rows as an Arrow table, whose columns have the same types whatever is in them."""
    import pyarrow as pa

    from aedr_jax.scoring import SCHEMA_VERSION, Row

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool | None: pa.bool_()}
    fields = [(name, types[hint]) for name, hint in get_type_hints(Row).items()]
    schema = pa.schema(fields, metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()})
    columns = {name: [printable(getattr(row, name)) for row in rows] for name, _ in fields}
    return pa.Table.from_pydict(columns, schema=schema)


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
    """Refuse to do what another process is doing: both would write rows of the same images. The lock is the kernel's
    and goes with the process, however that ends; file systems without locks go without.

    Byte N · LANE + I of the manifest stands for share I of N; its process holds it alone, and asks first whether anyone
    holds a byte of another N, whose shares overlap with its own."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    index, shares = shard
    others = ((0, shares * LANE), ((shares + 1) * LANE, 0))  # start and length; 0: to the end
    busy = f"{folder}: another process is scoring into it, share {{}}; two at once would double its rows"
    with open(manifest, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shares * LANE + index)
        except BlockingIOError:
            raise SourceError(busy.format(f"{index}/{shares}")) from None
        except OSError:
            yield
            return
        try:
            for start, length in others:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            raise SourceError(busy.format("of another N")) from None
        for start, length in others:
            fcntl.lockf(file, fcntl.LOCK_UN, length, start)
        yield

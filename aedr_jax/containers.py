"""Sources that hold many images in one file: tar archives (WebDataset), CSV and Parquet tables, Hugging Face datasets,
tensorflow-datasets.

Nothing is extracted to a file and no name inside a container is used as a path, but for the paths that a table
lists. No pickle is read.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import itertools
import lzma
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aedr_jax.errors import RunError, SourceError
from aedr_jax.images import MAX_FILE_BYTES
from aedr_jax.sources import SUFFIXES, Files, Item, Listed, Source, nothing_at, unreadable

__all__ = ["Chain", "Rows", "Table", "Tars", "as_source", "from_hugging_face", "from_tfds", "open_source"]

IDS = ("id", "__key__", "key", "path")  # columns that name an image, the first that there is
MAX_HEADER = 1 << 20  # bytes of a tar's extended header; honest ones hold a path
PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
PARQUET_BUFFER = 1 << 20
TABLES = (".csv", ".parquet")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def as_source(given: Any, *, image_column: str | None = None, id_column: str | None = None) -> Source:
    """A source as it is; a name or names by `open_source`; other iterables are taken for items, and held in memory."""
    if isinstance(given, Source):
        return given
    if isinstance(given, str | os.PathLike):
        given = [given]
    elements = list(given)
    if elements and all(isinstance(element, Item) for element in elements):
        return Listed(elements)
    return open_source(elements, image_column=image_column, id_column=id_column)


def open_source(
    inputs: Sequence[str | os.PathLike[str]], *, image_column: str | None = None, id_column: str | None = None
) -> Source:
    """What inputs name, by their form.

    Args:
      inputs: folders, patterns and image files (`Files`); .tar, .tar.gz and the like (`Tars`); .csv and .parquet
        (`Table`); "hf:NAME:SPLIT" and "tfds:NAME:SPLIT".
      image_column: of tables and datasets, where it cannot be told.
      id_column: likewise.

    Raises:
      SourceError: for an input that names nothing, or a table without images.
    """
    columns: dict[str, Any] = {"image_column": image_column, "id_column": id_column}
    sources: list[Source] = []
    tars: list[Path] = []
    for name in [os.fspath(given) for given in inputs]:
        files = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        holding = [Path(file) for file in files if file.lower().endswith((*TARS, *TABLES)) and os.path.isfile(file)]
        if name.startswith("hf:"):
            sources.append(_open_hugging_face(name, columns))
        elif name.startswith("tfds:"):
            sources.append(_open_tfds(name, columns))
        elif holding and len(holding) < len(files):
            raise SourceError(f"{name}: matches archives or tables and other files; name them apart")
        elif holding:
            tars += [path for path in holding if path.name.lower().endswith(TARS)]
            sources += [Table(path, **columns) for path in holding if path.name.lower().endswith(TABLES)]
        elif not files:
            raise SourceError(nothing_at(name))
        else:
            sources.append(Files([name]))
    if tars:
        sources.append(Tars(tars))
    return sources[0] if len(sources) == 1 else Chain(sources)


class Chain(Source):
    """Sources one after the other. One that ends in a `RunError` does not stop those that follow."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)

    def __iter__(self) -> Iterator[Item]:
        return self._of_each(iter)

    def _of_each(self, take: Callable[[Source], Iterable[Any]]) -> Iterator[Any]:
        problems = []
        for source in self.sources:
            try:
                yield from take(source)
            except RunError as error:
                problems.append(str(error))
        if problems:
            raise RunError("; ".join(problems))

    def count(self) -> int | None:
        counts = [source.count() for source in self.sources]
        return None if None in counts else sum(n for n in counts if n is not None)

    def share(self, index: int, of: int) -> Source:
        return Chain([source.share(index, of) for source in self.sources])

    def pieces(self, size: int) -> Iterator[Source]:
        return self._of_each(lambda source: source.pieces(size))


class Tars(Source):
    """Members of tar archives that have an image's ending, streamed. An id is ARCHIVE/MEMBER.

    Links, devices and too large members are error rows. An archive that cannot be read to its end mark gives what it
    can, and is named in the `RunError` at the end of all.

    Raises:
      SourceError: for two archives of one name, since their members could not be told apart.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.paths = tuple(map(Path, paths))
        first: dict[str, Path] = {}
        for path in self.paths:
            if first.setdefault(path.name, path) != path:
                raise SourceError(f"{path} and {first[path.name]} have one name, so ids would double; score them apart")

    def __iter__(self) -> Iterator[Item]:
        problems = []
        for path in self.paths:
            try:
                yield from _members(path)
            except Exception as error:  # tarfile, zlib, lzma, bz2 and the file system each raise their own
                problems.append(f"{path}: {error or type(error).__name__}")
        if problems:
            raise unreadable(problems)

    def share(self, index: int, of: int) -> Source:
        """Whole archives, where there are enough."""
        return Tars(self.paths[index::of]) if len(self.paths) >= of else super().share(index, of)

    def pieces(self, size: int) -> Iterator[Source]:
        """One archive each."""
        return (Tars([path]) for path in self.paths)


class _Member(tarfile.TarInfo):
    """tarfile ends quietly at a damaged or missing header; here only the end mark is an end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(f"no archive, or damaged or cut off at byte {tar.offset} ({error})") from None

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile reads extended headers into memory, whatever size they claim.
        if self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and (
            self.size > MAX_HEADER
        ):
            raise tarfile.ReadError(f"a header of {self.size} bytes at byte {tar.offset}")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _proc_sparse(self, *given: Any) -> Any:
        # Likewise the map of a sparse file, however long; image files have no holes.
        raise tarfile.ReadError(f"a sparse file at byte {given[-1].offset}")

    _proc_gnusparse_10 = _proc_sparse


def _unpacked(path: Path) -> Any:
    """The file, decompressed a little at a time: tarfile itself would hold all that 10 KiB unpack to, which can be
    gigabytes of bzip2."""
    with open(path, "rb") as file:
        start = file.read(8)
    unpack = next((unpack for magic, unpack in PACKED.items() if start.startswith(magic)), open)
    return unpack(path, "rb")


def _members(path: Path) -> Iterator[Item]:
    with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep a list of all
            if member.isdir() or not member.name.lower().endswith(SUFFIXES):
                continue
            name, where = f"{path.name}/{member.name}", f"{path}::{member.name}"
            if not member.isreg():
                yield Item(name, where, error="is a link or device, not an image file")
            elif member.size > MAX_FILE_BYTES:
                yield Item(name, where, error=_too_large(member.size))
            else:
                file = tar.extractfile(member)
                assert file is not None
                yield Item(name, where, file.read())


class Table(Source):
    """A CSV or Parquet table of images: their paths, relative to the table's folder, or (Parquet) their bytes.

    The image column is the one called so, or else the only one of bytes, or else "path". The id is that of a column
    "id", "__key__", "key" or "path", or else TABLE/ROW.

    Raises:
      SourceError: where columns cannot be told, or the file cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        image_column: str | None = None,
        id_column: str | None = None,
        groups: tuple[int, ...] | None = None,
    ) -> None:
        self.path, self.groups = Path(path), groups
        self.is_csv = self.path.suffix.lower() == ".csv"
        try:
            names, of_bytes = self._columns()
        except Exception as error:  # pyarrow's, csv's and the file system's
            raise SourceError(f"{self.path}: cannot be read as a table: {error}") from None
        self.image_column = image_column or _choose(self.path, names, of_bytes)
        self.id_column = id_column or next((name for name in IDS if name in names), None)
        for column in (self.image_column, self.id_column):
            if column is not None and column not in names:
                raise SourceError(f"{self.path}: no column {column!r}; it has {', '.join(names)}")

    def _columns(self) -> tuple[list[str], list[str]]:
        if self.is_csv:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                return next(csv.reader(file), []), []
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pq.read_schema(self.path)
        return schema.names, [f.name for f in schema if _holds_bytes(f.type, pa)]

    def __iter__(self) -> Iterator[Item]:
        try:
            for number, row in self._rows():
                name = str(row[self.id_column]) if self.id_column else f"{self.path.name}/{number}"
                yield _item(row[self.image_column], name, f"{self.path}::{number}", self.path.parent)
        except Exception as error:  # likewise
            raise unreadable([f"{self.path}: {error}"]) from error

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        if self.is_csv:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                yield from enumerate(csv.DictReader(file))
            return
        import pyarrow.parquet as pq

        columns = list(dict.fromkeys(c for c in (self.image_column, self.id_column) if c))
        # A buffer and no prefetching: pages are in memory, not whole row groups, which may be the whole file.
        with pq.ParquetFile(self.path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
            starts = [0, *itertools.accumulate(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))]
            for group in range(file.num_row_groups) if self.groups is None else self.groups:
                number = starts[group]
                for batch in file.iter_batches(batch_size=32, row_groups=[group], columns=columns):
                    for row in batch.to_pylist():
                        yield number, row
                        number += 1

    def count(self) -> int | None:
        if self.groups is not None:
            return None
        import pyarrow.parquet as pq

        try:
            return sum(1 for _ in self._rows()) if self.is_csv else pq.read_metadata(self.path).num_rows
        except (OSError, ValueError, csv.Error):  # which whoever goes through the rows is told
            return None

    def pieces(self, size: int) -> Iterator[Source]:
        """Row groups of Parquet; paths of CSV."""
        if self.is_csv:
            yield from super().pieces(size)
            return
        import pyarrow.parquet as pq

        columns = {"image_column": self.image_column, "id_column": self.id_column}
        for group in range(pq.read_metadata(self.path).num_row_groups):
            yield Table(self.path, groups=(group,), **columns)


class Rows(Source):
    """Rows that can be fetched by number, of a Hugging Face dataset or a tensorflow-datasets data source.

    Args:
      rows: `rows[i]` is a mapping.
      name: of the dataset; ids are NAME/ROW without an id column.
      image_column: of bytes, or of {"bytes": ..., "path": ...}.
      id_column: whose values are ids; None: none.
      numbers: the rows to take; None: all.
    """

    def __init__(
        self,
        rows: Any,
        *,
        name: str,
        image_column: str = "image",
        id_column: str | None = None,
        numbers: range | None = None,
    ) -> None:
        self.rows, self.name, self.image_column, self.id_column = rows, name, image_column, id_column
        self.numbers = range(len(rows)) if numbers is None else numbers

    def __iter__(self) -> Iterator[Item]:
        for number in self.numbers:
            row = self.rows[number]
            name = str(row[self.id_column]) if self.id_column else f"{self.name}/{number}"
            yield _item(row[self.image_column], name, f"{self.name}::{number}", Path())

    def count(self) -> int:
        return len(self.numbers)

    def _part(self, numbers: range) -> Source:
        columns = {"image_column": self.image_column, "id_column": self.id_column}
        return Rows(self.rows, name=self.name, numbers=numbers, **columns)  # type: ignore[arg-type]

    def share(self, index: int, of: int) -> Source:
        return self._part(self.numbers[index::of])

    def pieces(self, size: int) -> Iterator[Source]:
        return (self._part(self.numbers[i : i + size]) for i in range(0, len(self.numbers), size))


def from_hugging_face(
    dataset: Any, *, name: str, image_column: str | None = None, id_column: str | None = None
) -> Source:
    """A `datasets.Dataset` (one split), its images undecoded: bytes as they were stored.

    Raises:
      SourceError: where the image column cannot be told.
    """
    from datasets import Image

    images = [key for key, feature in dataset.features.items() if isinstance(feature, Image)]
    column = image_column or _choose(name, list(dataset.features), images)
    dataset = dataset.cast_column(column, Image(decode=False))
    dataset = dataset.select_columns(list(dict.fromkeys(c for c in (column, id_column) if c)))
    return Rows(dataset, name=name, image_column=column, id_column=id_column)


def from_tfds(source: Any, *, name: str, image_column: str = "image", id_column: str | None = None) -> Source:
    """What `tfds.data_source(..., decoders={"image": tfds.decode.SkipDecoding()})` gives: no TensorFlow session."""
    return Rows(source, name=name, image_column=image_column, id_column=id_column)


def _open_hugging_face(given: str, columns: Mapping[str, Any]) -> Source:
    name, split = _name_and_split(given)
    try:
        import datasets
    except ImportError:
        raise SourceError(f'{given}: needs datasets: pip install "aedr-jax[datasets]"') from None
    with _loading(given):
        dataset = datasets.load_dataset(name, split=split)
    return from_hugging_face(dataset, name=name, **columns)


def _open_tfds(given: str, columns: Mapping[str, Any]) -> Source:
    name, split = _name_and_split(given)
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise SourceError(f'{given}: needs tensorflow-datasets: pip install "aedr-jax[tfds]"') from None
    column = columns["image_column"] or "image"
    with _loading(given):
        source = tfds.data_source(name, split=split, decoders={column: tfds.decode.SkipDecoding()})
    return from_tfds(source, name=name, image_column=column, id_column=columns["id_column"])


def _name_and_split(given: str) -> tuple[str, str]:
    kind, _, rest = given.partition(":")
    name, _, split = rest.rpartition(":")
    if not name:
        raise SourceError(f"{given}: expected {kind}:NAME:SPLIT")
    return name, split


@contextmanager
def _loading(given: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # network, names, files
        raise SourceError(f"{given}: cannot be loaded: {error}") from error


def _holds_bytes(type_: Any, pa: Any) -> bool:
    if pa.types.is_struct(type_):
        return any(type_.field(i).name == "bytes" for i in range(type_.num_fields))
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _choose(where: object, names: Sequence[str], images: Sequence[str]) -> str:
    if len(images) == 1:
        return images[0]
    if not images and "path" in names:
        return "path"
    found = f"several ({', '.join(images)})" if images else f"none, and no path (it has {', '.join(names)})"
    raise SourceError(f"{where}: expected one column of image bytes, found {found}; say which with --image-column")


def _item(value: Any, name: str, where: str, folder: Path) -> Item:
    """Bytes, the path of a file, or both as Hugging Face stores them."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_FILE_BYTES:
            return Item(name, where, error=_too_large(len(value)))
        return Item(name, where, value)
    if isinstance(value, str) and value:
        return Item(name, folder / value)
    return Item(name, where, error="the table has neither bytes nor a path here")


def _too_large(size: int) -> str:
    return f"{size} bytes; files above {MAX_FILE_BYTES} are not read"

"""Whatever holds images, by its form: files, archives, listings, Parquet tables, Hugging Face datasets,
tensorflow-datasets.

No name inside a container is used as a path, but for the paths that a table lists. No pickle is read.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aedr_jax.errors import RunError, SourceError
from aedr_jax.inputs.archives import ARCHIVES, Archives
from aedr_jax.inputs.ids import share_of
from aedr_jax.inputs.listings import IDS, LISTINGS, Listing, as_id, check_columns, choose_column, item_of
from aedr_jax.inputs.sources import Files, Item, Listed, Source, nothing_at, unreadable

__all__ = ["Chain", "Rows", "Table", "as_source", "from_hugging_face", "from_tfds", "open_source"]

PARQUET = ".parquet"
PARQUET_BUFFER = 1 << 20
# What may hold images and is not read; taken for an image it would be one broken one.
REFUSED = (
    *(".7z", ".rar", ".tar.lz4", ".gz", ".bz2", ".xz", ".zst", ".json", ".xml", ".yaml", ".xlsx", ".ods", ".pdf"),
    *(".arrow", ".feather", ".tfrecord", ".tfrecords", ".array_record", ".h5", ".hdf5", ".npz", ".npy", ".mat"),
    *(".pkl", ".pickle", ".pt", ".lmdb", ".mdb", ".sqlite", ".db", ".pq"),
)
HOLDING = (*ARCHIVES, PARQUET, *LISTINGS)


def as_source(given: Any, *, image_column: str | None = None, id_column: str | None = None) -> Source:
    """A source as it is; a name or names by `open_source`; other iterables are taken for items, and held in memory."""
    if isinstance(given, Source):
        return given
    elements = _each(given)
    if elements and all(isinstance(element, Item) for element in elements):
        return Listed(elements)
    return open_source(elements, image_column=image_column, id_column=id_column)


def _each(given: Any) -> list[Any]:
    """What was given, one or several."""
    several = isinstance(given, Iterable) and not isinstance(given, str | os.PathLike)
    return list(given) if several else [given]


def open_source(
    inputs: Sequence[str | os.PathLike[str]], *, image_column: str | None = None, id_column: str | None = None
) -> Source:
    """What inputs name, by their form.

    Args:
      inputs: folders, patterns and image files (`Files`); tar and zip (`Archives`); .csv, .tsv, .jsonl and .txt
        (`Listing`); .parquet (`Table`); "hf:NAME:SPLIT" and "tfds:NAME:SPLIT".
      image_column: of tables and datasets, where it cannot be told.
      id_column: likewise.

    Raises:
      SourceError: for an input that names nothing or holds what is not read, or a table without images; for no input,
        and for what is no name.
    """
    inputs = _each(inputs)
    if not inputs:
        raise SourceError("no input: an empty list (of a pattern that nothing matches, say)")
    if odd := [type(given).__name__ for given in inputs if not isinstance(given, str | os.PathLike)]:
        raise SourceError(
            f"inputs: {odd[0]}; expected names of folders, patterns, image files, archives, tables or datasets "
            "(arrays are for aedr.measure)"
        )
    columns: dict[str, Any] = {"image_column": image_column, "id_column": id_column}
    sources: list[Source] = []
    archives: list[str] = []
    plain: list[str] = []  # together, at the place of the first, so that a file which two of them name is one item
    place = 0
    for name in [os.fspath(given) for given in inputs]:
        if name.startswith("hf:"):
            sources.append(_open_hugging_face(name, columns))
            continue
        if name.startswith("tfds:"):
            sources.append(_open_tfds(name, columns))
            continue
        found = [name] if os.path.lexists(name) else sorted(set(glob.glob(name, recursive=True)))
        if not found:
            raise SourceError(nothing_at(name))
        for file in found:
            if os.path.isfile(file) and file.lower().endswith(REFUSED) and not file.lower().endswith(ARCHIVES):
                raise SourceError(
                    f"{file}: is no image, and files of this kind are not read; give folders, image files, "
                    f"{', '.join(HOLDING)}"
                )
            if file.lower().endswith(HOLDING) and not (os.path.isfile(file) or os.path.isdir(file)):
                raise SourceError(f"{file}: is a pipe, a device or a link that leads to no file")
        holding = [file for file in found if os.path.isfile(file) and file.lower().endswith(HOLDING)]
        if holding and len(holding) < len(found):
            raise SourceError(f"{name}: matches archives or tables and other files; name them apart")
        archives += [file for file in holding if file.lower().endswith(ARCHIVES)]
        sources += [Table(file, **columns) for file in holding if file.lower().endswith(PARQUET)]
        sources += [Listing(file, **columns) for file in holding if file.lower().endswith(LISTINGS)]
        if not holding:
            place = place if plain else len(sources)
            plain.append(name)
    if plain:
        files = Files(plain)
        files.check()
        sources.insert(place, files)
    if archives:
        sources.append(Archives(archives))
    return sources[0] if len(sources) == 1 else Chain(sources)


class Chain(Source):
    """Sources one after the other. One that ends in a `RunError` does not stop those that follow."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.places = tuple(place for source in self.sources for place in source.places)

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

    def passed_over(self) -> Counter[str]:
        return sum((source.passed_over() for source in self.sources), super().passed_over())

    def share(self, index: int, of: int) -> Source:
        return Chain([source.share(index, of) for source in self.sources])

    def pieces(self, size: int) -> Iterator[Source]:
        return self._of_each(lambda source: source.pieces(size))


class Table(Source):
    """A Parquet table of images: their bytes, or their paths, relative to the table's folder.

    The image column is the one called so, or else the only one of bytes that is none of ids, or else "path". The id is
    that of a column "id", "__key__", "key" or "path"; a row without one is TABLE/ROW. Ids that are bytes are UTF-8, or
    else in hex.

    Raises:
      SourceError: where columns cannot be told, no row is there, or the file cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        image_column: str | None = None,
        id_column: str | None = None,
        groups: tuple[int, ...] | None = None,
    ) -> None:
        import pyarrow.parquet as pq

        self.path, self.groups = Path(path), groups
        self.places = (self.path,)
        try:
            with pq.ParquetFile(self.path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except Exception as error:  # pyarrow's and the file system's
            raise SourceError(f"{self.path}: cannot be read as a table: {error}") from None
        names = schema.names
        of_bytes = [field.name for field in schema if _of_bytes(field.type) and field.name not in (*IDS, id_column)]
        self.image_column = image_column or choose_column(self.path, names, of_bytes)
        self.id_column = id_column or next((name for name in IDS if name in names), None)
        check_columns(self.path, names, self.image_column, self.id_column)
        if self.id_column and _is_nested(kind := schema.field(self.id_column).type):
            raise SourceError(f"{self.path}: column {self.id_column!r} holds no ids but {kind}")
        if rows == 0:
            raise SourceError(f"{self.path}: lists no image: it has no row")

    def __iter__(self) -> Iterator[Item]:
        try:
            for number, row in self._rows():
                name = as_id(row[self.id_column]) if self.id_column else ""
                name = name or f"{self.path.name}/{number}"
                value = row[self.image_column]
                if self.image_column == "path" and isinstance(value, bytes):
                    value = os.fsdecode(value)
                yield item_of(value, name, f"{self.path}::{number}", self.path.parent)
        except Exception as error:  # likewise
            raise unreadable([f"{self.path}: {error}"]) from error

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
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
        import pyarrow.parquet as pq

        if self.groups is not None:
            return None
        try:
            return pq.read_metadata(self.path).num_rows
        except (OSError, ValueError):  # which whoever goes through the rows is told
            return None

    def pieces(self, size: int) -> Iterator[Source]:
        """Row groups."""
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
      ids: where ids can be read without the images: `ids[i][id_column]`.
    """

    def __init__(
        self,
        rows: Any,
        *,
        name: str,
        image_column: str = "image",
        id_column: str | None = None,
        numbers: Sequence[int] | np.ndarray | None = None,
        ids: Any = None,
    ) -> None:
        self.rows, self.name, self.image_column, self.id_column, self.ids = rows, name, image_column, id_column, ids
        self.numbers = range(len(rows)) if numbers is None else numbers

    def __iter__(self) -> Iterator[Item]:
        for number in map(int, self.numbers):
            where = f"{self.name}::{number}"
            try:
                row = self.rows[number]
                item = item_of(row[self.image_column], self._id(row, number), where, Path())
            except Exception as error:  # whatever the dataset's library raises
                raise unreadable([f"{where}: {error or type(error).__name__}"]) from error
            yield item

    def _id(self, row: Mapping[str, Any], number: int) -> str:
        return (as_id(row[self.id_column]) if self.id_column else "") or f"{self.name}/{number}"

    def count(self) -> int:
        return len(self.numbers)

    def _part(self, numbers: Sequence[int] | np.ndarray) -> Source:
        columns = {"image_column": self.image_column, "id_column": self.id_column, "ids": self.ids}
        return Rows(self.rows, name=self.name, numbers=numbers, **columns)

    def share(self, index: int, of: int) -> Source:
        """Every N-th row; where there is a column of ids by these, for equal ones belong together."""
        if self.id_column is None:
            return self._part(self.numbers[index::of])
        if self.ids is None:
            return super().share(index, of)
        names = ((int(i), self._id(self.ids[int(i)], int(i))) for i in self.numbers)
        with _loading(self.name):
            numbers = np.fromiter((i for i, name in names if share_of(name, of) == index), np.int64)
        return self._part(numbers)

    def pieces(self, size: int) -> Iterator[Source]:
        return (self._part(self.numbers[i : i + size]) for i in range(0, len(self.numbers), size))


def from_hugging_face(
    dataset: Any, *, name: str, image_column: str | None = None, id_column: str | None = None
) -> Source:
    """A `datasets.Dataset` (one split), its images undecoded: bytes as they were stored.

    Raises:
      SourceError: where a column is not there, that of the images cannot be told or holds none, or no row is there.
    """
    from datasets import Image

    names = list(dataset.features)
    images = [key for key, feature in dataset.features.items() if isinstance(feature, Image)]
    column = image_column or choose_column(name, names, images)
    check_columns(name, names, column, id_column)
    _check_rows(name, dataset)
    with _loading(name):
        dataset = dataset.cast_column(column, Image(decode=False))
    ids = dataset.select_columns([id_column]) if id_column else None
    dataset = dataset.select_columns(list(dict.fromkeys(c for c in (column, id_column) if c)))
    return Rows(dataset, name=name, image_column=column, id_column=id_column, ids=ids)


def from_tfds(source: Any, *, name: str, image_column: str = "image", id_column: str | None = None) -> Source:
    """What `tfds.data_source(..., decoders={"image": tfds.decode.SkipDecoding()})` gives: no TensorFlow session.

    Raises:
      SourceError: where a column is not there, no row is there, or the first cannot be read.
    """
    _check_rows(name, source)
    with _loading(name):
        names = list(source[0])
    check_columns(name, names, image_column, id_column)
    return Rows(source, name=name, image_column=image_column, id_column=id_column)


def _check_rows(name: str, rows: Any) -> None:
    if len(rows) == 0:
        raise SourceError(f"{name}: lists no image: it has no row")


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


def _of_bytes(type_: Any) -> bool:
    """Whether a column's values are bytes, or hold them as Hugging Face's images do."""
    from pyarrow import types

    type_ = _plain(type_)
    if types.is_struct(type_):
        return any(type_.field(i).name == "bytes" for i in range(type_.num_fields))
    return types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_)


def _is_nested(type_: Any) -> bool:
    from pyarrow import types

    return types.is_nested(_plain(type_))


def _plain(type_: Any) -> Any:
    """Of a dictionary its values' type."""
    from pyarrow import types

    return type_.value_type if types.is_dictionary(type_) else type_

"""Text files that list images: CSV, TSV, JSON lines, and plain lists of a path a line.

A row that would pair an id with another row's image is worse than a row that is missing, so what can be read in two
ways is refused:

- Quotes must be those of RFC 4180. A field may span lines, but not where its first and its last line would each be a
  row of the table: there a stray quote swallowed rows.
- A row of more or fewer fields than the header has, or a line that is no JSON object, is an error row of its own.
- What cannot be read further names the line, and nothing behind it is read.

Text is UTF-8, or UTF-16 with a byte order mark. Bytes that are not UTF-8 are kept as they are, as in file names.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from aedr_jax.errors import SourceError
from aedr_jax.images.codec import MAX_FILE_BYTES, too_large, why_no_url
from aedr_jax.inputs.sources import Item, Source, unreadable

__all__ = ["IDS", "LISTINGS", "Listing", "as_id", "check_columns", "choose_column", "item_of"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
IDS = ("id", "__key__", "key", "path")  # columns that name an image, the first that there is
LISTINGS = (".csv", ".tsv", ".jsonl", ".txt")
MAX_FIELD = 1 << 24  # characters of a field or line: memory, where a quote or a line has no end
REMEDY = "write it as JSON lines, or quote as RFC 4180 says"


class ListingError(ValueError):
    """From here on a list cannot be read."""


class Record(NamedTuple):
    """A row: its values by column, or why it has none."""

    values: Mapping[str, Any]
    error: str = ""


class Listing(Source):
    """Images that a text file lists by path, relative to its folder.

    The image column is the one called so, or else "path". The id is that of a column "id", "__key__", "key" or "path";
    a row without one is FILE/ROW.

    Raises:
      SourceError: where columns cannot be told, no row is there, or the file cannot be read.
    """

    light = True

    def __init__(
        self, path: str | os.PathLike[str], *, image_column: str | None = None, id_column: str | None = None
    ) -> None:
        self.path = Path(path)
        self.places = (self.path,)
        self._read = {".jsonl": _json_lines, ".txt": _plain_lines}.get(self.path.suffix.lower(), _delimited)
        try:
            names, empty = self._look()
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path}: cannot be read as a table: {error}") from None
        self.image_column = image_column or choose_column(self.path, names, [])
        self.id_column = id_column or next((name for name in IDS if name in names), None)
        check_columns(self.path, names, self.image_column, self.id_column)
        if empty:
            raise SourceError(f"{self.path}: lists no image: it has no row")

    def _look(self) -> tuple[Sequence[str], bool]:
        """The names of the columns, and whether there is no row."""
        with _opened(self.path) as file:
            names, records = self._read(_Lines(file), self.path)
            try:
                return names, next(records, None) is None
            except ValueError:  # which whoever goes through the rows is told
                return names, False

    def __iter__(self) -> Iterator[Item]:
        try:
            for number, record in self._records():
                name, where = f"{self.path.name}/{number}", f"{self.path}::{number}"
                if record.error:
                    yield Item(name, where, error=record.error)
                else:
                    name = as_id(record.values.get(self.id_column)) or name if self.id_column else name
                    yield item_of(record.values.get(self.image_column), name, where, self.path.parent)
        except (OSError, ValueError) as error:
            raise unreadable([f"{self.path}: {error}"]) from error

    def _records(self) -> Iterator[tuple[int, Record]]:
        with _opened(self.path) as file:
            _, records = self._read(_Lines(file), self.path)
            yield from enumerate(records)

    def count(self) -> int | None:
        try:
            return sum(1 for _ in self._records())
        except (OSError, ValueError):  # likewise
            return None


def _opened(path: Path) -> IO[str]:
    with open(path, "rb") as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return open(path, newline="", encoding="utf-16")  # the caller closes it
    return open(path, newline="", encoding="utf-8-sig", errors="surrogateescape")


class _Lines:
    """The lines of a file, with their ends; those since the last `taken`, for one record may be of several."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.number, self.pending = file, 0, list[str]()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_FIELD)
        if not line:
            raise StopIteration
        self.number += 1
        if "\0" in line:
            raise ListingError(f"line {self.number} holds NUL bytes; save it as UTF-8")
        if len(line) == MAX_FIELD:
            raise ListingError(f"line {self.number} has more than {MAX_FIELD - 1} characters")
        self.pending.append(line)
        return line

    def taken(self) -> tuple[list[str], str]:
        """The lines of a record, and which they are, in words."""
        lines, self.pending = self.pending, []
        first = self.number - len(lines) + 1
        return lines, f"line {first}" if first >= self.number else f"lines {first} to {self.number}"

    def one_by_one(self) -> Iterator[tuple[str, str]]:
        """Each line as a record of its own, and which it is."""
        for line in self:
            yield line, self.taken()[1]


Read = tuple[Sequence[str], Iterator[Record]]


def _delimited(lines: _Lines, path: Path) -> Read:
    delimiter = DELIMITERS[path.suffix.lower()]
    # The limit is the process's, and csv's own of 128 KB is no measure of a caption. It is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = next(_checked(reader, lines), [])
    lines.taken()
    return header, _rows(_checked(reader, lines), header, lines, delimiter)


def _rows(reader: Iterator[list[str]], header: Sequence[str], lines: _Lines, delimiter: str) -> Iterator[Record]:
    for fields in reader:
        physical, where = lines.taken()
        if not fields:  # an empty line
            continue
        if len(physical) > 1:
            # Each has as many fields as the header: the quote that joins them may be a stray one.
            alone = [line.count(delimiter) + 1 for line in (physical[0], physical[-1])]
            if len(fields) != len(header) or set(alone) == {len(header)}:
                raise ListingError(
                    f"{where}: a quote joins these lines into one row of {len(fields)} fields, but they may be rows of "
                    f"their own; {REMEDY}"
                )
        if len(fields) != len(header):
            yield Record({}, f"{where} has {len(fields)} fields, the header {len(header)}")
        else:
            yield Record(dict(zip(header, fields, strict=True)))


def _checked(reader: Iterator[list[str]], lines: _Lines) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ListingError(
            f"{lines.taken()[1]}: a quote is not closed where its field ends ({error}); {REMEDY}"
        ) from None


def _json_lines(lines: _Lines, path: Path) -> Read:
    names = next((list(record.values) for record in _objects(lines) if not record.error), [])
    lines.file.seek(0)
    return names, _objects(_Lines(lines.file))


def _objects(lines: _Lines) -> Iterator[Record]:
    return (_parsed(line, where) for line, where in lines.one_by_one() if line.strip())


def _parsed(line: str, where: str) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Record({}, f"{where} is not JSON: {error}")
    return Record(value) if isinstance(value, dict) else Record({}, f"{where} is no JSON object")


def _plain_lines(lines: _Lines, path: Path) -> Read:
    return ["path"], (Record({"path": name}) for line, _ in lines.one_by_one() if (name := line.rstrip("\r\n")))


def check_columns(where: object, names: Sequence[str], *columns: str | None) -> None:
    """Each of the columns is there, once.

    Raises:
      SourceError: with what there is.
    """
    for column in columns:
        if column is not None and column not in names:
            raise SourceError(f"{where}: no column {column!r}; it has {', '.join(names)}")
        if column is not None and names.count(column) > 1:
            raise SourceError(f"{where}: {names.count(column)} columns are called {column!r}; give each its own name")


def choose_column(where: object, names: Sequence[str], images: Sequence[str]) -> str:
    """The only column of images, or else "path".

    Raises:
      SourceError: where there is neither, or several.
    """
    if len(images) == 1:
        return images[0]
    if not images and "path" in names:
        return "path"
    found = f"several ({', '.join(images)})" if images else f"none, and no path (it has {', '.join(names)})"
    raise SourceError(f"{where}: expected one column of image bytes, found {found}; say which with --image-column")


def as_id(value: Any) -> str:
    """An id as text; "" for none. Bytes are UTF-8, or else in hex."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return "" if value is None else str(value)


def item_of(value: Any, name: str, where: str, folder: Path) -> Item:
    """Of a cell: bytes, the path of a file, or both as Hugging Face stores them."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_FILE_BYTES:
            return Item(name, where, error=too_large(len(value)))
        return Item(name, where, value)
    if isinstance(value, str) and value:
        if no_url := why_no_url(value):
            return Item(name, where, error=f"{value} {no_url}")
        return Item(name, folder / value)
    return Item(name, where, error="the table has neither bytes nor a path here")

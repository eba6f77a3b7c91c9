"""Rows to a file: Parquet, CSV or JSON lines by the ending; no ending: a folder of Parquet.

Names of files and what archives and tables call their images are a stranger's text. Parquet and JSON lines keep them as
they are (JSON in escapes where they would command a terminal). CSV keeps them too, but for a single quote before text
that a spreadsheet would compute (`CELL`). What is printed has no control characters (`for_terminal`).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aedr_jax.errors import SourceError
from aedr_jax.files import whole_file

if TYPE_CHECKING:
    from aedr_jax.inputs.sources import Source

__all__ = [
    "as_record",
    "check_apart",
    "check_file",
    "check_output",
    "check_place",
    "for_terminal",
    "printable",
    "records",
    "saying",
    "to_json",
    "to_markdown",
    "unquoted",
    "write_csv",
    "write_rows",
]

ENDINGS = (".parquet", ".csv", ".jsonl", "")
ONLY_PART = "part-0.parquet"
# Control characters (C0, DEL, C1), separators of lines, what turns the direction of text, and lone surrogates.
COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What a spreadsheet computes (OWASP, "CSV Injection"), behind any number of quotes: so quoting has an inverse, which
# takes one quote from what matches and begins with a quote.
CELL = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def check_apart(source: Source, *outputs: str | os.PathLike[str] | None) -> None:
    """Refuse to write a file over one that is read, such as a list of images, or two into one.

    Raises:
      SourceError: naming the output.
    """
    seen = {os.path.realpath(place): f"an input, {place}," for place in source.places}
    for path in (output for output in outputs if output is not None):
        if other := seen.get(os.path.realpath(path)):
            raise SourceError(f"{path}: is {other} too; name another file")
        seen[os.path.realpath(path)] = "another output"


def check_place(path: str | os.PathLike[str], *, made: bool = False) -> None:
    """Refuse a place at which nothing can be written, by its name and its folder.

    Args:
      path: of the file or folder.
      made: whether folders that are not there will be made.

    Raises:
      SourceError: on a path without a last part, such as ".", and in a folder that is not there or not writable.
    """
    path = Path(path)
    if not path.name:
        raise SourceError(f"{path}: expected a name; this is a folder that is there already")
    folder = path.parent
    while made and not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise SourceError(f"{path}: the folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    if not os.access(folder, os.W_OK):
        raise SourceError(f"{path}: the folder {folder} cannot be written to")


def check_file(path: str | os.PathLike[str], *, endings: Sequence[str] = (), made: bool = False) -> Path:
    """The path, if a file can be written to it: asked before the long work, not after.

    Args:
      path: of the file.
      endings: those that it may have; none: any.
      made: as for `check_place`.

    Raises:
      SourceError: on a folder, on another ending, and as `check_place`.
    """
    path = Path(path)
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; expected the name of a file")
    if endings and path.suffix.lower() not in endings:
        raise SourceError(f"{path}: expected an ending of {', '.join(endings)}")
    check_place(path, made=made)
    return path


def check_output(path: str | os.PathLike[str], *, alone: bool = False) -> Path:
    """The path, if rows can be written to it: asked before the long work, not after.

    Args:
      path: of the file or folder.
      alone: whether a folder must hold nothing but what `write_rows` writes: among a run's parts these rows would be
        taken for more of them.

    Raises:
      SourceError: on another ending, a folder that does not exist, a file where a folder is to be and the reverse, and
        a folder that holds something else.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise SourceError(f"{path}: expected an ending of .parquet, .csv, .jsonl, or none for a Parquet folder")
    if path.suffix:
        return check_file(path)
    check_place(path)
    if path.is_file():
        raise SourceError(f"{path}: is a file; a name without an ending is a Parquet folder")
    if alone and path.is_dir():
        seen = (name for name in sorted(os.listdir(path)) if not name.startswith("."))
        if other := next((name for name in seen if name != ONLY_PART), None):
            raise SourceError(f"{path}: holds other files, such as {other}; name another folder")
    return path


def as_record(row: Any) -> dict[str, Any]:
    """A row as columns and values: a mapping as it is, or a dataclass, in which a NamedTuple stands for its own
    columns."""
    if isinstance(row, Mapping):
        return dict(row)
    record: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        record |= value._asdict() if hasattr(value, "_asdict") else {field.name: value}
    return record


def write_rows(
    rows: Iterable[Any],
    path: str | os.PathLike[str],
    *,
    about: Mapping[bytes, bytes] | None = None,
    table: Callable[[], Any] | None = None,
) -> None:
    """Write rows (`as_record`), all of one type; the file appears whole or not at all.

    Args:
      rows: to write; gone through once, and not at all where `table` gives them.
      path: by its ending.
      about: what else Parquet's metadata is to say; the other formats have no place for it.
      table: gives the rows as an Arrow table, for Parquet; None: its types follow from what is in the rows.

    Raises:
      SourceError: as `check_output`.
    """
    path = check_output(path, alone=True)
    if path.suffix == "":
        path.mkdir(exist_ok=True)
        path = path / ONLY_PART
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(saying(table() if table else _inferred(records(rows)), about or {}), partial)
        else:
            {".csv": _write_csv, ".jsonl": _write_jsonl}[path.suffix](records(rows), partial)


def records(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows as columns and values (`as_record`), as files can hold them (`printable`)."""
    return [printable(as_record(row)) for row in rows]


def _write_csv(records: Sequence[dict[str, Any]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        write_csv(records, file)


def write_csv(records: Sequence[Mapping[str, Any]], file: Any, *, printed: bool = False, ending: str = "\r\n") -> None:
    """Records as CSV: a header, numbers as they are, dictionaries as JSON, and behind a single quote text that a
    spreadsheet would take for a formula.

    Args:
      records: keys are columns; what a record lacks stays empty.
      file: open for text, with `newline=""`.
      printed: whether it is the terminal: control characters are escaped then.
      ending: of a line.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, dict):
            value = to_json(value)
        if not isinstance(value, str):
            return value
        value = for_terminal(value) if printed else value
        return f"'{value}" if CELL.match(value) else value

    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(file, columns, lineterminator=ending)
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in record.items()} for record in records)


def unquoted(cell: str) -> str:
    """The text that `write_csv` made this cell of."""
    return cell[1:] if cell.startswith("'") and CELL.match(cell) else cell


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of text, a line each."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _write_jsonl(records: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(to_json(record) + "\n" for record in records), encoding="utf-8")


def _inferred(records: Sequence[dict[str, Any]]) -> Any:
    """An Arrow table whose types follow from what is in it."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(records))
    for i, field in enumerate(table.schema):
        # A column that is None throughout (quantize) or {} throughout (p_values where no image could be read), which
        # Parquet cannot hold as such.
        if pa.types.is_null(field.type) or (pa.types.is_struct(field.type) and field.type.num_fields == 0):
            table = table.set_column(i, field.name, pa.nulls(table.num_rows, pa.bool_()))
    return table


def saying(table: Any, about: Mapping[bytes, bytes]) -> Any:
    """An Arrow table whose metadata says this too."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **about} or None)


def to_json(value: Any) -> str:
    """Strict JSON on one line: NaN, which JSON does not have, becomes null, and what would command a terminal is in
    JSON's own escapes."""
    text = json.dumps(_without_nan(printable(value)), ensure_ascii=False, allow_nan=False)
    return COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def for_terminal(text: str) -> str:
    """A stranger's text on one line, with \\n, \\x1b, \\u202e, ... in place of what would command a terminal."""
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable(value: Any) -> Any:
    """File names that are no text come with lone surrogates, which no file can be written with: escape them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value

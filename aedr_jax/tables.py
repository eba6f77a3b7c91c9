"""Rows to a file: Parquet, CSV or JSON lines by the ending; no ending: a folder of Parquet."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aedr_jax.errors import SourceError
from aedr_jax.files import whole_file

__all__ = ["check_output", "printable", "to_json", "write_rows"]

ENDINGS = (".parquet", ".csv", ".jsonl", "")


def check_output(path: str | os.PathLike[str]) -> Path:
    """The path, if rows can be written to it: asked before the long work, not after.

    Raises:
      SourceError: on another ending, a folder that does not exist, or a file where a folder is to be and the reverse.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise SourceError(f"{path}: expected an ending of .parquet, .csv, .jsonl, or none for a Parquet folder")
    if not path.parent.is_dir():
        raise SourceError(f"{path}: the folder {path.parent} does not exist")
    if path.suffix == "" and path.is_file():
        raise SourceError(f"{path}: is a file; a name without an ending is a Parquet folder")
    if path.suffix and path.is_dir():
        raise SourceError(f"{path}: is a folder")
    return path


def write_rows(rows: Sequence[Any], path: str | os.PathLike[str]) -> None:
    """Write dataclass rows, all of one type; the file appears whole or not at all.

    Raises:
      SourceError: on an ending that is not supported.
    """
    path = check_output(path)
    if path.suffix == "":
        path.mkdir(exist_ok=True)
        path = path / "part-0.parquet"
    records = [{k: printable(v) for k, v in dataclasses.asdict(row).items()} for row in rows]
    write = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}[path.suffix]
    with whole_file(path) as partial:
        write(records, partial)


def _write_csv(records: Sequence[dict[str, Any]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows({k: to_json(v) if isinstance(v, dict) else v for k, v in r.items()} for r in records)


def _write_jsonl(records: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(to_json(record) + "\n" for record in records), encoding="utf-8")


def _write_parquet(records: Sequence[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(records))
    for i, field in enumerate(table.schema):
        # A column that is None throughout (quantize) or {} throughout (p_values where no image could be read), which
        # Parquet cannot hold as such.
        if pa.types.is_null(field.type) or (pa.types.is_struct(field.type) and field.type.num_fields == 0):
            table = table.set_column(i, field.name, pa.nulls(table.num_rows, pa.bool_()))
    pq.write_table(table, path)


def to_json(value: Any) -> str:
    """Strict JSON: NaN, which JSON does not have, becomes null."""
    return json.dumps(_without_nan(printable(value)), ensure_ascii=False, allow_nan=False)


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

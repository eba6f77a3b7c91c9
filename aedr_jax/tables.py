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

__all__ = ["check_output", "to_json", "write_rows"]

ENDINGS = (".parquet", ".csv", ".jsonl", "")


def check_output(path: str | os.PathLike[str]) -> Path:
    """The path, if rows can be written to it: asked before the long work, not after.

    Raises:
      SourceError: on another ending, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise SourceError(f"{path}: expected an ending of .parquet, .csv, .jsonl, or none for a Parquet folder")
    if not path.parent.is_dir():
        raise SourceError(f"{path}: the folder {path.parent} does not exist")
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
    partial = path.with_name(path.name + ".partial")
    records = [dataclasses.asdict(row) for row in rows]
    if path.suffix == ".parquet":
        _write_parquet(records, partial)
    elif path.suffix == ".csv":
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [])
            writer.writeheader()
            writer.writerows({k: to_json(v) if isinstance(v, dict) else v for k, v in r.items()} for r in records)
    else:
        partial.write_text("".join(to_json(record) + "\n" for record in records))
    os.replace(partial, path)


def _write_parquet(records: Sequence[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(records))
    for i, field in enumerate(table.schema):
        if pa.types.is_null(field.type):  # a column that is None throughout, such as quantize
            table = table.set_column(i, field.name, table.column(i).cast(pa.bool_()))
    pq.write_table(table, path)


def to_json(value: Any) -> str:
    """Strict JSON: NaN, which JSON does not have, becomes null."""
    return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value

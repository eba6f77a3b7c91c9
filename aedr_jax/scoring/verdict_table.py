"""Verdicts as a table, one row an image: the same columns, whatever is in it and whoever writes it.

A row has the fields of `Verdict`, in their order, and behind them:

- `model`: of the models that the verdict names, or else of all, the one that most speaks for (`Verdict.nearest`);
- `score`, `foreign_p_value`, `p_value`, `likelihood_ratio`: this model's, so that a table can be sorted by them;
- `schema_version`.

What a verdict has of each model is a struct in Parquet, with a field for each candidate that is null where nothing is
defined, and a JSON object in CSV and JSON lines.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from aedr_jax.errors import SourceError
from aedr_jax.scoring.store import Layout
from aedr_jax.scoring.tables import printable, records, write_rows
from aedr_jax.scoring.verdicts import Verdict

__all__ = ["SCHEMA_VERSION", "as_record", "as_table", "columns", "count_verdicts", "layout", "write_verdicts"]

SCHEMA_VERSION = 2
SCHEMA_VERSION_KEY = b"aedr_jax.verdicts_schema_version"
OF_THE_NEAREST = {  # columns and the field of a verdict that each is of
    "score": "scores",
    "foreign_p_value": "foreign_p_values",
    "p_value": "p_values",
    "likelihood_ratio": "likelihood_ratios",
}


def columns() -> list[str]:
    """The names of the columns, in order."""
    fields = [field.name for field in dataclasses.fields(Verdict)]
    return [*fields, "model", *OF_THE_NEAREST, "schema_version"]


def as_record(verdict: Verdict) -> dict[str, Any]:
    """A verdict as columns and values; a number that nothing defines is None."""
    nearest = verdict.nearest
    values = {name: getattr(verdict, field).get(nearest) for name, field in OF_THE_NEAREST.items()}
    return {**vars(verdict), "model": nearest, **values, "schema_version": SCHEMA_VERSION}


def as_table(verdicts: Sequence[Verdict], models: Sequence[str]) -> Any:
    """Verdicts on these candidates as an Arrow table."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

    def kind(hint: Any) -> Any:
        inner = getattr(hint, "__args__", None)  # of dict[str, float]
        return kinds[hint] if inner is None else pa.struct([(printable(name), kinds[inner[1]]) for name in models])

    fields = {name: kind(hint) for name, hint in get_type_hints(Verdict).items()}
    fields |= {"model": pa.string(), **dict.fromkeys(OF_THE_NEAREST, pa.float64()), "schema_version": pa.int64()}
    schema = pa.schema(list(fields.items()), metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()})
    return pa.Table.from_pylist(records(map(as_record, verdicts)), schema=schema)


def layout(models: Sequence[str]) -> Layout:
    """How verdicts on these candidates lie in a part."""
    return Layout(_key, functools.partial(as_table, models=tuple(models)))


def _key(verdict: Verdict) -> tuple[str]:
    return (verdict.id,)


def write_verdicts(
    verdicts: Sequence[Verdict],
    models: Sequence[str],
    path: str | os.PathLike[str],
    *,
    about: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write verdicts on these candidates to a file, by its ending; `about` as for `write_rows`.

    Raises:
      SourceError: as `tables.check_output`.
    """
    write_rows(map(as_record, verdicts), path, about=about, table=lambda: as_table(verdicts, models))


def count_verdicts(folder: str | os.PathLike[str]) -> Counter[str]:
    """How often each verdict is in a folder of them, part by part.

    Raises:
      SourceError: for a part that cannot be read.
    """
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for part in sorted(Path(folder).glob("part-*.parquet")):
        try:
            found.update(pq.ParquetFile(part).read(columns=["verdict"])["verdict"].to_pylist())
        except Exception as error:  # pyarrow's and the file system's
            raise SourceError(f"{part}: cannot be read ({error})") from None
    return found

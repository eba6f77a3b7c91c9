"""What becomes of an image and a model: one row of values, in one order, with one schema.

Its columns are the fields of `Row`, and in place of `measured` the columns of a `Measurement`: a value that is measured
is in every row, file and schema without a word here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast, get_type_hints

import numpy as np

from aedr_jax.scoring.tables import records
from aedr_jax.signal.measurement import Measurement
from aedr_jax.signal.protocol import Identity

__all__ = ["SCHEMA_VERSION", "Row", "as_table", "by_image", "column_types", "of_numbers", "rows_to_measurement"]

SCHEMA_VERSION = 5
SCHEMA_VERSION_KEY = b"aedr_jax.schema_version"


def of_numbers(numbers: Iterable[float]) -> Measurement:
    """One image's numbers, in the order of a `Measurement`'s columns."""
    return Measurement(*cast(Any, map(float, numbers)))


NOTHING = of_numbers(math.nan for _ in Measurement._fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image scored by one model; numbers are 0 or NaN and texts empty where the image could not be read.

    `measured` holds one number for each column of a `Measurement`. `status` is "ok" or "error"; an error row with a
    `sha256` is of an image that was read, on which the model is not finite.
    """

    id: str
    path: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    jpeg_quality: int = 0  # that a JPEG was last saved at; 0 for other formats
    used_width: int = 0
    used_height: int = 0
    size_rule: str
    model: str
    weights_hash: str  # empty where weights cannot be hashed
    rounded_hash: str = ""  # of the weights rounded to bfloat16; likewise
    preset: str
    dtype: str
    precision: str
    quantize: bool | None
    measured: Measurement = NOTHING
    status: str = "error"
    error: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> Identity:
        """Which model scored it: a text that is empty is not known."""
        known = (self.dtype or None, self.precision or None, self.rounded_hash or None)
        return Identity(self.model, self.weights_hash or None, self.quantize, *known)

    @property
    def rule_of_run(self) -> str:
        """The size rule of its model, without what was done to this image alone (`Decoder.cut`)."""
        return self.size_rule.partition(",")[0]


def column_types() -> dict[str, Any]:
    """The columns of a row and their types, in order."""
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(Row).items():
        types |= dict.fromkeys(Measurement._fields, float) if hint is Measurement else {name: hint}
    return types


def as_table(rows: Sequence[Row]) -> Any:
    """Rows as an Arrow table, whose columns have the same types whatever is in them."""
    import pyarrow as pa

    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool | None: pa.bool_()}
    fields = [(name, arrow[kind]) for name, kind in column_types().items()]
    schema = pa.schema(fields, metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()})
    return pa.Table.from_pylist(records(rows), schema=schema)


def by_image(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Rows by model, for each id and path: two rows of a table may name one file, under two ids."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.id, row.path), {})[row.model] = row
    return found


def rows_to_measurement(rows: Sequence[Row]) -> Measurement:
    """The measurement that rows of one model hold, in their order."""
    return Measurement(*(np.array(column, np.float64) for column in zip(*(row.measured for row in rows), strict=True)))

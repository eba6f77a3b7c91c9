"""Scores that are there already, read back as a source: images whose rows are known, and need not be decoded again.

A folder of `score_dataset`, any folder of Parquet files with such rows, or what `score` wrote: .parquet, .csv, .jsonl.
They are read a few thousand rows at a time, so memory does not depend on their number. For that

- the rows of an image lie next to each other, in one file, one for each model: so whatever wrote them here, and files
  that were joined by images; not files of one model each, put one behind the other: what lacks a row is said;
- all rows of a model were measured alike: the first image's rows say how, and a row that differs ends the reading.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aedr_jax.errors import RunError, SourceError
from aedr_jax.inputs.ids import share_of
from aedr_jax.inputs.sources import Item, Source, unreadable
from aedr_jax.scoring.job import Measuring, Setup
from aedr_jax.scoring.rows import SCHEMA_VERSION, Row, column_types
from aedr_jax.scoring.store import manifest_of
from aedr_jax.scoring.tables import unquoted
from aedr_jax.signal.measurement import PRESETS, Measurement
from aedr_jax.signal.protocol import Protocol
from aedr_jax.typed import build

__all__ = ["Kind", "Scored", "Scores"]

READ_ROWS = 4096
COLUMNS = column_types()
NUMBERS = [name for name, kind in COLUMNS.items() if kind is float]
BESIDE = [name for name in COLUMNS if name not in Measurement._fields]
ENDINGS = (".parquet", ".csv", ".jsonl")
ALL = "score all candidates in one run"


class Kind(NamedTuple):
    """How a model's rows were measured, as far as they say."""

    weights_hash: str
    preset: str
    dtype: str
    precision: str
    quantize: bool | None
    size_rule: str

    @classmethod
    def of(cls, row: Row) -> Kind:
        """A row's."""
        return cls(row.weights_hash, row.preset, row.dtype, row.precision, row.quantize, row.rule_of_run)


class Scored(Item):
    """An image with its rows, in `rows`."""

    rows: Sequence[Row]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Scored:
        """The image of these rows."""
        made = cls(rows[0].id, rows[0].path)
        made.rows = rows
        return made

    def sha256(self) -> str:
        """Of the image, as its rows have it; "" where it could not be read."""
        return self.rows[0].sha256


class Scores(Source):
    """The images of scores. What it yields are `Scored`.

    Args:
      where: a folder, or a file with one of `ENDINGS`.
      models: whose rows are wanted, in this order; None: all.
      files: of the folder, those to read; None: all.

    Attributes:
      kinds: for each model of the first image, how it was measured.
      settings: of the run that wrote the folder, where they lie beside it.

    Raises:
      SourceError: where there is nothing to read, columns are missing or of another version, or a model has no row.
    """

    light = True

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        files: Sequence[Path] | None = None,
    ) -> None:
        self.where = Path(where)
        self.places = (self.where,)
        self.files = _files_of(self.where) if files is None else files
        self._manifest = _manifest_of(self.where)
        self.settings = self._manifest.get("settings")
        first = next((image for file in self.files for image in _images(file)), None)
        if first is None:
            raise SourceError(f"{where}: holds no row")
        self.kinds = {row.model: Kind.of(row) for row in first}
        self.models = tuple(self.kinds) if models is None else tuple(models)
        if len(set(self.models)) < len(self.models):
            raise SourceError(f"a model is given twice: {', '.join(self.models)}")
        if missing := [name for name in self.models if name not in self.kinds]:
            raise SourceError(f"{where}: no rows of {', '.join(missing)} (there are: {', '.join(self.kinds)}); {ALL}")

    def protocols(self) -> dict[str, Protocol]:
        """How the wanted models were measured, all of it, where the settings of the run lie beside the folder.

        Raises:
          SourceError: where they are not those of a run.
        """
        try:
            known = (self.settings or {}).get("models", {})
            return {name: build(Protocol, known[name], name) for name in self.models if name in known}
        except ValueError as error:
            raise SourceError(f"{self.where}: its settings cannot be read: {error}") from None

    def measuring(self) -> Measuring:
        """How the images were measured: as is written beside the folder, or else as far as the rows say; which of them
        were too large is then taken to be as by default.

        Raises:
          SourceError: where what is beside the folder is not of a run.
        """
        values = self._manifest.get("measuring")
        if values is not None:
            try:
                return build(Measuring, values, "measuring")
            except ValueError as error:
                raise SourceError(f"{self.where}: how its images were measured cannot be read: {error}") from error
        kinds = [self.kinds[name] for name in self.models]
        crop, *other_crops = {kind.size_rule.removeprefix("crop") for kind in kinds}
        dtype, *other_dtypes = {kind.dtype for kind in kinds}
        settings = self.settings or {}
        sizes = {name: settings[name] for name in ("most_pixels", "most_decoded") if name in settings}
        return dataclasses.replace(
            Measuring.of(Setup()),
            preset=kinds[0].preset,
            multiple=int(crop) if crop.isdigit() and not other_crops else None,
            dtype=dtype if dtype and not other_dtypes else None,
            precision=kinds[0].precision or "highest",
            **sizes,
        )

    def __iter__(self) -> Iterator[Item]:
        problems: list[str] = []
        lacking, example = 0, ""
        for file in self.files:
            try:
                for image in _images(file):
                    rows = {row.model: row for row in image}
                    self._check(rows.values())
                    if missing := [name for name in self.models if name not in rows]:
                        lacking += 1
                        example = example or f"{image[0].id} ({image[0].path}), none of {', '.join(missing)}"
                    else:
                        yield Scored.of([rows[name] for name in self.models])
            except SourceError as error:
                problems.append(str(error))
        said = [str(unreadable(problems))] if problems else []
        if lacking:
            said.append(
                f"{lacking} images do not have a row of every candidate next to each other, and so no verdict, such as "
                f"{example}; {ALL}"
            )
        if said:
            raise RunError("; ".join(said))

    def _check(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.model in self.models and (kind := Kind.of(row)) != self.kinds[row.model]:
                first, now = (str(tuple(one)) for one in (self.kinds[row.model], kind))
                raise RunError(
                    f"{self.where}: the row of {row.id} ({row.path}) with {row.model} was measured otherwise than the "
                    f"first image's: {first}, here {now}; give rows of one run"
                )

    def count(self) -> int | None:
        import pyarrow.parquet as pq

        if any(file.suffix != ".parquet" for file in self.files):
            return None
        try:
            return sum(pq.read_metadata(file).num_rows for file in self.files) // len(self.kinds)
        except Exception:  # which whoever goes through them is told
            return None

    def share(self, index: int, of: int) -> Source:
        """Files by their names where there are at least as many as shares, so that each is read by one process: a file
        that is added changes no other's share. Otherwise as every source."""
        if of == 1 or len(self.files) < of:
            return super().share(index, of)
        return self._of([file for file in self.files if share_of(file.name, of) == index])

    def pieces(self, size: int) -> Iterator[Source]:
        """Files."""
        return (self._of([file]) for file in self.files)

    def _of(self, files: Sequence[Path]) -> Scores:
        part = copy.copy(self)
        part.files = files
        return part


def _files_of(where: Path) -> list[Path]:
    if where.is_dir():
        if files := sorted(path for path in where.glob("*.parquet") if not path.name.startswith(".")):
            return files
        raise SourceError(f"{where}: no Parquet file in this folder")
    if not where.is_file():
        raise SourceError(f"{where}: no such file or folder")
    if where.suffix not in ENDINGS:
        raise SourceError(f"{where}: expected a folder of scores, or {', '.join(ENDINGS)}")
    return [where]


def _manifest_of(where: Path) -> Mapping[str, Any]:
    """What lies beside a folder that a run wrote, its settings above all; nothing where it does not."""
    manifest = manifest_of(where)
    if not (where.is_dir() and manifest.exists()):
        return {}
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
        return {**values, "settings": dict(values["settings"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f"{manifest}: does not hold the settings of a run; restore or remove it") from None


def _images(file: Path) -> Iterator[list[Row]]:
    """The rows of each image of a file.

    Raises:
      SourceError: where it cannot be read (further).
    """
    rows = (_row(record, file) for record in _records(file))
    for _, image in itertools.groupby(rows, key=lambda row: (row.id, row.path)):
        yield list(image)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    read = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}[file.suffix]
    try:
        yield from read(file)
    except SourceError:
        raise
    except Exception as error:  # pyarrow's, csv's, json's, the file system's
        raise SourceError(f"{file}: cannot be read as scores: {error}") from None


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        _check_columns(table.schema_arrow.names, file)
        for batch in table.iter_batches(READ_ROWS, columns=list(COLUMNS), use_threads=False):
            yield from batch.to_pylist()


def _csv(file: Path) -> Iterator[dict[str, Any]]:
    parse: dict[Any, Callable[[str], Any]] = {str: unquoted, int: int, float: float, bool | None: _flag}
    columns = {name: parse[kind] for name, kind in COLUMNS.items()}
    with open(file, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines, strict=True)
        _check_columns(reader.fieldnames or (), file)
        for record in reader:
            yield {name: read(record[name]) for name, read in columns.items()}


def _flag(text: str) -> bool | None:
    return {"": None, "True": True, "False": False}[text]


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    """JSON has neither NaN nor infinity, and both are null: where alignments were measured, an error that is null is
    infinite."""
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            _check_columns(record, file)
            nothing = math.inf if _aligned(record["preset"], file) and record["status"] == "ok" else math.nan
            record |= {name: math.nan for name in NUMBERS if record[name] is None}
            if math.isnan(record["alignment_error"]):
                record["alignment_error"] = nothing
            yield record


def _aligned(preset: str, file: Path) -> bool:
    if preset not in PRESETS:
        raise SourceError(
            f"{file}: JSON lines do not say all of settings {preset!r}; give the scores as Parquet or CSV"
        )
    return PRESETS[preset].alignment is not None


def _check_columns(names: Iterable[str], file: Path) -> None:
    if missing := COLUMNS.keys() - set(names):
        raise SourceError(
            f"{file}: not scores of this version: no column {', '.join(sorted(missing))}; score the images again"
        )


def _row(record: Mapping[str, Any], file: Path) -> Row:
    if record["schema_version"] != SCHEMA_VERSION:
        raise SourceError(
            f"{file}: rows of version {record['schema_version']}, expected {SCHEMA_VERSION}; score the images again"
        )
    measured = Measurement(*(record[name] for name in Measurement._fields))
    return Row(**{name: record[name] for name in BESIDE}, measured=measured)

"""`score`: rows of files, and what kept a run from its end, as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

from aedr_jax.autoencoders.names import name_models
from aedr_jax.errors import RunError, SourceError
from aedr_jax.inputs.containers import as_source, open_source
from aedr_jax.inputs.sources import Item, Source, until_failure
from aedr_jax.scoring.dataset import score_dataset
from aedr_jax.scoring.job import Setup, check_setup, decoders
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.rows import Row, as_table
from aedr_jax.scoring.scorer import Scorer
from aedr_jax.scoring.tables import check_apart, check_output, write_rows

__all__ = [
    "Counts",
    "Progress",
    "Run",
    "Setup",
    "named",
    "open_source",
    "score",
    "score_dataset",
    "score_source",
    "taken_again",
    "unseen",
]

# (how many images, None where they cannot be counted; what is done to them) -> a context that gives a function, which
# is told of the number of images done since it was last called. The bar of a command is one.
Progress = Callable[[int | None, str], AbstractContextManager[Callable[[int], Any]]]


def unseen(total: int | None, what: str) -> AbstractContextManager[Callable[[int], Any]]:
    """No progress is shown."""
    return nullcontext(lambda done: None)


class Counts(NamedTuple):
    """How many images and rows there are, how many images could not be read, and on how many a model is not finite."""

    images: int
    unreadable: int
    not_finite: int
    rows: int


class Run(NamedTuple):
    """Rows, and how the run that made them ended.

    Attributes:
      rows: in the order of the images, one for each image and model; what could not be read has an error row.
      wanted: how many rows all of the source is; None where it cannot be counted without reading it.
      interrupted: whether Ctrl-C ended the run; the rows are those that were finished.
      problems: what of the source could not be read; no row is of what lies behind these places.
      passed_over: what of the source was taken for no image: kind -> how many.
    """

    rows: list[Row]
    wanted: int | None = None
    interrupted: bool = False
    problems: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = MappingProxyType({})

    @property
    def complete(self) -> bool:
        """Whether the source was gone through to its end."""
        return not (self.interrupted or self.problems)

    @property
    def good(self) -> list[Row]:
        """The rows with a measurement."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def nothing_scored(self) -> bool:
        """Whether there are error rows alone."""
        return bool(self.rows) and not self.good

    @property
    def counts(self) -> Counts:
        """Of images and rows."""
        failed = [row for row in self.rows if row.status != "ok"]
        return Counts(
            images=len({(row.id, row.path) for row in self.rows}),
            unreadable=len({(row.id, row.path) for row in failed if not row.sha256}),
            not_finite=len({(row.id, row.path) for row in failed if row.sha256}),
            rows=len(self.rows),
        )


def score(
    inputs: Any,
    models: str | Sequence[str] | Mapping[str, str],
    *,
    setup: Setup = Setup(),
    out: str | os.PathLike[str] | None = None,
    command: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = unseen,
) -> Run:
    """Losses, ratio, homogeneity and signal of each image with each model; held in memory.

    Args:
      inputs: a `Source`, or what `open_source` reads, one or a list.
      models: registry names, folders or hub paths, or `NAME=SOURCE`; or name -> source.
      setup: how images are measured.
      out: also write the rows to this file, .parquet, .csv or .jsonl. A run that ended early writes what it has.
      command: what was typed, for Parquet's metadata.
      image_column, id_column: of tables and datasets, where they cannot be told.
      progress: shown while images are scored.

    Raises:
      SourceError: for inputs that name no image, and an `out` that cannot be written; one without an ending is a
        folder, which `score_dataset` fills, and goes on with.
      AutoencoderError: for models that cannot be loaded.
      KeyboardInterrupt: before the first image is scored; later it ends up in the result.
    """
    if out is not None and check_output(out).suffix == "":
        raise SourceError(f"{out}: score_dataset writes folders; expected an ending of .parquet, .csv or .jsonl")
    check_setup(setup)
    source = as_source(inputs, image_column=image_column, id_column=id_column)
    check_apart(source, out)
    run = score_source(setup.scorer(named(models)), source, progress)
    if out is not None:
        write_rows(run.rows, out, about=Made.now(command).in_parquet(), table=lambda: as_table(run.rows))
    return run


def named(models: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Name -> source, by `name_models` where names are not given."""
    return dict(models) if isinstance(models, Mapping) else name_models(models)


def score_source(scorer: Scorer, source: Source, progress: Progress = unseen, *, workers: int | None = 1) -> Run:
    """Rows of a source in the order of its images, whatever ends the run.

    Args:
      scorer: of the models.
      source: the images.
      progress: shown while images are scored.
      workers: decoder processes; None: as many as the source keeps busy (`job.decoders`).

    Raises:
      Exception: what the source raises but for `RunError`, which is among the problems.
    """
    total, models = source.count(), len(scorer.candidates)
    rows: list[Row] = []
    order: dict[tuple[str, str], int] = {}
    failures: list[Exception] = []
    interrupted = False
    with progress(total, f"{'images' if total is None else f'{total} images'}, {models} models") as advance:
        try:
            items = until_failure(numbered(source, order), failures)
            several = decoders(total) if workers is None else workers
            for row in scorer.score(items, on_progress=advance, workers=several):
                rows.append(row)
        except KeyboardInterrupt:
            interrupted = True
    for failure in failures:
        if not isinstance(failure, RunError):
            raise failure
    return Run(
        sorted(rows, key=lambda row: order[row.id, row.path]),
        None if total is None else total * models,
        interrupted,
        tuple(map(str, failures)),
        source.passed_over(),
    )


def numbered(source: Source, order: dict[tuple[str, str], int]) -> Iterator[Item]:
    """The items of a source, each of which takes its number in `order`; their rows come as batches fill up.

    Raises:
      RunError: at the end, where images have another's id and path.
    """
    doubles = []
    for item in source:
        key = (item.id, str(item.path))
        if key in order:
            doubles.append(item.id)
        else:
            order[key] = len(order)
            yield item
    if doubles:
        raise RunError(f"{len(doubles)} images have another's id and path, such as {doubles[0]}; the first has its row")


def taken_again(
    source: Source, wanted: dict[tuple[str, str], int], failures: list[Exception]
) -> Iterator[tuple[int, Item]]:
    """The items of a source that are wanted, by id and path, and what each is wanted as; what the source did not give,
    to its end or to where it fails, stays in `wanted`."""
    items = until_failure(source, failures)
    while wanted and (item := next(items, None)) is not None:
        if (number := wanted.pop((item.id, str(item.path)), None)) is not None:
            yield number, item

"""What is done to the items of a source, in a form that travels to other machines: scores here, `judging` verdicts."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from aedr_jax.autoencoders.loading import dtype_of
from aedr_jax.compilation import cpus
from aedr_jax.errors import SourceError
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.images.processing import Processing
from aedr_jax.inputs.sources import Item, until_failure
from aedr_jax.inputs.workers import decode_all
from aedr_jax.scoring.rows import SCHEMA_VERSION, Row, as_table, column_types
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.scoring.store import Layout
from aedr_jax.signal.measurement import PRESETS, SignalConfig

__all__ = [
    "SCORES",
    "Finished",
    "Measuring",
    "Plan",
    "Scoring",
    "Setup",
    "Work",
    "Worker",
    "check_setup",
    "decoders",
    "settings",
    "tally",
]

MOST_DECODERS = 16
IMAGES_A_DECODER = 32  # where there are fewer, its start takes longer than its work


def _key(row: Row) -> tuple[str, str]:
    return row.id, row.model


SCORES = Layout(_key, as_table)


class Finished(NamedTuple):
    """What a run into a folder did, in images: scored (of which unreadable), and skipped as finished before; and those
    of the scored on which a model was not finite."""

    scored: int
    unreadable: int
    skipped: int
    not_finite: int = 0

    def plus(self, other: Finished) -> Finished:
        """What two parts of a run did."""
        return Finished(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def tally(rows: Sequence[Row], models: int) -> Finished:
    """What the rows of so many candidates are; none is skipped."""
    failed = [row for row in rows if row.status != "ok"]
    unreadable = sum(not row.sha256 for row in failed) // models
    return Finished(len(rows) // models, unreadable, 0, len({row.id for row in failed if row.sha256}))


class Worker(ABC):
    """What a process has that does a `Work`: models loaded, once."""

    @property
    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """The candidates, of each of which an image has a row."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What rows depend on, as JSON: a run goes on only with the same."""

    @abstractmethod
    def rows(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        """Scores batch by batch, the rows of an image together.

        Raises:
          Exception: what the source raises, after all that came before.
        """

    def kept(self, rows: Sequence[Row]) -> Sequence[Any]:
        """What is written of scores of whole images: they themselves, or what follows from them."""
        return rows


class Work(ABC):
    """What is to be done to the items of a source; it travels to other machines."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """How what is kept lies in a part."""

    @property
    @abstractmethod
    def measuring(self) -> Measuring:
        """How its images are measured, or were."""

    @abstractmethod
    def worker(self) -> Worker:
        """Load what it takes."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """How images are measured, whatever the models and whatever becomes of the scores.

    Attributes:
      config: what is measured, such as `SignalConfig.paper()`.
      batch_size: images at once; None: one a CPU device, eight a device elsewhere.
      multiple: crop to a multiple of this many pixels; None: the autoencoders' factor.
      dtype: what models compute in, as for `load_autoencoder`, kept by its name; None: float32, or with
        `config.as_authors` the authors'.
      precision: of products: "highest", "high" or "default".
      most_pixels: of an image with more, the middle is measured; None: as `Scorer` says.
      most_decoded: an image with more is an error row.

    Raises:
      SourceError: on settings that are no `SignalConfig`.
      AutoencoderError: on another dtype.
    """

    config: SignalConfig = dataclasses.field(default_factory=SignalConfig)
    batch_size: int | None = None
    multiple: int | None = None
    dtype: Any = None
    precision: str = "highest"
    most_pixels: int | None = None
    most_decoded: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if not isinstance(self.config, SignalConfig):
            raise SourceError(f"config {self.config!r}: expected a SignalConfig, such as SignalConfig.paper()")
        if self.dtype is not None:  # its name, which a run's settings hold and equal setups have in common
            object.__setattr__(self, "dtype", dtype_of(self.dtype).name)

    def scorer(self, models: Mapping[str, Any], *, processing: Processing = Processing("none")) -> Scorer:
        """Load models, name -> what `load_autoencoder` takes or an autoencoder, to score images that `processing` is
        done to first."""
        options: dict[str, Any] = {"config": self.config, "dtype": self.dtype, "precision": self.precision}
        return Scorer(
            [load_candidate(model, name=name, **options) for name, model in models.items()],
            config=self.config,
            batch_size=self.batch_size,
            multiple=self.multiple,
            processing=processing,
            most_pixels=self.most_pixels,
            most_decoded=self.most_decoded,
        )


def check_setup(setup: Any) -> None:
    """Refuse what is no `Setup`, such as a `SignalConfig` alone.

    Raises:
      SourceError: saying what was given.
    """
    if not isinstance(setup, Setup):
        raise SourceError(f"setup: {type(setup).__name__}; expected a Setup, such as Setup(SignalConfig.paper())")


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How images were measured (`Setup`), of which `preset` names the settings; "custom" ones are in the protocols."""

    preset: str
    multiple: int | None
    dtype: str | None
    precision: str
    most_pixels: int | None
    most_decoded: int

    @classmethod
    def of(cls, setup: Setup) -> Measuring:
        """What of a setup a row depends on."""
        own = [field.name for field in dataclasses.fields(cls) if field.name != "preset"]
        return cls(setup.config.name, **{name: getattr(setup, name) for name in own})

    def setup(self) -> Setup:
        """The setup that it was.

        Raises:
          SourceError: for settings that are no preset, and for images larger than are decoded by default: no file says
            how much memory this machine may be asked for.
        """
        if self.preset not in PRESETS:
            raise SourceError(f"a record of settings {self.preset!r}, which no file can bring: pass them (setup=)")
        if self.most_decoded > MAX_PIXELS:
            raise SourceError(
                f"a record of images up to {self.most_decoded} pixels, above the {MAX_PIXELS} that are decoded "
                "on a file's word: pass the setup (setup=)"
            )
        values = dataclasses.asdict(self)
        return Setup(SignalConfig.preset(values.pop("preset")), **values)


@dataclasses.dataclass(frozen=True)
class Plan(Work):
    """Images to scores: models (name -> what `load_autoencoder` takes, or an autoencoder), setup, decoder processes."""

    models: Mapping[str, Any]
    setup: Setup = Setup()
    workers: int | None = None

    @property
    def layout(self) -> Layout:
        return SCORES

    @property
    def measuring(self) -> Measuring:
        return Measuring.of(self.setup)

    def worker(self) -> Worker:
        return Scoring(self)


class Scoring(Worker):
    """Images to scores; items are decoded in worker processes."""

    def __init__(self, plan: Plan) -> None:
        self.scorer = plan.setup.scorer(plan.models)
        self.workers = decoders() if plan.workers is None else plan.workers

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self.scorer.candidates)

    def settings(self) -> dict[str, Any]:
        return settings(self.scorer)

    def rows(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        failures: list[Exception] = []
        with closing(decode_all(self.scorer.decoder, items, workers=self.workers)) as decoded:
            yield from self.scorer.score_decoded(until_failure(decoded, failures))
        if failures:  # of the source: what came before it has been scored
            raise failures[0]


def decoders(images: int | None = None) -> int:
    """How many decoder processes: one a CPU, at most 16, and no more than so many images keep busy."""
    most = min(cpus(), MOST_DECODERS)
    return most if images is None else max(1, min(most, images // IMAGES_A_DECODER))


def settings(scorer: Scorer) -> dict[str, Any]:
    """What scores depend on, as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "columns": list(column_types()),
        "models": {candidate.name: scorer.protocol(candidate).record() for candidate in scorer.candidates},
        "most_pixels": scorer.decoder.most_pixels,
        "most_decoded": scorer.decoder.most_decoded,
    }

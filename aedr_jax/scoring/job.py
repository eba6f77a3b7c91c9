"""A scoring job, in a form that travels to other machines: what to measure, and the rows batch by batch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.inputs.decoding import MAX_SCORED_PIXELS
from aedr_jax.inputs.sources import Item, until_failure
from aedr_jax.inputs.workers import decode_all
from aedr_jax.scoring.rows import SCHEMA_VERSION, Row
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.signal.measurement import SignalConfig

__all__ = ["Finished", "Plan", "settings", "tally"]


class Finished(NamedTuple):
    """What a call of `score_dataset` did, in images: scored (of which unreadable), and skipped as finished before; and
    those of the scored on which a model was not finite."""

    scored: int
    unreadable: int
    skipped: int
    not_finite: int = 0


def tally(rows: Sequence[Row], scorer: Scorer) -> tuple[int, int, int]:
    """How many images the rows of all candidates are, how many of them could not be read, and on how many of the others
    a model was not finite."""
    models = len(scorer.candidates)
    failed = [row for row in rows if row.status != "ok"]
    unreadable = sum(not row.sha256 for row in failed) // models
    return len(rows) // models, unreadable, len({row.id for row in failed if row.sha256})


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to score, in a form that travels to other machines; the fields are `score_dataset`'s arguments."""

    models: Mapping[str, str]
    config: SignalConfig
    batch_size: int | None = None
    multiple: int | None = None
    dtype: str | None = None
    precision: str = "highest"
    workers: int | None = None
    most_pixels: int = MAX_SCORED_PIXELS
    most_decoded: int = MAX_PIXELS

    def scorer(self) -> Scorer:
        """Load the models."""
        options: dict[str, Any] = {"config": self.config, "dtype": self.dtype, "precision": self.precision}
        candidates = [load_candidate(model, name=name, **options) for name, model in self.models.items()]
        return Scorer(
            candidates,
            config=self.config,
            batch_size=self.batch_size,
            multiple=self.multiple,
            most_pixels=self.most_pixels,
            most_decoded=self.most_decoded,
        )

    def score(self, scorer: Scorer, items: Iterable[Item]) -> Iterator[list[Row]]:
        """Rows batch by batch, the rows of an image together; items are decoded in worker processes."""
        workers = min(os.cpu_count() or 1, 16) if self.workers is None else self.workers
        failures: list[Exception] = []
        with closing(decode_all(scorer.decoder, items, workers=workers)) as decoded:
            yield from scorer.score_decoded(until_failure(decoded, failures))
        if failures:  # of the source: what came before it has been scored
            raise failures[0]


def settings(scorer: Scorer) -> dict[str, Any]:
    """What rows depend on, as JSON: a run goes on only with the same."""
    return {
        "schema_version": SCHEMA_VERSION,
        "models": {candidate.name: scorer.protocol(candidate).record() for candidate in scorer.candidates},
        "most_pixels": scorer.decoder.most_pixels,
        "most_decoded": scorer.decoder.most_decoded,
    }

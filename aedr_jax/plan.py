"""A scoring job, in a form that travels to other machines: what to measure, and the rows batch by batch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from aedr_jax.scoring import SCHEMA_VERSION, Row, Scorer, load_candidate
from aedr_jax.signal import SignalConfig
from aedr_jax.sources import Item, until_failure
from aedr_jax.workers import decode_all

__all__ = ["Finished", "Plan", "settings", "tally"]


class Finished(NamedTuple):
    """What a call of `score_dataset` did, in images: scored (of which unreadable), and skipped as finished before."""

    scored: int
    unreadable: int
    skipped: int


def tally(rows: Sequence[Row], scorer: Scorer) -> tuple[int, int]:
    """How many images the rows of all candidates are, and how many of them could not be read."""
    models = len(scorer.candidates)
    return len(rows) // models, sum(row.status != "ok" for row in rows) // models


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

    def scorer(self) -> Scorer:
        """Load the models."""
        options: dict[str, Any] = {"preset": self.config.name, "dtype": self.dtype, "precision": self.precision}
        candidates = [
            dataclasses.replace(load_candidate(model, **options), name=name) for name, model in self.models.items()
        ]
        return Scorer(candidates, preset=self.config, batch_size=self.batch_size, multiple=self.multiple)

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
    }

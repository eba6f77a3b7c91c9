"""Works whose rows are verdicts: of images, which are scored first, or of scores that are there already.

A verdict follows from the rows of one image, and these come together. So images are scored batch by batch as ever, and
when a part is written, what is written of its images are their verdicts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aedr_jax.decision.attribution import NONE
from aedr_jax.decision.calibration import Calibration
from aedr_jax.decision.null import Null
from aedr_jax.inputs.decoding import Refused
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.job import Measuring, Plan, Scoring, Work, Worker
from aedr_jax.scoring.rows import SCHEMA_VERSION as VERSION_OF_ROWS
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.scored import Scored, Scores
from aedr_jax.scoring.scorer import Scorer
from aedr_jax.scoring.store import Layout
from aedr_jax.scoring.verdict_table import SCHEMA_VERSION, columns, layout
from aedr_jax.scoring.verdicts import Verdict, after_search, families_of, verdict_rows
from aedr_jax.signal.protocol import Protocol
from aedr_jax.signal.search import search_many, searchable

__all__ = ["JudgeImages", "JudgeScores", "Judging", "searched"]


@dataclasses.dataclass(frozen=True)
class Judging:
    """How verdicts follow from scores.

    Attributes:
      calibrations: of each model that has some, for each past of its images.
      false_names: as for `attribute`, of the whole run.
      search: whether what no model accepts is looked at again; each of the two looks gets half of `false_names`.
    """

    calibrations: Mapping[str, Sequence[Calibration]] = dataclasses.field(default_factory=dict)
    false_names: float = 0.05
    search: bool = False

    @property
    def rate(self) -> float:
        """The false names of one look."""
        return self.false_names / 2 if self.search else self.false_names

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on beside scores, as JSON."""
        return {
            "kind": "verdicts",
            "verdict_schema_version": SCHEMA_VERSION,
            "verdict_columns": columns(),
            "false_names": self.false_names,
            "search": self.search,
            "null": Null.shipped().digest(),
            "calibrations": {name: sorted(c.digest() for c in made) for name, made in self.calibrations.items()},
        }

    def check(self, protocols: Mapping[str, Protocol]) -> None:
        """Refuse scores, measured so, that the calibrations cannot judge.

        Raises:
          CalibrationError: as `Calibration.check_against`.
        """
        for name, protocol in protocols.items():
            for calibration in self.calibrations.get(name, ()):
                calibration.check_against(protocol, where=f"calibration of {name}")

    def verdicts(self, rows: Sequence[Row], models: Sequence[str]) -> list[Verdict]:
        """The verdicts on images that every model was asked about, as they are."""
        return verdict_rows(rows, self.calibrations, models=models, false_names=self.rate)


@dataclasses.dataclass(frozen=True)
class JudgeImages(Work):
    """Images to verdicts."""

    plan: Plan
    judging: Judging

    @property
    def layout(self) -> Layout:
        return layout(tuple(self.plan.models))

    @property
    def measuring(self) -> Measuring:
        return self.plan.measuring

    def worker(self) -> Worker:
        return _ImageJudge(self.plan, self.judging)


class _ImageJudge(Scoring):
    def __init__(self, plan: Plan, judging: Judging) -> None:
        super().__init__(plan)
        self.judging = judging
        self.found: dict[tuple[str, str], Verdict] = {}  # by searches, of images whose rows wait to be written
        judging.check({candidate.name: self.scorer.protocol(candidate) for candidate in self.scorer.candidates})

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **self.judging.settings()}

    def rows(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        if not self.judging.search:
            yield from super().rows(items)
            return
        under_way: dict[tuple[str, str], Item] = {}  # of which the decoders hold a few, and batches that fill up

        def noted() -> Iterator[Item]:
            for item in items:
                under_way[item.id, str(item.path)] = item
                yield item

        for batch in super().rows(noted()):
            families = families_of(batch)
            for verdict in self.judging.verdicts(batch, self.models):
                item = under_way.pop((verdict.id, verdict.path))
                if verdict.verdict == NONE:
                    again = searched(verdict, item, self.scorer, false_names=self.judging.rate, families=families)
                    self.found[verdict.id, verdict.path] = again
            yield batch

    def kept(self, rows: Sequence[Row]) -> Sequence[Verdict]:
        verdicts = {(verdict.id, verdict.path): verdict for verdict in self.judging.verdicts(rows, self.models)}
        # What earlier parts found is let go only now: whatever stopped the writing of one, it is asked for again.
        self.found = {image: verdict for image, verdict in self.found.items() if image in verdicts}
        return list({**verdicts, **self.found}.values())


@dataclasses.dataclass(frozen=True)
class JudgeScores(Work):
    """The images of `Scores` to verdicts: no model is loaded.

    Attributes:
      scores: whose settings verdicts depend on; what is judged is the source that the run is given, which is they.
      judging: without a search, which needs the images.
    """

    scores: Scores
    judging: Judging

    @property
    def layout(self) -> Layout:
        return layout(self.scores.models)

    @property
    def measuring(self) -> Measuring:
        return self.scores.measuring()

    def worker(self) -> Worker:
        return _ScoreJudge(self.scores, self.judging)


class _ScoreJudge(Worker):
    def __init__(self, scores: Scores, judging: Judging) -> None:
        self.scores, self.judging = scores, judging
        judging.check(scores.protocols())

    @property
    def models(self) -> tuple[str, ...]:
        return self.scores.models

    def settings(self) -> dict[str, Any]:
        protocols = self.scores.protocols()
        measured = {
            name: protocols[name].record() if name in protocols else self.scores.kinds[name]._asdict()
            for name in self.models
        }
        return {"schema_version": VERSION_OF_ROWS, "models": measured, **self.judging.settings()}

    def rows(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        for item in items:
            assert isinstance(item, Scored)
            yield list(item.rows)

    def kept(self, rows: Sequence[Row]) -> Sequence[Verdict]:
        return self.judging.verdicts(rows, self.models)


def searched(
    verdict: Verdict, item: Item, scorer: Scorer, *, false_names: float, families: Mapping[str, str]
) -> Verdict:
    """The verdict on an image that no model accepts as it is, from a search; as it was, where there is nothing to
    search in.

    Args:
      verdict: on the image as it is.
      item: the image.
      scorer: of the models.
      false_names: of the search.
      families: as for `attribute`.
    """
    decoded = scorer.decoder.whole(item)
    if isinstance(decoded, Refused):
        return verdict
    models = {candidate.name: candidate.autoencoder for candidate in scorer.candidates}
    if not (able := searchable(models, decoded.images[0])):
        return verdict
    found = search_many(able, decoded.images[0])
    return after_search(verdict, found, false_names=false_names, families=families)

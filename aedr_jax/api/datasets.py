"""`attribute_dataset`: verdicts on a source of any size, or on scores that are there, into a folder that a run goes on
with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from aedr_jax.api.decisions import VERDICTS, Calibrations, candidates_of, scored_candidates
from aedr_jax.decision.attribution import check_false_names
from aedr_jax.inputs.containers import as_source
from aedr_jax.scoring.dataset import PART_IMAGES, PART_SECONDS, Running, check_workers, fill
from aedr_jax.scoring.job import Finished, Plan, Setup
from aedr_jax.scoring.judging import JudgeImages, JudgeScores, Judging
from aedr_jax.scoring.scored import Scores

__all__ = ["Scores", "attribute_dataset"]


def attribute_dataset(
    inputs: Any,
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] | Mapping[str, Any] | None = None,
    calibrations: str | os.PathLike[str] | Calibrations | None = None,
    false_names: float = 0.05,
    search: bool = False,
    setup: Setup = VERDICTS,
    workers: int | None = None,
    shard: tuple[int, int] | str = (0, 1),
    part_images: int = PART_IMAGES,
    part_seconds: float = PART_SECONDS,
    engine: str = "local",
    address: str | None = None,
    resources: Mapping[str, float] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: bool = False,
    command: str | None = None,
) -> Finished:
    """A verdict on every image of a source into a folder of Parquet files (`scoring.verdict_table`); the same call
    resumes it. It streams, is divided and stops as `score_dataset` does. The folder, with `OUT.run.json` beside it, is
    the record of what is finished, for `verify`.

    Args:
      inputs: a `Source`, or what `open_source` reads, one or a list; or `Scores`, whose rows are judged: no image is
        decoded again and no model loaded, and candidates are called as in the rows.
      out: the folder.
      models, calibrations, false_names, search, setup: as for `attribute`.
      workers, shard, part_images, part_seconds, engine, address, resources, progress, command: as for `score_dataset`.
      image_column, id_column: of tables and datasets, where they cannot be told.

    Returns:
      The numbers of images that this call judged, could not read, and skipped because they were finished before, and of
      those on which a model was not finite.

    Raises:
      CalibrationError, AutoencoderError: as `attribute`.
      SourceError: as `score_dataset`, and for a search in `Scores`, which have no images.
      RunError: as `score_dataset`.

    >>> from PIL import Image
    >>> Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save("noise.png")
    >>> aedr.api.attribute_dataset("noise.png", "verdicts", models=["mini-kl4-a"], workers=0)
    Finished(scored=1, unreadable=0, skipped=0, not_finite=0)
    """
    check_false_names(false_names)
    check_workers(workers)
    running = Running(shard, part_images, part_seconds, engine, address, resources, progress, command)
    if isinstance(inputs, Scores):
        scores, chosen = scored_candidates(inputs, models, calibrations, search=search)
        return fill(JudgeScores(scores, Judging(chosen, false_names)), scores, out, running)
    source = as_source(inputs, image_column=image_column, id_column=id_column)
    places, chosen = candidates_of(models, calibrations, setup)
    plan = Plan(places, setup, workers)
    return fill(JudgeImages(plan, Judging(chosen, false_names, search)), source, out, running)

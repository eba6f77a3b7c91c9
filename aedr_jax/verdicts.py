"""Rows of scores to rows of verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from aedr_jax.attribution import CAVEAT, attribute
from aedr_jax.calibration import Calibration
from aedr_jax.scoring import Row, rows_to_measurement

__all__ = ["FLAT", "RECOMPRESSED", "Verdict", "not_assessable", "verdict_rows"]

FLAT = 0.995  # of the homogeneity: next to no pixel differs from its neighbour
RECOMPRESSED = 50  # JPEG quality; nothing below it was measured (docs/decision.md)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One image's verdict; scores and p-values by model. The caveat is part of every verdict."""

    id: str
    path: str
    sha256: str
    verdict: str
    scores: dict[str, float]
    p_values: dict[str, float]
    accepted: dict[str, bool]
    status: str
    error: str
    reason: str = ""  # why it is not assessable
    caveat: str = CAVEAT


def not_assessable(rows: Sequence[Row]) -> str:
    """Why nothing can be said of an image, or "": it is flat, heavily recompressed, or without a ratio.

    Args:
      rows: the image's, one for each model. (One whose shorter side is under 64 pixels has error rows already.)
    """
    row = rows[0]
    if row.homogeneity >= FLAT:
        return f"flat: homogeneity {row.homogeneity:.3f}"
    if 0 < row.jpeg_quality < RECOMPRESSED:
        return f"saved as JPEG at quality {row.jpeg_quality}, below {RECOMPRESSED}"
    undefined = [row.second_loss for row in rows if not math.isfinite(row.ratio)]
    return f"the second loss is {undefined[0]:g}" if undefined else ""


def verdict_rows(
    rows: Sequence[Row],
    calibrations: Mapping[str, Calibration | Sequence[Calibration]],
    *,
    false_names: float | None = None,
) -> list[Verdict]:
    """A verdict for each image of rows of several models, in the order in which images first appear.

    `false_names` is `attribute`'s.

    An image that could not be read, or that not every model has scored (an interrupted run), has the verdict "error".
    """
    by_image: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:  # two rows of a table may name one file, under two ids
        by_image.setdefault((row.id, row.path), {})[row.model] = row
    models = list(calibrations)
    ready = {
        image: group
        for image, group in by_image.items()
        if all(name in group and group[name].status == "ok" for name in models)
    }
    judged: dict[tuple[str, str], Verdict] = {}
    if ready:
        measured = {name: rows_to_measurement([group[name] for group in ready.values()]) for name in models}
        reasons = [not_assessable(list(group.values())) for group in ready.values()]
        assessable = np.array([not reason for reason in reasons])
        result = attribute(measured, calibrations, assessable=assessable, false_names=false_names)
        for i, (image, group) in enumerate(ready.items()):
            first = next(iter(group.values()))
            judged[image] = Verdict(
                first.id,
                first.path,
                first.sha256,
                result.verdicts[i],
                dict(zip(models, result.scores[i].tolist(), strict=True)),
                dict(zip(models, result.p_values[i].tolist(), strict=True)),
                dict(zip(models, result.accepted[i].tolist(), strict=True)),
                "ok",
                "",
                reasons[i],
            )
    return [judged.get(image) or _unjudged(next(iter(group.values()))) for image, group in by_image.items()]


def _unjudged(row: Row) -> Verdict:
    message = row.error or "not scored by every model: the run was interrupted"
    return Verdict(row.id, row.path, row.sha256, "error", {}, {}, {}, "error", message)

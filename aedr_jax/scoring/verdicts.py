"""Rows of scores to rows of verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from aedr_jax.decision.attribution import CAVEAT, NOT_ASSESSABLE, Attribution, attribute, check_pasts
from aedr_jax.decision.calibration import Calibration, pasts_of
from aedr_jax.errors import CalibrationError
from aedr_jax.scoring.rows import Row, rows_to_measurement
from aedr_jax.signal.measurement import PRESETS
from aedr_jax.signal.protocol import Identity, Protocol

__all__ = ["FLAT", "RECOMPRESSED", "Verdict", "check_calibrations", "not_assessable", "verdict_rows"]

FLAT = 0.995  # of the homogeneity: next to no pixel differs from its neighbour
RECOMPRESSED = 50  # JPEG quality; nothing below it was measured (docs/decision.md)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One image's verdict; scores and p-values by model. The caveat is part of every verdict.

    `belonging` has the number n of images that each model was calibrated on, the least of several pasts: a p-value of
    1 / (n + 1) is the least that they can tell.
    """

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
    belonging: dict[str, int] = dataclasses.field(default_factory=dict)


def not_assessable(rows: Sequence[Row]) -> str:
    """Why nothing can be said of an image, or "": it is flat, heavily recompressed, or without a ratio.

    Args:
      rows: the image's, one for each model. (One whose shorter side is under 64 pixels has error rows already.)
    """
    row = rows[0]
    if row.measured.homogeneity >= FLAT:
        return f"flat: homogeneity {row.measured.homogeneity:.3f}"
    if 0 < row.jpeg_quality < RECOMPRESSED:
        return f"saved as JPEG at quality {row.jpeg_quality}, below {RECOMPRESSED}"
    undefined = [row.measured.second_loss for row in rows if not math.isfinite(row.measured.ratio)]
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

    Raises:
      CalibrationError: as `check_calibrations`; and where rows were measured in another way than a calibration's
        (`Calibration.check_against`).
    """
    check_calibrations(calibrations, false_names=false_names)
    by_image: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:  # two rows of a table may name one file, under two ids
        by_image.setdefault((row.id, row.path), {})[row.model] = row
    models = list(calibrations)
    _check_measured_alike(rows, calibrations)
    ready = {
        image: group
        for image, group in by_image.items()
        if all(name in group and group[name].status == "ok" for name in models)
    }
    belonging = {name: _belonging(calibrations[name]) for name in models}
    judged: dict[tuple[str, str], Verdict] = {}
    if ready:
        measured = {name: rows_to_measurement([group[name] for group in ready.values()]) for name in models}
        sizes = {name: np.array([_size(group[name]) for group in ready.values()]) for name in models}
        reasons = [not_assessable(list(group.values())) for group in ready.values()]
        assessable = np.array([not reason for reason in reasons])
        result = attribute(measured, calibrations, assessable=assessable, sizes=sizes, false_names=false_names)
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
                reasons[i] or _outside(group, calibrations, result, i),
                belonging=belonging,
            )
    return [judged.get(image) or _unjudged(list(group.values())) for image, group in by_image.items()]


def check_calibrations(
    calibrations: Mapping[str, Calibration | Sequence[Calibration]], *, false_names: float | None = None
) -> None:
    """Refuse calibrations by which no row could be judged: asked before images are scored, not after.

    Raises:
      CalibrationError: where there is none of a model, one does not say which sizes and values it saw, several cannot
        judge together, or `false_names` cannot be bounded by them (`attribution.check_pasts`).
    """
    pasts = {name: pasts_of(several) for name, several in calibrations.items()}
    check_pasts(pasts, false_names=false_names)
    for name, several in pasts.items():
        if any(None in dataclasses.astuple(calibration.domain) for calibration in several):
            raise CalibrationError(
                f"calibration of {name}: does not say which sizes and values its images had; calibrate(..., sizes=)"
            )


def _belonging(pasts: Calibration | Sequence[Calibration]) -> int:
    return min(len(past.scores) for past in pasts_of(pasts))


def _check_measured_alike(rows: Sequence[Row], calibrations: Mapping[str, Calibration | Sequence[Calibration]]) -> None:
    """Refuse rows that were measured in any other way than a calibration's; settings beyond a preset are in no row."""
    presets = {name: config.describe() for name, config in PRESETS.items()}
    kinds = {
        (row.model, _identity(row), row.preset, row.size_rule.split(",")[0])
        for row in rows
        if row.status == "ok" and row.model in calibrations
    }
    for name, identity, preset, size_rule in kinds:
        for calibration in pasts_of(calibrations[name]):
            own = calibration.protocol.settings
            settings = presets.get(preset, {"preset": preset} if own in presets.values() else own)
            measured = Protocol(identity, "aedr", settings, size_rule)
            calibration.check_against(measured, where=f"calibration of {name}")


def _identity(row: Row) -> Identity:
    return Identity(None, row.weights_hash, row.quantize, row.dtype or None, row.precision or None)


def _size(row: Row) -> tuple[int, int]:
    return row.used_height, row.used_width


def _outside(
    group: Mapping[str, Row],
    calibrations: Mapping[str, Calibration | Sequence[Calibration]],
    result: Attribution,
    image: int,
) -> str:
    """What of an image lies outside what the calibrations saw, where that is why it has no other verdict."""
    if result.verdicts[image] != NOT_ASSESSABLE:
        return ""
    accepting = [name for name, yes in zip(result.models, result.accepted[image], strict=True) if yes]
    for name in accepting or result.models:
        row = group[name]
        second_loss, homogeneity = float(row.measured.second_loss), float(row.measured.homogeneity)
        for calibration in pasts_of(calibrations[name]):
            if reason := calibration.domain.why(_size(row), second_loss, homogeneity):
                return f"{name}: {reason}"
    return ""


def _unjudged(rows: Sequence[Row]) -> Verdict:
    row = next((row for row in rows if row.error), rows[0])
    message = row.error or "not scored by every model: the run was interrupted"
    return Verdict(row.id, row.path, row.sha256, "error", {}, {}, {}, "error", message)

"""Rows of scores to rows of verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from aedr_jax.decision.attribution import (
    AMBIGUOUS,
    CAVEAT,
    NONE,
    NOT_ASSESSABLE,
    Attribution,
    attribute,
    check_pasts,
    classes,
    has_alignment,
)
from aedr_jax.decision.calibration import Calibration, pasts_of
from aedr_jax.decision.null import ROUNDING, Null
from aedr_jax.errors import CalibrationError
from aedr_jax.scoring.rows import Row, by_image, rows_to_measurement
from aedr_jax.signal.measurement import PRESETS, Measurement
from aedr_jax.signal.protocol import Protocol
from aedr_jax.signal.search import Found

__all__ = [
    "FLAT",
    "RECOMPRESSED",
    "Verdict",
    "after_search",
    "check_calibrations",
    "families_of",
    "is_least",
    "not_assessable",
    "verdict_rows",
]

FLAT = 0.995  # of the homogeneity: next to no pixel differs from its neighbour
MOST_AT_ONCE = 1024  # images that are judged at once: a density takes memory for each of them and each own image
Pasts = Mapping[str, Sequence[Calibration]]  # by model, one calibration for each past of its images
ALIGNED = ("alignment", "alignment_error")
RECOMPRESSED = 50  # JPEG quality; nothing below it was measured where signals decide (docs/decision.md)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One image's verdict; scores and p-values by model. The caveat is part of every verdict.

    Attributes:
      id, path, sha256: the image's.
      verdict: as in `Attribution`, or "error".
      scores: small where the image belongs: alignments, or what calibrations judge.
      foreign_p_values: how many images that have nothing to do with the model stand as firmly on its grid.
      p_values: how many of the model's own images score so high; of models with a calibration.
      likelihood_ratios: of models whose calibration has validation images.
      accepted: whether the model accepts it.
      status, error: "ok", or "error" and why.
      reason: why it is not assessable.
      found: under which geometry the named model's grid was found, where it was looked for ("mirrored; offset 3, 5").
      foreign: the size of the reference: a foreign p-value of 1 / (n + 1) is the least that it can tell.
      belonging: likewise, the number of images that each model was calibrated on, the least of several pasts.
      alignments, alignment_errors: as in `Measurement`, of the image as it is: what foreign p-values follow from where
        nothing was searched for.
    """

    id: str
    path: str
    sha256: str
    verdict: str
    scores: dict[str, float]
    foreign_p_values: dict[str, float]
    p_values: dict[str, float]
    likelihood_ratios: dict[str, float]
    accepted: dict[str, bool]
    status: str
    error: str
    reason: str = ""
    found: str = ""
    caveat: str = CAVEAT
    foreign: int = 0
    belonging: dict[str, int] = dataclasses.field(default_factory=dict)
    alignments: dict[str, float] = dataclasses.field(default_factory=dict)
    alignment_errors: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "named", "ambiguous", "none", "not assessable" or "error"."""
        if self.verdict in (NONE, NOT_ASSESSABLE, "error"):
            return self.verdict
        return "ambiguous" if self.verdict.startswith(AMBIGUOUS) else "named"

    @property
    def named(self) -> tuple[str, ...]:
        """The models that the verdict names."""
        labels = self.verdict.removeprefix(AMBIGUOUS).split(", ")  # names hold neither "," nor "|"
        return tuple(m for m, yes in self.accepted.items() if yes and any(m in label.split("|") for label in labels))

    @property
    def nearest(self) -> str | None:
        """Of the named models, or else of all, the one for which most speaks: the least foreign p-value, and of equal
        ones the least score; where there are none, the largest p-value of its own. None where nothing is known."""
        among = self.named or tuple(self.accepted)
        known = [m for m in among if m in self.foreign_p_values or m in self.p_values]
        return min(known, key=self._distance, default=None)

    @property
    def unsaid(self) -> str:
        """Why there is no verdict, or "" where there is one: p-values beside "not assessable" would mean nothing."""
        why = self.error or self.reason
        return why or ("a model gives it no defined score" if self.verdict == NOT_ASSESSABLE else "")

    def _distance(self, model: str) -> tuple[float, float, float]:
        own = 0.0 if model in self.foreign_p_values else -self.p_values[model]
        return self.foreign_p_values.get(model, 1.0), own, self.scores.get(model, math.inf)


def is_least(p: float, n: int) -> bool:
    """Whether a p-value is the least that n images can tell, 1 / (n + 1)."""
    return p <= ROUNDING / (n + 1)


def not_assessable(rows: Sequence[Row]) -> str:
    """Why nothing can be said of an image, or "".

    Where alignments decide: too little of it has detail (`AlignmentConfig`). Else it is flat, heavily recompressed, or
    without a ratio.

    Args:
      rows: the image's, one for each model. (One whose shorter side is under 64 pixels has error rows already.)
    """
    row = rows[0]
    if all(has_alignment(row.measured) for row in rows):
        silent = [row.model for row in rows if not math.isfinite(row.measured.alignment)]
        if not silent:
            return ""
        size = f"{row.used_width}×{row.used_height} pixels"
        return f"{silent[0]}: too small, or too few blocks with detail that is neither black nor white ({size})"
    if row.measured.homogeneity >= FLAT:
        return f"flat: homogeneity {row.measured.homogeneity:.3f}"
    if 0 < row.jpeg_quality < RECOMPRESSED:
        return f"saved as JPEG at quality {row.jpeg_quality}, below {RECOMPRESSED}"
    undefined = [row.measured.second_loss for row in rows if not math.isfinite(row.measured.ratio)]
    return f"the second loss is {undefined[0]:g}" if undefined else ""


def verdict_rows(
    rows: Sequence[Row],
    calibrations: Mapping[str, Calibration | Sequence[Calibration]] | None = None,
    *,
    models: Sequence[str] | None = None,
    false_names: float = 0.05,
) -> list[Verdict]:
    """A verdict for each image of rows of several models, in the order in which images first appear.

    An image that could not be read, or that not every model has scored (an interrupted run), has the verdict "error".

    Args:
      rows: of the candidates; rows of other models are passed over.
      calibrations: as for `attribute`.
      models: the candidates; None: those with calibrations, or without any, all that have rows.
      false_names: as for `attribute`.

    Raises:
      CalibrationError: as `check_calibrations`; and where rows were measured in another way than a calibration's
        (`Calibration.check_against`).
    """
    pasts = {name: pasts_of(made) for name, made in (calibrations or {}).items()}
    check_calibrations(pasts)
    groups = by_image(rows)
    models = list(models or pasts or dict.fromkeys(row.model for row in rows))
    _check_measured_alike(rows, pasts)
    ready = {
        image: {name: group[name] for name in models}
        for image, group in groups.items()
        if all(name in group and group[name].status == "ok" for name in models)
    }
    judged: dict[tuple[str, str], Verdict] = {}
    if ready:
        families = families_of(list(next(iter(ready.values())).values()))
        images = list(ready)
        for first in range(0, len(images), MOST_AT_ONCE):
            some = images[first : first + MOST_AT_ONCE]
            found = _judged([ready[image] for image in some], pasts, models, false_names, families)
            judged |= zip(some, found, strict=True)
    return [judged.get(image) or _unjudged(list(group.values())) for image, group in groups.items()]


def _judged(
    images: list[dict[str, Row]],
    pasts: Pasts,
    models: Sequence[str],
    false_names: float,
    families: Mapping[str, str],
) -> list[Verdict]:
    """The verdicts on images of which every model has a row.

    NumPy computes them, image by image the same in any company to the last bit; XLA would not, and would compile a
    program for each number of images.
    """
    measured = {name: rows_to_measurement([group[name] for group in images]) for name in models}
    reasons = [not_assessable(list(group.values())) for group in images]
    aligned = all(map(has_alignment, measured.values()))  # a name can be given whatever another model says
    result = attribute(
        measured,
        {name: made for name, made in pasts.items() if name in models},
        assessable=np.array([not reason or aligned for reason in reasons]),
        sizes={name: np.array([_size(group[name]) for group in images]) for name in models},
        false_names=false_names,
        families=families,
    )
    belonging = {name: min(len(past.scores) for past in pasts[name]) for name in models if name in pasts}
    foreign = _foreign(measured, pasts)
    verdicts = []
    for i, group in enumerate(images):
        row = next(iter(group.values()))
        verdict = Verdict(
            row.id,
            row.path,
            row.sha256,
            result.verdicts[i],
            _by_model(models, result.scores[i]),
            _by_model(models, result.foreign_p_values[i]),
            _by_model(models, result.p_values[i]),
            _by_model(models, result.likelihood_ratios[i]),
            dict(zip(models, result.accepted[i].tolist(), strict=True)),
            "ok",
            "",
            _reason(group, reasons[i], pasts, result, i),
            foreign=foreign,
            belonging=belonging,
            **_aligned(list(group.values())),
        )
        verdicts.append(verdict)
    return verdicts


def check_calibrations(pasts: Pasts) -> None:
    """Refuse calibrations by which no row could be judged: asked before images are scored, not after.

    Raises:
      CalibrationError: where there is none of a model, one does not say which sizes and values it saw, or several
        cannot judge together (`attribution.check_pasts`).
    """
    check_pasts(pasts)
    for name, several in pasts.items():
        if any(not c.aligned and None in dataclasses.astuple(c.domain) for c in several):
            raise CalibrationError(
                f"calibration of {name}: does not say which sizes and values its images had; calibrate(..., sizes=)"
            )


def after_search(
    verdict: Verdict, found: Mapping[str, Found], *, false_names: float, families: Mapping[str, str]
) -> Verdict:
    """The verdict on an image that no model accepted as it is, from what a search for each model's grid found.

    Args:
      verdict: on the image as it is.
      found: for each model, the geometry and the alignment of the rest of the image under it.
      false_names: the rate of this second test; it adds to the first one's.
      families: as for `attribute`.
    """
    measured = {}
    for name, one in found.items():
        error = math.inf if math.isnan(one.error) else one.error  # where the rest says nothing
        measured[name] = Measurement.of_alignment(np.array([one.alignment]), np.array([error]))
    result = attribute(measured, false_names=false_names, families=families)
    if result.verdicts[0] in (NONE, NOT_ASSESSABLE):
        return verdict
    models = list(found)
    again = dataclasses.replace(
        verdict,
        verdict=result.verdicts[0],
        scores=_by_model(models, result.scores[0]),
        foreign_p_values=_by_model(models, result.foreign_p_values[0]),
        p_values={},  # calibrations were asked of the image as it is, not of what was found
        likelihood_ratios={},
        accepted=dict(zip(models, result.accepted[0].tolist(), strict=True)),
    )
    named = again.named
    said = "; ".join(f"{name}: {found[name]}" for name in named) if len(named) > 1 else str(found[named[0]])
    return dataclasses.replace(again, found=said)


def families_of(rows: Sequence[Row]) -> dict[str, str]:
    """For each model of rows a text; models with equal ones share one autoencoder (`Identity.shares_family`)."""
    known = {row.model: row.identity for row in rows if row.status == "ok"}
    return classes(known, lambda a, b: bool(known[a].shares_family(known[b])))


def _by_model(models: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """The defined ones."""
    return {name: value for name, value in zip(models, values.tolist(), strict=True) if not math.isnan(value)}


def _foreign(measured: Mapping[str, Measurement], pasts: Pasts) -> int:
    """The size of the smallest reference that foreign p-values come from, 0 where there is none."""
    if all(map(has_alignment, measured.values())):
        return round(1 / Null.shipped().least) - 1
    made = [past.validation for name in measured for past in pasts.get(name, ())]
    return min((len(validation.scores) for validation in made if validation), default=0)


def _check_measured_alike(rows: Sequence[Row], pasts: Pasts) -> None:
    """Refuse rows that were measured in any other way than a calibration's; settings beyond a preset are in no row."""
    presets = {name: config.describe() for name, config in PRESETS.items()}
    kinds = {
        (row.model, row.identity, row.preset, row.rule_of_run)
        for row in rows
        if row.status == "ok" and row.model in pasts
    }
    for name, identity, preset, size_rule in kinds:
        for calibration in pasts[name]:
            own = calibration.protocol.settings
            settings = presets.get(preset, {"preset": preset} if own in presets.values() else own)
            measured = Protocol(identity, "aedr", settings, size_rule)
            calibration.check_against(measured, where=f"calibration of {name}")


def _size(row: Row) -> tuple[int, int]:
    return row.used_height, row.used_width


def _reason(group: Mapping[str, Row], silent: str, pasts: Pasts, result: Attribution, image: int) -> str:
    """Why an image has no other verdict than "not assessable", or "": it is `silent` (`not_assessable`), or something
    of it lies outside what the calibrations saw."""
    if result.verdicts[image] != NOT_ASSESSABLE:
        return ""
    if silent:
        return silent
    accepting = [name for name, yes in zip(result.models, result.accepted[image], strict=True) if yes]
    for name in [name for name in accepting or result.models if name in pasts]:
        row = group[name]
        second_loss, homogeneity = float(row.measured.second_loss), float(row.measured.homogeneity)
        for calibration in pasts[name]:
            if reason := calibration.domain.why(_size(row), second_loss, homogeneity):
                return f"{name}: {reason}"
    return ""


def _unjudged(rows: Sequence[Row]) -> Verdict:
    row = next((row for row in rows if row.error), rows[0])
    message = row.error or "not scored by every model: the run was interrupted"
    return Verdict(row.id, row.path, row.sha256, "error", {}, {}, {}, {}, {}, "error", message, **_aligned(rows))


def _aligned(rows: Collection[Row]) -> dict[str, Any]:
    """`Verdict.alignments` and `alignment_errors`, of an image's rows."""
    found = {f"{name}s": {row.model: float(getattr(row.measured, name)) for row in rows} for name in ALIGNED}
    return {name: {m: value for m, value in by.items() if math.isfinite(value)} for name, by in found.items()}

"""Methods compared on the scores of `evaluation`: calibrated on first halves, tested on second halves.

AEDR's default is not calibrated: its threshold is that of the foreign images that ship, the same for every model.

All of it works on the Parquet of scores alone. Intervals are 95 % percentiles of a bootstrap over test images; every
cell draws the same images of a source, so that a difference between two methods is not blurred by the draw. Scale:
small where an image belongs.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from aedr_jax.decision.calibration import calibrate
from aedr_jax.decision.null import Null
from aedr_jax.decision.threshold import MIN_SIGNALS
from aedr_jax.errors import CalibrationError, CalibrationWarning, SourceError
from aedr_jax.rivals.registry import DEFAULT, PAPER, rival_of
from aedr_jax.study import metrics

__all__ = [
    "HALVES",
    "METRICS",
    "REAL",
    "Columns",
    "Contender",
    "Decision",
    "Scores",
    "Study",
    "contenders",
    "decide",
    "half_of",
    "read_scores",
    "study",
    "with_intervals",
]

REAL = "real"
HALVES = ("calibration", "test")  # of the images of each source: the first calibrates, the second tests
REPEATS = 300
FALSE_NAMES = 0.05  # at which AEDR's default accepts
METRICS = ("accuracy", "auc", "ap", "tpr_at_1", "tpr_at_5")  # tpr_at_5: at 5 % false positives

Columns = dict[str, np.ndarray]
Scores = dict[tuple[str, str, str, str], Columns]  # (processing, method, model, source) -> columns
Key = tuple[str, str, str]  # (contender, model, other source)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """The columns of each processing, method, model and source of a `scores.parquet`.

    Raises:
      SourceError: where there is no such file, or one of another version of this package.
    """
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise SourceError(f"{path}: no scores there; aedr evaluate writes them")
    table = pq.read_table(path)
    if missing := {"half", "autoencoder", "alignment"} - set(table.column_names):
        raise SourceError(
            f"{path}: no column {', '.join(sorted(missing))}; another version wrote it: run aedr evaluate again"
        )
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    rows: dict[tuple[str, str, str, str], list[int]] = {}
    keys = zip(*(columns[name].tolist() for name in ("processing", "method", "model", "source")), strict=True)
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return {key: {name: values[chosen] for name, values in columns.items()} for key, chosen in rows.items()}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A row of the tables: a method's score times H^power."""

    name: str
    method: str
    power: float = 0.0

    @property
    def own_test(self) -> Callable[[object], float] | None:
        """How the threshold is drawn where there is a test of its own: by a rival from belonging images' scores, by
        AEDR's default from those of foreign images that ship, whatever the belonging ones'."""
        if self.method == DEFAULT:
            return lambda own: Null.shipped().threshold(FALSE_NAMES)
        rival = rival_of(self.method)
        return rival.threshold if rival else None

    @property
    def calibrated(self) -> bool:
        """Whether belonging images have a say in the threshold."""
        return self.method != DEFAULT

    def values(self, cell: Columns) -> Float[np.ndarray, " n"]:
        """The scores; NaN where an image has none."""
        return cell["score"] * cell["homogeneity"] ** self.power


def contenders(scores: Scores) -> list[Contender]:
    """The rows that the scores allow: AEDR's presets, the paper's without H, every rival as it is and ×H."""
    found = []
    for method in dict.fromkeys(method for _, method, _, _ in scores):
        found.append(Contender(method, method))
        if method == PAPER:
            found.append(Contender(f"{method} without H", method, -1.0))
        elif rival_of(method) is not None:
            found.append(Contender(f"{method} ×H", method, 1.0))
    return found


@dataclasses.dataclass(frozen=True)
class Decision:
    """A contender's threshold for one model, from the first halves, and the scores of the second halves.

    Attributes:
      contender, model: what was calibrated, for what.
      threshold: accepted is what lies below it.
      calibration: the scores of own images in the first half, which it follows from, [n]; none for AEDR's default.
      alpha: the share of own images to turn away; None where a test of the contender's own drew the threshold.
      picked: whether alpha was picked for best accuracy on the first halves of own and other images, as in the paper;
        else it is .05, because there are fewer than ten of either.
      own: the model's own images in the second half, [n].
      others: `{source: scores}` of the second half, as many as each source has.
    """

    contender: Contender
    model: str
    threshold: float
    calibration: Float[np.ndarray, " _"]
    alpha: float | None
    picked: bool
    own: Float[np.ndarray, " n"]
    others: dict[str, Float[np.ndarray, " _"]]

    @property
    def tpr(self) -> float:
        """The share of own images that is accepted."""
        return float((self.own < self.threshold).mean())

    def accuracy(self, threshold: float | None = None) -> float:
        """The mean, over other sources, of own images accepted and others turned away."""
        tau = self.threshold if threshold is None else threshold
        return metrics.balanced_accuracy(self.own, *self.others.values(), threshold=tau)


def decide(
    scores: Scores, contender: Contender, model: str, *, processing: str = "none", alpha: float | None = None
) -> Decision | None:
    """Calibrate on first halves of unprocessed images, and score the second halves, processed or not.

    The threshold is the density estimate's, or that of the contender's own test, which has no alpha to pick.

    Args:
      scores: from `read_scores`.
      contender: of `contenders`.
      model: the candidate.
      processing: of the test images.
      alpha: None: picked where there are images enough (`Decision.picked`).

    Returns:
      None where the method did not score this model, or too few of its images calibrate.
    """
    cells = {s: cell for (p, m, c, s), cell in scores.items() if (p, m, c) == ("none", contender.method, model)}
    tests = {s: cell for (p, m, c, s), cell in scores.items() if (p, m, c) == (processing, contender.method, model)}
    if model not in tests or len(tests) < 2:
        return None
    first = {s: contender.values(_defined(half_of(cell, "calibration"))) for s, cell in cells.items()}
    own, others = first.pop(model), np.concatenate(list(first.values()))
    own_test = contender.own_test
    picked = alpha is None and own_test is None and min(own.size, others.size) >= 2 * MIN_SIGNALS
    try:
        if own_test:
            tau, kept = own_test(own), None
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # n stands in every cell
                made = calibrate(
                    own,
                    method=contender.name,
                    model=model,
                    alpha=alpha,  # None: picked with validation images, else .05
                    validation=others if picked else None,
                )
            tau, kept = made.threshold, made.alpha
    except CalibrationError:
        return None
    second = {s: contender.values(_defined(half_of(cell, "test"))) for s, cell in tests.items()}
    tested = {s: np.asarray(values, np.float64) for s, values in second.items() if values.size}
    if model not in tested or len(tested) < 2:
        return None
    calibration = own if contender.calibrated else own[:0]
    return Decision(contender, model, tau, calibration, kept, picked, tested.pop(model), tested)


@dataclasses.dataclass(frozen=True)
class Study:
    """All decisions, and each metric against each other source: as measured, and then in each draw of the bootstrap.

    Attributes:
      scores: what it is of.
      models: the candidates.
      decided: `{(contender, model): decision}`.
      drawn: `{(contender, model, source): [metrics, 1 + draws]}`, the metrics in the order of `METRICS`.
    """

    scores: Scores
    models: tuple[str, ...]
    decided: dict[tuple[str, str], Decision]
    drawn: dict[Key, Float[np.ndarray, "metrics k"]]

    def record(self, keys: Sequence[Key]) -> dict[str, Any]:
        """The mean of each metric over some cells, with its interval and the numbers of images."""
        decisions = [self.decided[contender, model] for contender, model, _ in keys]
        return with_intervals(np.mean([self.drawn[key] for key in keys], axis=0)) | {
            "n_calibration": _ranged([len(d.calibration) for d in decisions]),
            "n_own": _ranged([len(d.own) for d in decisions]),
            "n_other": _ranged([len(d.others[s]) for d, (_, _, s) in zip(decisions, keys, strict=True)]),
        }


def study(scores: Scores, *, processing: str = "none") -> Study:
    """Every contender decided for every model, against every other source."""
    models = tuple(dict.fromkeys(model for _, _, model, _ in scores))
    pairs = [(contender, model) for contender in contenders(scores) for model in models]
    decisions = [decide(scores, *pair, processing=processing) for pair in pairs]
    decided = {(d.contender.name, d.model): d for d in decisions if d is not None}
    drawn = {(*key, source): _bootstrap(d, source) for key, d in decided.items() for source in d.others}
    return Study(scores, models, decided, drawn)


def with_intervals(drawn: Float[np.ndarray, "metrics k"]) -> dict[str, float]:
    """`{metric: value, metric_low: ..., metric_high: ...}`."""
    record: dict[str, float] = {}
    for name, values in zip(METRICS, drawn, strict=True):
        low, high = metrics.interval(values[1:])
        record |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return record


def _bootstrap(decision: Decision, source: str) -> Float[np.ndarray, "metrics k"]:
    own, others, tau = decision.own, decision.others[source], decision.threshold

    def measured(own: np.ndarray, others: np.ndarray) -> tuple[float, ...]:
        rates = [metrics.tpr_at(own, others, rate) for rate in (0.01, 0.05)]
        areas = metrics.area_under_curve(own, others), metrics.average_precision(own, others)
        return metrics.balanced_accuracy(own, others, threshold=tau), *areas, *rates

    pairs = zip(_draws(decision.model, len(own)), _draws(source, len(others)), strict=True)
    return np.array([measured(own[i], others[j]) for i, j in pairs]).T


def _draws(source: str, n: int) -> list[Integer[np.ndarray, " n"]]:
    """The images themselves, and then draws of them, the same for every method and model."""
    every = np.arange(n)
    drawn = metrics.resample([every], REPEATS, seed=[zlib.crc32(source.encode()), n])
    return [every, *(indices for (indices,) in drawn)]


def _ranged(counts: Sequence[int]) -> str:
    """A number of images, or a range where cells differ."""
    return "–".join(map(str, dict.fromkeys((min(counts), max(counts)))))


def half_of(cell: Columns, half: str) -> Columns:
    """The rows of "calibration", the first half, or of "test", the second."""
    return {name: values[cell["half"] == half] for name, values in cell.items()}


def _defined(cell: Columns) -> Columns:
    return {name: values[np.isfinite(cell["score"])] for name, values in cell.items()}

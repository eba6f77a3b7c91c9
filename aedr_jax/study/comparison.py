"""Methods compared on the scores of `evaluation`: calibrated on first halves, tested on second halves.

All of it works on the Parquet of scores alone. Intervals are 95 % percentiles of a bootstrap over test images; every
cell draws the same images of a source, so that a difference between two methods is not blurred by the draw. Scale:
small where an image belongs.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from aedr_jax.decision.calibration import Calibration, calibrate
from aedr_jax.decision.threshold import MIN_SIGNALS
from aedr_jax.errors import CalibrationError, CalibrationWarning, SourceError
from aedr_jax.rivals import grubbs_threshold
from aedr_jax.signal.measurement import Measurement
from aedr_jax.study.candidates import area_under_curve, measurement_of

__all__ = [
    "DEFAULT",
    "METRICS",
    "REAL",
    "Columns",
    "Decision",
    "Rule",
    "Scores",
    "Study",
    "average_precision",
    "decide",
    "part_of",
    "read_scores",
    "rules",
    "study",
    "tpr_at",
    "with_intervals",
]

DEFAULT = "aedr-default"
REAL = "real"
REPEATS = 300
METRICS = ("accuracy", "auc", "ap", "tpr_at_1", "tpr_at_5")  # tpr_at_5: at 5 % false positives

Columns = dict[str, np.ndarray]
Scores = dict[tuple[str, str, str, str], Columns]  # (processing, method, model, source) -> columns
Key = tuple[str, str, str]  # (rule, model, other source)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """The columns of each processing, method, model and source of a `scores.parquet`.

    Raises:
      SourceError: where there is no such file.
    """
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise SourceError(f"{path}: no scores there; aedr evaluate writes them")
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    rows: dict[tuple[str, str, str, str], list[int]] = {}
    keys = zip(*(columns[name].tolist() for name in ("processing", "method", "model", "source")), strict=True)
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return {key: {name: values[chosen] for name, values in columns.items()} for key, chosen in rows.items()}


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of the tables: a method's score times H^power, or for AEDR's default its fitted statistic."""

    name: str
    method: str
    power: float = 0.0

    def values(self, cell: Columns) -> Measurement | Float[np.ndarray, " n"]:
        """What a calibration takes: a measurement for the default, else scores; NaN where an image has none."""
        if self.method == DEFAULT:
            losses = {"first_clip": cell["first_loss"], "second_clip": cell["second_loss"]}
            return measurement_of({**losses, "homogeneity": cell["homogeneity"]})
        return cell["score"] * cell["homogeneity"] ** self.power


def rules(scores: Scores) -> list[Rule]:
    """The rows that the scores allow: AEDR's presets, the paper's without H, every rival as it is and ×H."""
    found = []
    for method in dict.fromkeys(method for _, method, _, _ in scores):
        found.append(Rule(method, method))
        if method == "aedr":
            found.append(Rule("aedr without H", method, -1.0))
        elif not method.startswith("aedr"):
            found.append(Rule(f"{method} ×H", method, 1.0))
    return found


@dataclasses.dataclass(frozen=True)
class Decision:
    """A rule calibrated for one model on the first halves, and the scores of the second halves.

    Attributes:
      rule, model: what was calibrated, for what.
      calibration: its scores are those of the first half, its threshold is the rule's.
      picked: whether alpha was picked for best accuracy on the first halves of own and other images, as in the paper;
        else it is .05, because there are fewer than ten of either.
      own: the model's own images in the second half, [n].
      others: `{source: scores}` of the second half, as many as each source has.
    """

    rule: Rule
    model: str
    calibration: Calibration
    picked: bool
    own: Float[np.ndarray, " n"]
    others: dict[str, Float[np.ndarray, " _"]]

    @property
    def tpr(self) -> float:
        """The share of own images that is accepted."""
        return float((self.own < self.calibration.threshold).mean())

    def accuracy(self, threshold: float | None = None) -> float:
        """The mean, over other sources, of own images accepted and others turned away."""
        tau = self.calibration.threshold if threshold is None else threshold
        turned_away = [float((others >= tau).mean()) for others in self.others.values()]
        return float(((self.own < tau).mean() + np.mean(turned_away)) / 2)


def decide(
    scores: Scores, rule: Rule, model: str, *, processing: str = "none", alpha: float | None = None
) -> Decision | None:
    """Calibrate on first halves of unprocessed images, and score the second halves, processed or not.

    The threshold is the density estimate's; RONAN's is its own test (`grubbs_threshold`), which has no alpha to pick.

    Args:
      scores: from `read_scores`.
      rule: of `rules`.
      model: the candidate.
      processing: of the test images.
      alpha: None: picked where there are images enough (`Decision.picked`).

    Returns:
      None where the method did not score this model, or too few of its images calibrate.
    """
    cells = {s: cell for (p, m, c, s), cell in scores.items() if (p, m, c) == ("none", rule.method, model)}
    tests = {s: cell for (p, m, c, s), cell in scores.items() if (p, m, c) == (processing, rule.method, model)}
    if model not in tests or len(tests) < 2:
        return None
    first = {s: rule.values(_defined(part_of(cell, "calibration"))) for s, cell in cells.items()}
    own, others = first.pop(model), _joined(list(first.values()))
    picked = alpha is None and rule.method != "ronan" and min(_size(own), _size(others)) >= 2 * MIN_SIGNALS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)  # n stands in every cell
            calibration = calibrate(
                own,
                method="aedr" if rule.method == DEFAULT else rule.name,
                quantized=bool(cells[model]["quantized"][0]),
                model=model,
                alpha=alpha,  # None: picked with validation images, else .05
                validation=others if picked else None,
            )
        if rule.method == "ronan":
            calibration = dataclasses.replace(calibration, threshold=grubbs_threshold(own))
    except CalibrationError:
        return None
    second = {s: rule.values(_defined(part_of(cell, "test"))) for s, cell in tests.items()}
    tested = {s: np.asarray(calibration.score(values), np.float64) for s, values in second.items() if _size(values)}
    if model not in tested or len(tested) < 2:
        return None
    return Decision(rule, model, calibration, picked, tested.pop(model), tested)


def tpr_at(own: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"], rate: float) -> float:
    """The largest share of own images below a threshold that at most a share `rate` of the others is below.

    Reference: the largest such point of scikit-learn's `roc_curve`, exactly.
    """
    return float((own < np.sort(others)[int(rate * len(others))]).mean())


def average_precision(own: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> float:
    """Σ (R_k − R_{k−1}) P_k over thresholds, own images being the positives.

    Reference: scikit-learn's `average_precision_score`, to 1e-12.
    """
    limits = np.unique(own)
    hits = np.searchsorted(np.sort(own), limits, side="right")
    taken = hits + np.searchsorted(np.sort(others), limits, side="right")
    return float((np.diff(hits, prepend=0) / len(own) * hits / taken).sum())


@dataclasses.dataclass(frozen=True)
class Study:
    """All decisions, and each metric against each other source: as measured, and then in each draw of the bootstrap.

    Attributes:
      scores: what it is of.
      models: the candidates.
      decided: `{(rule, model): decision}`.
      drawn: `{(rule, model, source): [metrics, 1 + draws]}`, the metrics in the order of `METRICS`.
    """

    scores: Scores
    models: tuple[str, ...]
    decided: dict[tuple[str, str], Decision]
    drawn: dict[Key, Float[np.ndarray, "metrics k"]]

    def record(self, keys: Sequence[Key]) -> dict[str, Any]:
        """The mean of each metric over some cells, with its interval and the numbers of images."""
        decisions = [self.decided[rule, model] for rule, model, _ in keys]
        return with_intervals(np.mean([self.drawn[key] for key in keys], axis=0)) | {
            "n_calibration": _ranged([len(d.calibration.scores) for d in decisions]),
            "n_own": _ranged([len(d.own) for d in decisions]),
            "n_other": _ranged([len(d.others[s]) for d, (_, _, s) in zip(decisions, keys, strict=True)]),
        }


def study(scores: Scores, *, processing: str = "none") -> Study:
    """Every rule decided for every model, against every other source."""
    models = tuple(dict.fromkeys(model for _, _, model, _ in scores))
    pairs = [(rule, model) for rule in rules(scores) for model in models]
    decisions = [decide(scores, rule, model, processing=processing) for rule, model in pairs]
    decided = {(d.rule.name, d.model): d for d in decisions if d is not None}
    drawn = {(*key, source): _bootstrap(d, source) for key, d in decided.items() for source in d.others}
    return Study(scores, models, decided, drawn)


def with_intervals(drawn: Float[np.ndarray, "metrics k"]) -> dict[str, float]:
    """`{metric: value, metric_low: ..., metric_high: ...}`."""
    record: dict[str, float] = {}
    for name, values in zip(METRICS, drawn, strict=True):
        low, high = np.percentile(values[1:], [2.5, 97.5])
        record |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return record


def _bootstrap(decision: Decision, source: str) -> Float[np.ndarray, "metrics k"]:
    own, others, tau = decision.own, decision.others[source], decision.calibration.threshold

    def metrics(own: np.ndarray, others: np.ndarray) -> tuple[float, ...]:
        accuracy = float(((own < tau).mean() + (others >= tau).mean()) / 2)
        rates = tpr_at(own, others, 0.01), tpr_at(own, others, 0.05)
        return accuracy, area_under_curve(own, others), average_precision(own, others), *rates

    pairs = zip(_draws(decision.model, len(own)), _draws(source, len(others)), strict=True)
    return np.array([metrics(own[i], others[j]) for i, j in pairs]).T


def _draws(source: str, n: int) -> Integer[np.ndarray, "k n"]:
    """The images themselves, and then draws of them, the same for every method and model."""
    rng = np.random.default_rng([zlib.crc32(source.encode()), n])
    return np.concatenate([np.arange(n)[None], rng.integers(n, size=(REPEATS, n))])


def _ranged(counts: Sequence[int]) -> str:
    """A number of images, or a range where cells differ."""
    return "–".join(map(str, dict.fromkeys((min(counts), max(counts)))))


def part_of(cell: Columns, part: str) -> Columns:
    """The rows of "calibration", the first half, or of "test", the second."""
    return {name: values[cell["part"] == part] for name, values in cell.items()}


def _defined(cell: Columns) -> Columns:
    return {name: values[np.isfinite(cell["score"])] for name, values in cell.items()}


def _size(values: Mapping[str, Any] | Measurement | np.ndarray) -> int:
    return len(values.signal if isinstance(values, Measurement) else values)


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Measurement):
        return Measurement(*(np.concatenate(columns) for columns in zip(*values, strict=True)))
    return np.concatenate(values)

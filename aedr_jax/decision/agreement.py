"""Whether a calibration agrees with itself, and a measurement with settings: what follows is derived and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aedr_jax.decision.intervals import acceptance_interval, share_interval, threshold_interval
from aedr_jax.decision.threshold import RULES, check_signals, threshold
from aedr_jax.signal.measurement import Measurement

if TYPE_CHECKING:
    from aedr_jax.decision.calibration import Calibration

__all__ = ["contradiction", "measured_otherwise"]

SAME = 1e-9  # of the range of the scores, or of a share: float64 on another machine
SAME_SIGNAL = 1e-3  # of the signal: a power of float32
SAME_DECIMALS = 1e-6  # of a value that was rounded in float32


def measured_otherwise(measured: Measurement, settings: Mapping[str, Any]) -> str:
    """What of a measurement cannot come of these settings, or "".

    A measurement does not know its settings, and most leave no trace in it. Three do: whether alignments were measured,
    the signal, which is ratio · H^gamma, and where losses and homogeneity are to be rounded, they are. So "" does not
    say that these were the settings.

    Args:
      measured: of any images.
      settings: as `SignalConfig.describe` has them.
    """
    columns = measured.take(slice(None))
    if settings["alignment"] is not None and np.isnan(columns.alignment_error).all():
        return "it has no alignment"
    gamma, decimals = settings["gamma"], settings["decimals"]
    expected = columns.ratio * columns.homogeneity**gamma
    said = np.isfinite(columns.signal) & np.isfinite(expected)
    if not np.allclose(columns.signal[said], expected[said], rtol=SAME_SIGNAL, atol=0):
        return f"its signal is not ratio · homogeneity^{gamma:g}"
    if decimals is None:
        return ""
    rounded = {"first_loss": decimals[0], "second_loss": decimals[0], "homogeneity": decimals[1]}
    for name, places in rounded.items():
        values = getattr(columns, name)
        values = values[np.isfinite(values)]
        if np.any(np.abs(values - np.round(values, places)) > SAME_DECIMALS * np.abs(values)):
            return f"its {name} is not rounded to {places} decimals"
    return ""


def contradiction(made: Calibration) -> str:
    """The first thing that a calibration says and that does not follow from its scores, or "".

    Raises:
      CalibrationError: on scores, or an alpha, that give no threshold.
    """
    if made.rule not in RULES:
        return f"rule {made.rule!r}: expected one of {', '.join(RULES)}"
    own, validation = check_signals(made.scores, what="scores"), made.validation
    follows = threshold(own, alpha=made.alpha, rule=made.rule)
    pairs: dict[str, tuple[Any, Any]] = {
        "threshold": (made.threshold, follows),
        "threshold_interval": (made.threshold_interval, threshold_interval(own, made.alpha)),
        "acceptance_interval": (made.acceptance_interval, acceptance_interval(own, follows)),
    }
    if (np.diff(own) < 0).any():
        return "scores: they are not sorted"
    if validation is not None:
        others = np.array(validation.scores)
        if (np.diff(others) < 0).any() or not others.size:
            return "validation scores: they are none, or not sorted"
        accepted = int((others < follows).sum())
        accuracy = ((own < follows).mean() + (others >= follows).mean()) / 2
        pairs |= {
            "validation accuracy": (validation.accuracy, accuracy),
            "validation false_accepts": (validation.false_accepts, accepted / others.size),
            "validation false_accepts_interval": (
                validation.false_accepts_interval,
                share_interval(accepted, others.size),
            ),
        }
        if not 0 <= validation.held_out_accuracy <= 1:
            return f"validation held_out_accuracy {validation.held_out_accuracy}: expected a share"
    for name, (says, derived) in pairs.items():
        # None, a side without a bound, becomes NaN and has to be one on both sides.
        one, other = (np.array(value, np.float64) for value in (says, derived))
        scale = np.ptp(own) if name.startswith("threshold") else 1.0
        if not np.allclose(one, other, rtol=0, atol=SAME * scale, equal_nan=True):
            return f"{name}: it says {says}, but {derived} follows from its scores"
    return ""

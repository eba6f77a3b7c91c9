"""Images known not to belong: which alpha they speak for, and what they say beyond that.

An alpha that was picked on some images looks better on them than on others, so its accuracy is also measured on halves
that it was not picked on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from aedr_jax.decision.intervals import share_interval
from aedr_jax.decision.threshold import MIN_SIGNALS, RULES, check_alpha, threshold
from aedr_jax.errors import CalibrationError

__all__ = ["ALPHAS", "Validation", "balanced_accuracy", "check_choice", "pick_alpha"]

ALPHAS = tuple(float(a) for a in np.round(np.geomspace(0.001, 0.2, 40), 5))


@dataclasses.dataclass(frozen=True)
class Validation:
    """What images of other origin said of a calibration.

    Attributes:
      objective: "accuracy", "false accepts" where a target rate was given, or "fixed alpha" where alpha was.
      scores: of the images that do not belong, sorted.
      accuracy: mean of own images accepted and others turned away, at the picked alpha, on the images it was picked on.
      held_out_accuracy: the same with alpha picked on one half of own and other images and measured on the other half;
        the mean of both directions. Lower by as much as the picking overfits; a fixed alpha was not picked.
      false_accepts: the share of the others that is accepted.
      false_accepts_interval: its 95 % Clopper-Pearson interval.
    """

    objective: str
    scores: tuple[float, ...]
    accuracy: float
    held_out_accuracy: float
    false_accepts: float
    false_accepts_interval: tuple[float, float]


def check_choice(*, alpha: float | None, false_accepts: float | None, rule: str, validated: bool) -> None:
    """Refuse what no scores can make right: asked before images are scored, not after.

    Args:
      alpha, false_accepts, rule: as for `pick_alpha`.
      validated: whether there are images that do not belong.

    Raises:
      CalibrationError: on an alpha outside (0, 1), a target outside [0, 1) or without images to reach it on, and where
        both are given.
      ValueError: on another rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    if alpha is not None:
        check_alpha(alpha)
    if false_accepts is None:
        return
    if not 0.0 <= false_accepts < 1.0:
        raise CalibrationError(f"false accepts {false_accepts}: expected a share in [0, 1)")
    if alpha is not None:
        raise CalibrationError(f"alpha {alpha:g} is given: there is none to pick for {false_accepts:g} false accepts")
    if not validated:
        raise CalibrationError(f"a target of {false_accepts:g} false accepts needs validation images")


def pick_alpha(
    own: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    *,
    alpha: float | None = None,
    false_accepts: float | None = None,
    rule: str = "exact",
) -> tuple[float, Validation]:
    """The alpha of best accuracy, the smallest that accepts at most a target share of the others, or the given one.

    Args:
      own: scores of belonging images.
      others: scores of images known not to belong.
      alpha: kept where it is given; None: picked from those of `ALPHAS` that the own images can tell, 1 / (n + 1) or
        more.
      false_accepts: the target share, in [0, 1); None: the mean of both rates counts.
      rule: of the threshold.

    Raises:
      CalibrationError: as `check_choice`; on fewer than ten others, or ten of its own to pick on, undefined scores of
        others, or where no alpha up to 0.2 reaches the target.
    """
    check_choice(alpha=alpha, false_accepts=false_accepts, rule=rule, validated=True)
    own, others = np.asarray(own, np.float64), np.asarray(others, np.float64)
    if others.size < 2 * MIN_SIGNALS or not np.isfinite(others).all():
        raise CalibrationError(
            f"{others.size} validation scores, {int((~np.isfinite(others)).sum())} of them NaN or infinite; "
            f"at least {2 * MIN_SIGNALS} are needed, all finite"
        )
    if alpha is None and own.size < 2 * MIN_SIGNALS:
        raise CalibrationError(f"{own.size} belonging images; picking alpha takes at least {2 * MIN_SIGNALS}")
    kept = alpha
    alpha = _best(own, others, false_accepts, rule) if kept is None else kept
    tau = threshold(own, alpha=alpha, rule=rule)
    accepted = int((others < tau).sum())
    halves = [slice(0, None, 2), slice(1, None, 2)]
    held_out = []
    for chosen, left in (halves, halves[::-1]):
        best = _best(own[chosen], others[chosen], false_accepts, rule, strict=False) if kept is None else kept
        at = threshold(own, alpha=best, rule=rule)
        held_out.append(balanced_accuracy(own[left], others[left], threshold=at))
    return alpha, Validation(
        objective="fixed alpha" if kept is not None else "accuracy" if false_accepts is None else "false accepts",
        scores=tuple(sorted(others.tolist())),
        accuracy=balanced_accuracy(own, others, threshold=tau),
        held_out_accuracy=float(np.mean(held_out)),
        false_accepts=accepted / others.size,
        false_accepts_interval=share_interval(accepted, others.size),
    )


def _best(own: np.ndarray, others: np.ndarray, target: float | None, rule: str, *, strict: bool = True) -> float:
    usable = [a for a in ALPHAS if a >= 1 / (own.size + 1)]  # below, a p-value could not reach it
    thresholds = np.array([threshold(own, alpha=a, rule=rule) for a in usable])
    if target is None:
        accuracies = np.array([balanced_accuracy(own, others, threshold=tau) for tau in thresholds])
        best = np.flatnonzero(accuracies >= accuracies.max() - 1e-12)
        return usable[int(best[len(best) // 2])]  # the middle of a plateau: its ends are where images happen to lie
    reached = np.flatnonzero([(others < tau).mean() <= target for tau in thresholds])
    if reached.size:
        return usable[int(reached[0])]
    if strict:
        least = float((others < thresholds.min()).mean())
        raise CalibrationError(
            f"no alpha up to {usable[-1]:g} accepts at most {target:g} of the validation images; {usable[-1]:g} "
            f"accepts {least:.3g}"
        )
    return usable[-1]


def balanced_accuracy(own: Float[np.ndarray, " n"], *others: Float[np.ndarray, " _"], threshold: float) -> float:
    """The mean of the share of own images that is accepted (below the threshold), and of the share of others that is
    turned away; of several other sources, each counts the same."""
    turned_away = [float((scores >= threshold).mean()) for scores in others]
    return float(((own < threshold).mean() + np.mean(turned_away)) / 2)

"""How sure a threshold is, from order statistics: no shape of the scores is assumed.

Of n scores of belonging images, the share of all belonging images below the k-th smallest follows a Beta(k, n − k + 1)
distribution, whatever the scores' own. A threshold between the k-th and the next lies between two such shares.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import special

__all__ = ["acceptance_interval", "share_interval", "threshold_interval"]


def share_interval(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share that was seen `count` times in `total`.

    Reference: `scipy.stats.binomtest(count, total).proportion_ci()`, to 1e-9.
    """
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(count, total - count + 1, tail)) if count > 0 else 0.0
    high = float(special.betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return low, high


def acceptance_interval(
    scores: Float[np.ndarray, " n"], threshold: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """The share of the model's own images that will be accepted: an interval, given its calibration's scores."""
    return share_interval(int((np.asarray(scores) < threshold).sum()), len(scores), confidence=confidence)


def threshold_interval(
    scores: Float[np.ndarray, " n"], alpha: float, *, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """The (1 − alpha) quantile of the model's own scores: an interval of two of its calibration's scores.

    None where there are too few to bound it: with alpha .05, above takes 72 images at 95 % confidence.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    n, tail = len(ordered), (1 - confidence) / 2
    # P(at least r of n scores lie below the quantile) = 1 − P(Binomial(n, 1 − alpha) < r), for r = 1..n.
    ranks = np.arange(1, n + 1)
    fewer = special.bdtr(ranks - 1, n, 1 - alpha)
    below, above = ranks[fewer <= tail], ranks[fewer >= 1 - tail]
    return (
        float(ordered[below[-1] - 1]) if below.size else None,
        float(ordered[above[0] - 1]) if above.size else None,
    )

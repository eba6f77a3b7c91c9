"""How sure a threshold is, by 95 % intervals from order statistics: no shape of the scores is assumed.

Of n scores of belonging images, the share of all belonging images below the k-th smallest follows a Beta(k, n − k + 1)
distribution, whatever the scores' own. A threshold between the k-th and the next lies between two such shares.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import special

__all__ = ["acceptance_interval", "share_interval", "threshold_interval"]

TAIL = (1 - 0.95) / 2  # beyond each end of an interval


def share_interval(count: int, total: int) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share that was seen `count` times in `total`.

    Reference: `scipy.stats.binomtest(count, total).proportion_ci()`, to 1e-9.
    """
    low = float(special.betaincinv(count, total - count + 1, TAIL)) if count > 0 else 0.0
    high = float(special.betaincinv(count + 1, total - count, 1 - TAIL)) if count < total else 1.0
    return low, high


def acceptance_interval(scores: Float[np.ndarray, " n"], threshold: float) -> tuple[float, float]:
    """The share of the model's own images that will be accepted: an interval, given its calibration's scores."""
    return share_interval(int((np.asarray(scores) < threshold).sum()), len(scores))


def threshold_interval(scores: Float[np.ndarray, " n"], alpha: float) -> tuple[float | None, float | None]:
    """The (1 − alpha) quantile of the model's own scores: an interval of two of its calibration's scores.

    None where there are too few to bound it: with alpha .05, above takes 72 images.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    n = len(ordered)
    # P(at least r of n scores lie below the quantile) = 1 − P(Binomial(n, 1 − alpha) < r), for r = 1..n.
    ranks = np.arange(1, n + 1)
    fewer = special.bdtr(ranks - 1, n, 1 - alpha)
    below, above = ranks[fewer <= TAIL], ranks[fewer >= 1 - TAIL]
    return (
        float(ordered[below[-1] - 1]) if below.size else None,
        float(ordered[above[0] - 1]) if above.size else None,
    )

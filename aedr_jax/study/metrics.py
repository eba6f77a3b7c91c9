"""How well scores tell a model's own images from others, and how sure that is. Scale: small where an image belongs.

Intervals are 95 % percentiles of a bootstrap. A draw is a list of indices into each sample, so that whatever is
compared can be computed on the same images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from aedr_jax.decision.validation import balanced_accuracy

__all__ = [
    "area_under_curve",
    "average_precision",
    "balanced_accuracy",
    "interval",
    "resample",
    "tpr_at",
]


def area_under_curve(own: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"]) -> float:
    """The share of (own, other) pairs in which the other image has the larger score; a tie counts half.

    Reference: `sklearn.metrics.roc_auc_score`, to 1e-12.
    """
    ordered = np.sort(own)
    below, up_to = (np.searchsorted(ordered, other, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(own)))


def average_precision(own: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> float:
    """Σ (R_k − R_{k−1}) P_k over thresholds, own images being the positives.

    Reference: scikit-learn's `average_precision_score`, to 1e-12.
    """
    limits = np.unique(own)
    hits = np.searchsorted(np.sort(own), limits, side="right")
    taken = hits + np.searchsorted(np.sort(others), limits, side="right")
    return float((np.diff(hits, prepend=0) / len(own) * hits / taken).sum())


def tpr_at(own: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"], rate: float) -> float:
    """The largest share of own images below a threshold that at most a share `rate` of the others is below.

    Reference: the largest such point of scikit-learn's `roc_curve`, exactly.
    """
    return float((own < np.sort(others)[int(rate * len(others))]).mean())


def resample(
    clusters: Sequence[Integer[np.ndarray, " _"]], repeats: int = 1000, seed: int | Sequence[int] = 0
) -> list[list[Integer[np.ndarray, " _"]]]:
    """Indices into several samples for a bootstrap over clusters, the same for all scores compared (paired).

    Args:
      clusters: of each sample, the cluster of each image; images of one are drawn together. `np.arange(n)`: each alone.
      repeats: how many draws.
      seed: of the draws.

    Returns:
      For each draw the indices into each sample; as many clusters as it has, with replacement.
    """
    rng = np.random.default_rng(seed)
    members = []
    for of_sample in clusters:
        inside, sizes = np.argsort(of_sample, kind="stable"), np.unique(of_sample, return_counts=True)[1]
        members.append(inside if len(sizes) == len(inside) else np.split(inside, np.cumsum(sizes)[:-1]))

    def draw(of: np.ndarray | list[np.ndarray]) -> np.ndarray:
        chosen = rng.integers(len(of), size=len(of))
        return of[chosen] if isinstance(of, np.ndarray) else np.concatenate([of[k] for k in chosen])

    return [[draw(of) for of in members] for _ in range(repeats)]


def interval(drawn: Sequence[float] | Float[np.ndarray, " k"]) -> tuple[float, float]:
    """The middle 95 % of what was drawn."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)

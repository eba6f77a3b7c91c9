"""What a calibration fits to a model's own images before it draws a threshold: the larger of two standardized values.

The paper's product t · H over-corrects for texture, and t alone under-corrects. A regression of log L1 on log L2 over
belonging images finds the model's own correction, but the product keeps what a slope cannot see. So an image has to
pass both. Each value is standardized by belonging images alone; no image of another origin takes part.

Decoders of codebook entries differ: an index that flips between two entries adds the same amount to both losses
whatever the picture, so there the difference L1 − L2 stands in for the product.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.errors import CalibrationError
from aedr_jax.signal import Measurement

__all__ = ["TERMS", "Statistic", "cross_fit", "fit_statistic"]

# By whether the model decodes codebook entries.
TERMS = {False: ("product", "residual"), True: ("difference", "residual")}
MIN_IMAGES = 4  # a slope, an intercept and a spread, of what is left when one image is held out
FOLDS = 20
TINY = 1e-30  # of a loss that is 0: its logarithm stays finite, and small means "belongs"


@dataclasses.dataclass(frozen=True)
class Statistic:
    """`max_k (term_k − mean_k) / spread_k`, a score for each image: small where it belongs.

    Attributes:
      terms: "product" is log(L1 / L2 · H^gamma); "residual" is log L1 − slope · log L2; "difference" is L1 − L2.
      slope: of log L1 on log L2 over belonging images, by least squares.
      means, spreads: of each term over belonging images; the standard deviation with ddof 1.
    """

    terms: tuple[str, ...]
    slope: float
    means: tuple[float, ...]
    spreads: tuple[float, ...]

    def __post_init__(self) -> None:
        if unknown := set(self.terms) - {"product", "residual", "difference"}:
            raise ValueError(f"terms {sorted(unknown)}: expected product, residual or difference")
        if not len(self.terms) == len(self.means) == len(self.spreads) > 0:
            raise ValueError(f"{len(self.terms)} terms, {len(self.means)} means, {len(self.spreads)} spreads")

    def __call__(self, measured: Measurement) -> Float[Array, " n"]:
        """The score of each image; NaN where the ratio is undefined. jit-able."""
        return self._score(measured, jnp)

    def on_host(self, measured: Measurement) -> Float[np.ndarray, " n"]:
        """The same in numpy's float64, for a calibration's own images and for experiments."""
        return self._score(measured, np)

    def _score(self, measured: Measurement, xp: Any) -> Any:
        values = _terms(measured, self.terms, self.slope, xp)
        standardized = [(v - m) / s for v, m, s in zip(values, self.means, self.spreads, strict=True)]
        return xp.where(xp.isnan(measured.ratio), xp.nan, xp.stack(standardized).max(0))


def fit_statistic(measured: Measurement, *, quantized: bool = False) -> Statistic:
    """Slope, means and spreads of a model's own images.

    Args:
      measured: belonging images, [n].
      quantized: whether the model decodes codebook entries.

    Raises:
      CalibrationError: on too few images, undefined ratios, losses that are not positive, or terms without spread.
    """
    first, second = (np.asarray(loss, np.float64) for loss in (measured.first_loss, measured.second_loss))
    if first.size < MIN_IMAGES:
        raise CalibrationError(f"{first.size} images; the fit needs at least {MIN_IMAGES}, and 20 to mean much")
    for name, loss in (("first", first), ("second", second)):
        if not (np.isfinite(loss).all() and (loss > 0).all()):
            worst = float(loss[~(loss > 0)][0]) if (~(loss > 0)).any() else float("inf")
            raise CalibrationError(
                f"a {name} loss of {worst:g}: the fitted statistic takes logarithms; drop such images, "
                "or measure with SignalConfig(fitted=False)"
            )
    x, y = np.log(second), np.log(first)
    scatter = float(np.square(x - x.mean()).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / scatter) if scatter > 0 else 1.0
    terms = TERMS[quantized]
    values = np.stack(_terms(measured.take(slice(None)), terms, slope, np))
    spreads = values.std(axis=1, ddof=1)
    if not (spreads > 1e-12).all():
        raise CalibrationError(f"all {first.size} images measure alike; are they {first.size} different images?")
    return Statistic(terms, slope, tuple(values.mean(axis=1).tolist()), tuple(spreads.tolist()))


def cross_fit(measured: Measurement, *, quantized: bool = False) -> Float[np.ndarray, " n"]:
    """Each image's score by a statistic that was fitted on the others: float64, as a new image would score.

    Image i is held out in fold i mod 20; up to twenty images that is leave-one-out. A score under a fit that the image
    itself took part in is too small, the more so the fewer images there are.
    """
    n = np.asarray(measured.ratio).size
    folds = np.arange(n) % min(n, FOLDS)
    scores = np.empty(n)
    for fold in range(min(n, FOLDS)):
        statistic = fit_statistic(measured.take(folds != fold), quantized=quantized)
        scores[folds == fold] = statistic.on_host(measured.take(folds == fold))
    return scores


def _terms(measured: Measurement, terms: tuple[str, ...], slope: float, xp: Any) -> list[Any]:
    """The terms before they are standardized; on the host xp is numpy, in float64."""

    def log(x: Any) -> Any:
        x = xp.asarray(x)
        return xp.log(xp.where(x > TINY, x, TINY))  # of an undefined value too: its gradient is 0, not NaN

    values: dict[str, Any] = {
        "product": lambda: log(measured.signal),
        "residual": lambda: log(measured.first_loss) - slope * log(measured.second_loss),
        "difference": lambda: xp.asarray(measured.first_loss) - xp.asarray(measured.second_loss),
    }
    return [values[name]() for name in terms]

"""What a calibration fits to a model's own images before it draws a threshold: the larger of two standardized values.

The paper's product t · H has fixed exponents: 1 for each loss, 1 for the homogeneity. On some models' images H
over-corrects for texture, on others it corrects too little. A regression of log L1 on log L2 and log H over belonging
images finds the model's own exponents, but they hold where belonging images lie, and other images may lie far outside:
there the product is the better guide. So an image has to pass both. Each value is standardized by belonging images
alone; no image of another origin takes part.

Decoders of codebook entries differ: an index that flips between two entries adds the same amount to both losses
whatever the picture, so there the difference L1 − L2 stands in for the product.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.decision.threshold import hold_in
from aedr_jax.errors import CalibrationError
from aedr_jax.signal.measurement import Measurement

__all__ = ["TERMS", "Statistic", "cross_fit", "fit_statistic"]

# By whether the model decodes codebook entries.
TERMS = {False: ("product", "residual"), True: ("difference", "residual")}
LOGS = {False: ("product", "residual"), True: ("residual",)}
MIN_IMAGES = 5  # two slopes, an intercept and a spread, of what is left when one image is held out
FOLDS = 20
TINY = 1e-30  # of a loss that is 0: its logarithm stays finite, and small means "belongs"


@dataclasses.dataclass(frozen=True)
class Statistic:
    """`max_k (term_k − mean_k) / spread_k`, a score for each image: small where it belongs.

    Attributes:
      terms: "product" is log(L1 / L2 · H^gamma); "residual" is log L1 − slopes · (log L2, log H); "difference" is
        L1 − L2.
      slopes: of log L1 on log L2 and log H over belonging images, by least squares.
      means, spreads: of each term over belonging images; the standard deviation with ddof 1.
    """

    terms: tuple[str, ...]
    slopes: tuple[float, float]
    means: tuple[float, ...]
    spreads: tuple[float, ...]

    def __post_init__(self) -> None:
        if unknown := set(self.terms) - {"product", "residual", "difference"}:
            raise ValueError(f"terms {sorted(unknown)}: expected product, residual or difference")
        if not len(self.terms) == len(self.means) == len(self.spreads) > 0:
            raise ValueError(f"{len(self.terms)} terms, {len(self.means)} means, {len(self.spreads)} spreads")
        if not all(spread > 0 for spread in self.spreads):
            raise ValueError(f"spreads {self.spreads}: expected numbers above 0")

    def __call__(self, measured: Measurement) -> Float[Array, " n"]:
        """The score of each image; NaN where the ratio is undefined. jit-able."""
        return self._score(measured, jnp)

    def on_host(self, measured: Measurement) -> Float[np.ndarray, " n"]:
        """The same in numpy's float64, for a calibration's own images and for experiments."""
        return self._score(measured, np)

    def _score(self, measured: Measurement, xp: Any) -> Any:
        values = _terms(measured, self.terms, self.slopes, xp)
        standardized = [(v - m) / s for v, m, s in zip(values, self.means, self.spreads, strict=True)]
        return xp.where(xp.isnan(measured.ratio), xp.nan, xp.stack(standardized).max(0))


def fit_statistic(measured: Measurement, *, quantized: bool = False) -> Statistic:
    """Slopes, means and spreads of a model's own images, without those that lie far from the rest.

    One image of another kind among 200 would otherwise turn the slopes and widen the spreads for all: of images of
    another origin 75 % were accepted, where 15 % are without it. What is far (`threshold.hold_in`) is told twice, as it
    hides in the first fit, and takes no part where enough are left.

    Args:
      measured: belonging images, [n].
      quantized: whether the model decodes codebook entries.

    Raises:
      CalibrationError: on too few images, undefined ratios, losses that are not positive, or terms without spread.
    """
    measured = measured.take(slice(None))  # in float64
    first, second, homogeneity = map(np.asarray, (measured.first_loss, measured.second_loss, measured.homogeneity))
    if first.size < MIN_IMAGES:
        raise CalibrationError(f"{first.size} images; the fit needs at least {MIN_IMAGES}, and 20 to mean much")
    for name, values in (("first loss", first), ("second loss", second), ("homogeneity", homogeneity)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            worst = float(values[~(values > 0)][0]) if (~(values > 0)).any() else float("inf")
            raise CalibrationError(
                f"a {name} of {worst:g}: the fitted statistic takes logarithms; drop such images, "
                "or measure with SignalConfig(fitted=False)"
            )
    terms, kept = TERMS[quantized], np.full(first.size, True)
    for _ in range(2):
        # Differences have a long tail of their own; what makes one far shows in the losses' logarithms.
        logs = [np.log(first), *_terms(measured, LOGS[quantized], _slopes(measured.take(kept)), np)]
        near = np.all([hold_in(values, np) == values for values in logs], axis=0)
        kept = near if near.sum() >= MIN_IMAGES else kept
    slopes = _slopes(measured.take(kept))
    values = np.stack(_terms(measured.take(kept), terms, slopes, np))
    spreads = values.std(axis=1, ddof=1)
    if not (spreads > 1e-12).all():
        raise CalibrationError(f"all {first.size} images measure alike; are they {first.size} different images?")
    return Statistic(terms, slopes, tuple(values.mean(axis=1).tolist()), tuple(spreads.tolist()))


def _slopes(measured: Measurement) -> tuple[float, float]:
    """Of log L1 on log L2 and log H, by least squares of the least norm: a homogeneity that is constant has slope 0."""
    y, *x = (np.log(values) for values in (measured.first_loss, measured.second_loss, measured.homogeneity))
    first, second = np.linalg.lstsq(np.stack([v - v.mean() for v in x], axis=1), y - y.mean())[0].tolist()
    return first, second


def cross_fit(measured: Measurement, *, quantized: bool = False) -> Float[np.ndarray, " n"]:
    """Each image's score by a statistic that was fitted on the others: float64, as a new image would score.

    Image i is held out in fold i mod 20; up to twenty images that is leave-one-out. A score under a fit that the image
    itself took part in is too small, the more so the fewer images there are.
    """
    n = np.asarray(measured.ratio).size
    if n <= MIN_IMAGES:
        raise CalibrationError(f"{n} images; with one held out the fit needs {MIN_IMAGES + 1}, and 20 to mean much")
    folds = np.arange(n) % min(n, FOLDS)
    scores = np.empty(n)
    for fold in range(min(n, FOLDS)):
        statistic = fit_statistic(measured.take(folds != fold), quantized=quantized)
        scores[folds == fold] = statistic.on_host(measured.take(folds == fold))
    return scores


def _terms(measured: Measurement, terms: tuple[str, ...], slopes: tuple[float, ...], xp: Any) -> list[Any]:
    """The terms before they are standardized; on the host xp is numpy, in float64."""

    def log(x: Any) -> Any:
        x = xp.asarray(x)
        return xp.log(xp.where(x > TINY, x, TINY))  # of an undefined value too: its gradient is 0, not NaN

    values: dict[str, Any] = {
        "product": lambda: log(measured.signal),
        "residual": lambda: (
            log(measured.first_loss) - slopes[0] * log(measured.second_loss) - slopes[1] * log(measured.homogeneity)
        ),
        "difference": lambda: xp.asarray(measured.first_loss) - xp.asarray(measured.second_loss),
    }
    return [values[name]() for name in terms]

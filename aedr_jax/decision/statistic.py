"""What a calibration fits to a model's own images before it draws a threshold: the largest of standardized terms.

The paper's product t · H has fixed exponents: 1 for each loss, 1 for the homogeneity. On some models' images H
over-corrects for texture, on others it corrects too little. A regression of log L1 on log L2 and log H over belonging
images finds the model's own exponents. It holds where belonging images lie; far outside of them the product is the
better guide. So an image has to pass both. Each term is standardized by belonging images alone. No image of another
origin takes part.

Decoders of codebook entries differ. An index that flips between two entries adds the same amount to both losses,
whatever the picture, and so the difference L1 − L2 stands in for the product.

A term is a line of `TERMS`, a statistic a tuple of terms: the default is the line `DEFAULT_TERMS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.decision.threshold import hold_in
from aedr_jax.errors import CalibrationError
from aedr_jax.signal.measurement import Measurement

__all__ = ["DEFAULT_TERMS", "TERMS", "Statistic", "Term", "cross_fit", "fit_statistic"]

MIN_IMAGES = 5  # two slopes, an intercept and a spread, of what is left when one image is held out
FOLDS = 20
TINY = 1e-30  # of a loss that is 0: its logarithm stays finite, and small means "belongs"

# From columns and fitted slopes to a value for each image; xp is jax.numpy, or numpy on the host.
TermValue = Callable[[Measurement, Sequence[float], Any], Any]


def _log(x: Any, xp: Any) -> Any:
    x = xp.asarray(x)
    return xp.log(xp.where(x > TINY, x, TINY))  # of an undefined value too: its gradient is 0, not NaN


def _product(measured: Measurement, slopes: Sequence[float], xp: Any) -> Any:
    return _log(measured.signal, xp)


def _residual(measured: Measurement, slopes: Sequence[float], xp: Any) -> Any:
    on_second, on_homogeneity = slopes
    explained = on_second * _log(measured.second_loss, xp) + on_homogeneity * _log(measured.homogeneity, xp)
    return _log(measured.first_loss, xp) - explained


def _difference(measured: Measurement, slopes: Sequence[float], xp: Any) -> Any:
    return xp.asarray(measured.first_loss) - xp.asarray(measured.second_loss)


class TermKind(NamedTuple):
    """A term before it is fitted.

    Attributes:
      value: the function that computes its values.
      regressed: whether the term subtracts a regression, whose slopes are fitted.
      tells: whether the term is used to find images far from the rest. Differences are not: their tail is long.
    """

    value: TermValue
    regressed: bool = False
    tells: bool = True


# "product" is log(L1 / L2 · H^gamma); "residual" is log L1 less its regression on log L2 and log H; "difference" is
# L1 − L2.
TERMS: Mapping[str, TermKind] = {
    "product": TermKind(_product),
    "residual": TermKind(_residual, regressed=True),
    "difference": TermKind(_difference, tells=False),
}

# By whether the model decodes codebook entries.
DEFAULT_TERMS: Mapping[bool, tuple[str, ...]] = {False: ("product", "residual"), True: ("difference", "residual")}


@dataclasses.dataclass(frozen=True)
class Term:
    """One term as fitted to belonging images: (value − mean) / spread.

    Attributes:
      name: of `TERMS`.
      slopes: of log L1 on log L2 and log H, by least squares, where the term has a regression; else empty.
      mean, spread: of its values over belonging images; the standard deviation with ddof 1.

    Raises:
      ValueError: on a name that is no term, slopes that are not its own, or a spread that is not positive.
    """

    name: str
    slopes: tuple[float, ...]
    mean: float
    spread: float

    def __post_init__(self) -> None:
        if self.name not in TERMS:
            raise ValueError(f"term {self.name!r}: expected one of {', '.join(TERMS)}")
        if len(self.slopes) != (2 if TERMS[self.name].regressed else 0):
            raise ValueError(f"slopes {self.slopes} of the term {self.name}: expected two for a regression, else none")
        if not self.spread > 0:
            raise ValueError(f"spread {self.spread!r} of the term {self.name}: expected a positive number")

    def __call__(self, measured: Measurement, xp: Any = jnp) -> Any:
        """The standardized value of each image."""
        return (TERMS[self.name].value(measured, self.slopes, xp) - self.mean) / self.spread


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A score for each image, small where it belongs: the largest of its standardized terms.

    score = max over terms k of (v_k − mean_k) / spread_k. By default v_1 = log(L1 / L2 · H^gamma), or L1 − L2 where the
    model decodes codebook entries, and v_2 = log L1 − a · log L2 − b · log H.

    Attributes:
      terms: each with the slopes, mean and spread that were fitted to belonging images.

    >>> losses = np.geomspace(1e-4, 1e-2, 8)
    >>> own = aedr.Measurement.from_losses(1.1 * losses, losses ** 1.02, np.linspace(0.4, 0.6, 8))
    >>> statistic = aedr.fit_statistic(own)
    >>> [term.name for term in statistic.terms]
    ['product', 'residual']
    """

    terms: tuple[Term, ...]

    def __call__(self, measured: Measurement) -> Float[Array, " n"]:
        """The score of each image; NaN where the ratio is undefined. jit-able."""
        return self._score(measured, jnp)

    def on_host(self, measured: Measurement) -> Float[np.ndarray, " n"]:
        """The same in numpy's float64, for a calibration's own images and for experiments."""
        return self._score(measured, np)

    def _score(self, measured: Measurement, xp: Any) -> Any:
        values = [term(measured, xp) for term in self.terms]
        return xp.where(xp.isnan(measured.ratio), xp.nan, xp.stack(values).max(0))


def fit_statistic(measured: Measurement, *, quantized: bool = False, terms: Sequence[str] | None = None) -> Statistic:
    """Fit a `Statistic` to a model's own images: slopes by least squares, means and standard deviations (ddof 1).

    Images that lie far from the rest (`threshold.hold_in`) take no part, as long as enough are left. A single one of
    200 would turn the slopes and widen the spreads: in a simulation it let 75 % of foreign images in, where 15 % are
    accepted without it. Far images are looked for twice, because the first fit partly hides them.

    Args:
      measured: belonging images, [n].
      quantized: whether the model decodes codebook entries.
      terms: names of `TERMS`; None: the default's (`DEFAULT_TERMS`).

    Raises:
      CalibrationError: on too few images, undefined ratios, losses that are not positive, or terms without spread.

    >>> losses = np.geomspace(1e-4, 1e-2, 8)
    >>> own = aedr.Measurement.from_losses(1.1 * losses, losses ** 1.02, np.linspace(0.4, 0.6, 8))
    >>> aedr.fit_statistic(own)(own).shape
    (8,)
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
    names = DEFAULT_TERMS[quantized] if terms is None else tuple(terms)
    telling = [name for name in names if TERMS[name].tells]
    kept = np.full(first.size, True)
    for _ in range(2):
        slopes = _slopes(measured.take(kept))
        logs = [np.log(first), *(TERMS[name].value(measured, slopes, np) for name in telling)]
        near = np.all([hold_in(values, np) == values for values in logs], axis=0)
        kept = near if near.sum() >= MIN_IMAGES else kept
    near_ones = measured.take(kept)
    return Statistic(tuple(_fitted(name, near_ones, _slopes(near_ones)) for name in names))


def _fitted(name: str, measured: Measurement, slopes: tuple[float, float]) -> Term:
    used = slopes if TERMS[name].regressed else ()
    values = TERMS[name].value(measured, used, np)
    spread = float(values.std(ddof=1))
    if not spread > 1e-12:
        raise CalibrationError(f"all {values.size} images measure alike; are they {values.size} different images?")
    return Term(name, used, float(values.mean()), spread)


def _slopes(measured: Measurement) -> tuple[float, float]:
    """Of log L1 on log L2 and log H, by least squares of the least norm: a homogeneity that is constant has slope 0."""
    y, *x = (np.log(values) for values in (measured.first_loss, measured.second_loss, measured.homogeneity))
    first, second = np.linalg.lstsq(np.stack([v - v.mean() for v in x], axis=1), y - y.mean())[0].tolist()
    return first, second


def cross_fit(
    measured: Measurement, *, quantized: bool = False, terms: Sequence[str] | None = None
) -> Float[np.ndarray, " n"]:
    """Each image's score by a statistic that was fitted on the others: float64, as a new image would score.

    Image i is held out in fold i mod 20; up to twenty images that is leave-one-out. The score of an image under a fit
    that it took part in is too small, and more so with fewer images.
    """
    n = np.asarray(measured.ratio).size
    if n <= MIN_IMAGES:
        raise CalibrationError(f"{n} images; with one held out the fit needs {MIN_IMAGES + 1}, and 20 to mean much")
    folds = np.arange(n) % min(n, FOLDS)
    scores = np.empty(n)
    for fold in range(min(n, FOLDS)):
        statistic = fit_statistic(measured.take(folds != fold), quantized=quantized, terms=terms)
        scores[folds == fold] = statistic.on_host(measured.take(folds == fold))
    return scores

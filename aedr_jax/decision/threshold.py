"""Gaussian kernel density estimate of a signal, its distribution function, and the threshold that it gives.

The bandwidth is Scott's: the standard deviation (ddof 1) times n^(-1/5), as in `scipy.stats.gaussian_kde`. The
estimate is a mean of normal densities, so its distribution function is a mean of normal distribution functions; a
quantile inverts that by bisection, which cannot fail on a monotone function.

What judges scores (`p_value` and all that is made of it) computes where they are: JAX arrays under JAX, so that it can
be traced; NumPy arrays under NumPy, since XLA would compile a program for each number of images and of signals.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from aedr_jax.errors import CalibrationError

__all__ = [
    "MIN_SIGNALS",
    "RULES",
    "as_numbers",
    "check_alpha",
    "check_signals",
    "hold_in",
    "in_place",
    "is_share",
    "kde_bandwidth",
    "kde_cdf",
    "kde_logpdf",
    "kde_quantile",
    "kde_threshold",
    "on_its_side",
    "p_value",
    "threshold",
]

RULES = ("exact", "grid", "empirical", "conformal")
MIN_SIGNALS = 5
GRID_POINTS = 10_000
MARGIN = 40.0  # bandwidths beyond the extreme samples, where a normal tail is 0 in any float
MOST_TERMS = 1 << 22  # of a grid's sums, held at once
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)  # of the normal density
BISECTIONS = 100  # halves the bracket until float64 has no number left between its ends


def kde_bandwidth(samples: Float[Array | np.ndarray, " n"]) -> Float[Array, ""]:
    """Scott's bandwidth: standard deviation (ddof 1) · n^(-1/5)."""
    return _bandwidth(samples, jnp)


def _bandwidth(samples: Any, xp: Any) -> Any:
    return xp.std(samples, ddof=1) * samples.shape[0] ** -0.2


def kde_cdf(x: Float[Array | np.ndarray, "*q"], samples: Float[Array | np.ndarray, " n"]) -> Float[Array, "*q"]:
    """The share of the estimated density that lies below x: (1/n) Σ Φ((x − s_i) / b), b = sd(s) · n^(−1/5).

    Args:
      x: where, any shape.
      samples: the signals that the density is estimated from, at least two of them different.

    Returns:
      Values in [0, 1], in the shape of x; NaN where samples are NaN or all equal.

    Raises:
      CalibrationError: on samples that are no vector of real numbers, or fewer than two.

    Reference: `scipy.stats.gaussian_kde.integrate_box_1d(-inf, x)`, to 1e-6.

    >>> aedr.kde_cdf(np.array([1.05, 9.0], np.float32), np.array([0.9, 1.0, 1.1, 1.2], np.float32)).round(3)
    Array([0.5, 1. ], dtype=float32)
    """
    return _cdf(jnp.asarray(x), _checked(jnp.asarray(samples)), jnp)


def _cdf(x: Any, samples: Any, xp: Any) -> Any:
    z = (x[..., None] - samples) / _bandwidth(samples, xp)
    return (special if xp is np else jax.scipy.special).ndtr(z).mean(axis=-1)


def _checked(samples: Any) -> Any:
    real = jnp.issubdtype(samples.dtype, jnp.floating) or jnp.issubdtype(samples.dtype, jnp.integer)
    if not real or samples.ndim != 1 or samples.size < 2:
        raise CalibrationError(
            f"samples: {samples.dtype} [{','.join(map(str, samples.shape))}]; expected real numbers [n], at least two"
        )
    return samples


@np.errstate(all="ignore")
def kde_logpdf(
    x: Float[Array | np.ndarray, "*q"], samples: Float[Array | np.ndarray, " n"]
) -> Float[Array | np.ndarray, "*q"]:
    """The logarithm of the estimated density at x; computed where they are (`in_place`).

    Reference: `scipy.stats.gaussian_kde.logpdf`, to 1e-4 in float32.
    """
    xp, x, samples = in_place(x, samples)
    bandwidth = _bandwidth(_checked(samples), xp)
    logs = -0.5 * xp.square((x[..., None] - samples) / bandwidth) - HALF_LOG_TAU
    sums = (special if xp is np else jax.scipy.special).logsumexp(logs, axis=-1)
    return xp.asarray(sums - xp.log(samples.shape[0] * bandwidth))


def kde_quantile(
    samples: Float[Array | np.ndarray, " n"], q: Float[Array, ""] | float, *, method: str = "exact"
) -> Float[Array, ""]:
    """The least x below which a share q of the estimated density lies: kde_cdf(x) = q.

    Args:
      samples: as for `kde_cdf`.
      q: a share in (0, 1).
      method: "exact" inverts `kde_cdf` by bisection; "grid" is the AEDR authors' rule: the density on 10,000 points
        from min − s to max + s (s the standard deviation), its cumulative sum normalised to 1, linear interpolation.

    Raises:
      CalibrationError: as `kde_cdf`.
      ValueError: on another method.

    >>> print(f"{aedr.kde_quantile(np.array([0.9, 1.0, 1.1, 1.2], np.float32), 0.5):.3f}")
    1.050
    """
    values = _checked(jnp.asarray(samples))
    if method == "grid":
        return _grid_quantile(values, q)
    if method != "exact":
        raise ValueError(f"method {method!r}: expected 'exact' or 'grid'")
    margin = MARGIN * kde_bandwidth(values)

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = kde_cdf(middle, values) < q
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (values.min() - margin, values.max() + margin))
    return 0.5 * (low + high)


def _grid_quantile(samples: Float[Array, " n"], q: Float[Array, ""] | float) -> Float[Array, ""]:
    spread = jnp.std(samples, ddof=1)
    grid = jnp.linspace(samples.min() - spread, samples.max() + spread, GRID_POINTS)
    bandwidth = kde_bandwidth(samples)

    def density(x: Array) -> Array:
        return jnp.exp(-0.5 * ((x - samples) / bandwidth) ** 2).sum()

    cumulative = jnp.cumsum(jax.lax.map(density, grid, batch_size=500))
    return jnp.interp(q, cumulative / cumulative[-1], grid)


def as_numbers(values: Any, what: str) -> Float[np.ndarray, " n"]:
    """Numbers as a float64 vector.

    Raises:
      CalibrationError: on what holds none, and on another shape.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise CalibrationError(f"{what}: {type(values).__name__}; expected numbers [n]") from None
    if found.ndim != 1:
        raise CalibrationError(f"{what}: expected a vector, got shape {found.shape}")
    return found


def check_signals(signals: object, *, what: str = "signals") -> np.ndarray:
    """Signals as a float64 vector that a density can be estimated from.

    Raises:
      CalibrationError: on too few, constant, NaN or infinite signals, with counts and the offending value.
    """
    values = as_numbers(signals, what)
    if values.size < MIN_SIGNALS:
        raise CalibrationError(
            f"{what}: {values.size} given; a density needs at least {MIN_SIGNALS}, and 20 to mean much"
        )
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        count = int((~np.isfinite(values)).sum())
        raise CalibrationError(
            f"{what}: {count} of {values.size} are NaN or infinite (first at {index}: {values[index]}); "
            "drop the images that they come from"
        )
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        raise CalibrationError(f"{what}: all {values.size} equal {values[0]}; are they {values.size} different images?")
    return values


def in_place(*values: Any) -> tuple[Any, ...]:
    """jnp if any value is a JAX array, or else numpy; and the values as its arrays, in the dtypes that JAX has them in.

    >>> from aedr_jax.decision.threshold import in_place
    >>> xp, scores, signals = in_place(np.array([1.0]), (0.9, 1.1))
    >>> xp is np, scores.dtype  # float64 where JAX is told to have it (`jax_enable_x64`)
    (True, dtype('float32'))
    """
    if any(isinstance(value, jax.Array) for value in values):
        return jnp, *map(jnp.asarray, values)
    arrays = [np.asarray(value) for value in values]
    return np, *(array.astype(jnp.result_type(array), copy=False) for array in arrays)


def hold_in(signals: Float[Array | np.ndarray, " n"], xp: Any) -> Any:
    """Clip the far signals, so that one image cannot carry a threshold; xp is numpy or jnp.

    A signal is far if it lies beyond the quartiles by more than three times their distance (Tukey's outer fences). At
    either end at most one in twenty is far, or one of fewer than twenty. A far signal counts as if it lay at the fence:
    it still stands for its share of images, but no longer widens the bandwidth. If the quartiles are equal, no signal
    is far.

    Source: Tukey, Exploratory Data Analysis (1977).
    """
    ordered, n = xp.sort(signals), signals.shape[0]
    few = max(1, n // 20)
    first, third = xp.quantile(ordered, 0.25), xp.quantile(ordered, 0.75)
    reach = 3 * (third - first)
    low, high = xp.minimum(first - reach, ordered[few]), xp.maximum(third + reach, ordered[n - 1 - few])
    return xp.where(reach > 0, xp.clip(signals, low, high), signals)


def is_share(value: Any) -> bool:
    """Whether a value is a number in (0, 1)."""
    return np.asarray(value).dtype.kind in "biuf" and 0.0 < value < 1.0


def check_alpha(alpha: float) -> None:
    """Refuse a share of belonging images to turn away that is none.

    Raises:
      CalibrationError: outside (0, 1).
    """
    if not is_share(alpha):
        raise CalibrationError(f"alpha {alpha!r}: expected a share in (0, 1)")


def kde_threshold(signals: object, *, alpha: float = 0.05, method: str = "exact") -> float:
    """The signal below which a model's own image falls with probability 1 − alpha: kde_quantile(signals, 1 − alpha).

    Args:
      signals: belonging images' signals, [n].
      alpha: the share of belonging images that is turned away, in (0, 1).
      method: "exact", or "grid" for the authors' rule (`kde_quantile`).

    Returns:
      The threshold, computed by NumPy in float64: no device is asked and nothing compiled.

    Raises:
      CalibrationError: on an alpha outside (0, 1), and on signals that `check_signals` refuses.
      ValueError: on another method.

    Reference: the authors' published threshold on their SD1.5 signals, 1.0364583773, to 1e-6 ("grid").

    >>> round(aedr.kde_threshold(np.linspace(1.0, 1.2, 21)), 3)
    1.211
    """
    check_alpha(alpha)
    return _quantile_on_host(check_signals(signals), 1.0 - alpha, method)


def _quantile_on_host(values: np.ndarray, q: float, method: str) -> float:
    """`kde_quantile` in NumPy's float64: XLA would compile a program for each number of signals."""
    spread, n = values.std(ddof=1), len(values)
    bandwidth = spread * n**-0.2
    low, high = values.min(), values.max()
    if method == "grid":
        grid = np.linspace(low - spread, high + spread, GRID_POINTS)
        blocks = np.array_split(grid, 1 + n * GRID_POINTS // MOST_TERMS)
        density = [np.exp(-0.5 * ((block[:, None] - values) / bandwidth) ** 2).sum(-1) for block in blocks]
        cumulative = np.cumsum(np.concatenate(density))
        return float(np.interp(q, cumulative / cumulative[-1], grid))
    if method != "exact":
        raise ValueError(f"method {method!r}: expected 'exact' or 'grid'")
    low, high = low - MARGIN * bandwidth, high + MARGIN * bandwidth
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if not low < middle < high:  # no number is left between them
            break
        if special.ndtr((middle - values) / bandwidth).mean() < q:
            low = middle
        else:
            high = middle
    return float(0.5 * (low + high))


def threshold(signals: object, *, alpha: float = 0.05, rule: str = "exact") -> float:
    """The threshold by any rule. A score is accepted if it is below, which is where its `p_value` exceeds alpha.

    Args:
      signals: belonging images' signals, [n].
      alpha: the share of belonging images that is turned away, in (0, 1).
      rule: "exact" inverts the density estimate, with far signals clipped (`hold_in`). "grid" is the authors' rule
        (`kde_threshold`). "empirical" turns away floor(alpha · n) of these signals, fewer if there are ties.
        "conformal" turns away a new belonging image with probability at most alpha if it is exchangeable with these,
        whatever the distribution of the signals, ties included; it needs 1/alpha − 1 signals.

    Raises:
      CalibrationError: as `kde_threshold`; for "conformal" on too few signals.
      ValueError: on another rule.

    Source of "conformal": Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005).
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    values = check_signals(signals)
    if rule in ("exact", "grid"):
        return kde_threshold(hold_in(values, np) if rule == "exact" else values, alpha=alpha, method=rule)
    check_alpha(alpha)
    n = len(values)
    extra = int(rule == "conformal")
    # The p-values that turn away, compared as they are in `p_value`: .07 · 100 is 7.000000000000001, 7 / 100 is .07.
    turned_away = int((np.arange(1, n + 1) / (n + extra) <= alpha).sum())
    if rule == "conformal" and turned_away < 1:
        raise CalibrationError(
            f"{n} signals; the conformal rule at alpha {alpha:g} needs {int(np.ceil(1 / alpha)) - 1}"
        )
    last = np.float32(np.sort(values)[n - 1 - turned_away + extra])  # the largest score that is accepted
    # The next float32, as scores are; XLA takes subnormal numbers for 0.
    return float(max(np.nextafter(last, np.float32(np.inf)), last + np.finfo(np.float32).tiny))


@np.errstate(all="ignore")  # NaN and infinities are scores like others
def p_value(
    scores: Float[Array | np.ndarray, "*q"], signals: Float[Array | np.ndarray, " n"], *, rule: str = "exact"
) -> Float[Array | np.ndarray, "*q"]:
    """The share of the model's own images that scores at least as high, by the same rule as the threshold. jit-able.

    A small value means "hardly this model's". It does not say how likely another origin is. It is never below
    1 / (n + 1), since n images cannot tell more. NaN stays NaN. Computed where the scores are (`in_place`).
    """
    xp, scores, signals = in_place(scores, signals)
    n = signals.shape[0]
    if rule in ("exact", "grid"):
        kept = hold_in(signals, xp) if rule == "exact" else signals
        # The upper tail as the lower tail of the mirrored density: 1 − cdf would lose what is small.
        return xp.asarray(xp.maximum(_cdf(-scores, -kept, xp), 1 / (n + 1)))
    extra = int(rule == "conformal")
    # A table: a compiled quotient may be off by one unit in the last place.
    shares = np.maximum((np.arange(n + 1) + extra) / (n + extra), 1 / (n + 1))
    p = xp.asarray(shares, scores.dtype)[(signals >= scores[..., None]).sum(-1)]
    return xp.where(xp.isnan(scores), xp.asarray(np.nan, p.dtype), p)


def on_its_side(
    p: Float[Array | np.ndarray, "*q"], scores: Float[Array | np.ndarray, "*q"], *, threshold: float, alpha: float
) -> Float[Array | np.ndarray, "*q"]:
    """Move p-values by rounding errors, so that they exceed alpha exactly where the score is below the threshold.

    The threshold is float64 and scores are mostly float32, so one unit in the last place decides on which side a score
    lies. The comparisons hold for alpha as float64 and as p's own dtype. NaN stays NaN.
    """
    xp, p, scores = in_place(p, scores)
    limit, nearest = (np.asarray(x, p.dtype) for x in (threshold, alpha))
    up, down = (p.dtype.type(end) for end in (np.inf, -np.inf))
    # As floats: numpy would round the threshold and alpha to the dtype before it compares.
    limit = limit if float(limit) >= threshold else np.nextafter(limit, up)
    at_most = nearest if float(nearest) <= alpha else np.nextafter(nearest, down)
    above = np.nextafter(nearest, up)
    return xp.where(scores < limit, xp.maximum(p, above), xp.minimum(p, at_most))

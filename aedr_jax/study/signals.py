"""Experiments on the decision: which signal, how few images, how many models. All of it works on tables of losses.

`columns` measures an image in every way that a signal needs; the rest is numpy on the host. A signal is
fitted to belonging images that it is not tested on, and chosen on other images and other models than it is reported
on (`choose`). Scale of every score: small where the image belongs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from aedr_jax.decision.intervals import acceptance_interval, threshold_interval
from aedr_jax.decision.statistic import cross_fit, fit_statistic
from aedr_jax.decision.threshold import threshold
from aedr_jax.rivals.rdd import rdd_terms
from aedr_jax.signal import losses, texture
from aedr_jax.signal.measurement import OFFICIAL_SEED, Measurement
from aedr_jax.signal.reconstruction import split_keys, to_display
from aedr_jax.study.metrics import area_under_curve, interval

__all__ = [
    "PASSES",
    "SIGNALS",
    "Choice",
    "Signal",
    "choose",
    "columns",
    "few_images",
    "measurement_of",
    "score_signals",
]

Columns = Mapping[str, np.ndarray]  # one value for each image

PASSES = ("clip", "raw", "latent", "round8", "sample", "blurred", "turned")


def columns(
    autoencoder: Any, images: Float[Array, "n h w 3"], gray: Integer[Array, "n h w"], *, passes: Sequence[str] = PASSES
) -> dict[str, Float[Array, " n"]]:
    """Everything that the signals look at, [n] each. jit-able with `passes` closed over.

    Keys: homogeneity; first_X and second_X, the two losses, for X in `passes`: "clip" (the default's), "raw" (the
    paper's), "round8" (clipped, rounded to 8 bit), "sample" (posterior draws, clipped), and "latent" (squared distances
    between the latents of the image and its first, and of the first and the second reconstruction); and for X =
    "codebook", the squared distance of the image's latents to their entries, and that of the first reconstruction's
    (NaN without a codebook). What RDD takes off (`rivals.rdd`) are first losses, clipped: first_blurred of the
    blurred image, first_turned of the turned one, and second_turned of the image both blurred and turned. A pass that
    is not asked for is NaN.
    """
    nothing = jnp.full(len(images), jnp.nan)
    found = {"homogeneity": texture.homogeneity(gray)}
    found |= {f"{order}_{name}": nothing for name in (*PASSES, "codebook") for order in ("first", "second")}

    def keep(name: str, first: Array, second: Array) -> None:
        found[f"first_{name}"], found[f"second_{name}"] = first, second

    keys = split_keys(jax.random.key(OFFICIAL_SEED))
    latents = autoencoder.encode(images)
    decoded = autoencoder.decode(latents)
    if {"blurred", "turned"} & set(passes):
        _, blurred, turned, both = rdd_terms(autoencoder, images, distance=losses.mse)
        found |= {"first_blurred": blurred} if "blurred" in passes else {}
        found |= {"first_turned": turned, "second_turned": both} if "turned" in passes else {}
    for name in [name for name in passes if name not in ("blurred", "turned")]:
        if name == "sample":
            start, key = autoencoder.decode(autoencoder.encode(images, keys[0])), keys[1]
        else:
            start, key = decoded, None
        first = to_display(start, clip=name != "raw", round8=name == "round8")
        again = autoencoder.encode(first, key)
        second = autoencoder.decode(again)
        if name == "latent":
            third = autoencoder.encode(jnp.clip(second, -1, 1))
            keep(name, losses.mse(again, latents), losses.mse(third, again))
        else:
            keep(name, losses.mse(first, images), losses.mse(second, first))
        if name == "clip" and hasattr(autoencoder, "quantize"):
            keep("codebook", *(losses.mse(autoencoder.quantize(z), z) for z in (latents, again)))
    return found


def measurement_of(table: Columns, passes: str = "clip", *, gamma: float = 1.0) -> Measurement:
    """The `Measurement` that a table of `columns` holds for one way of passing, in float64."""
    first, second = (np.asarray(table[f"{order}_{passes}"], np.float64) for order in ("first", "second"))
    texture_of = np.asarray(table["homogeneity"], np.float64)
    ratio = np.divide(first, second, out=np.full_like(first, np.nan), where=second > 0)
    error = np.asarray(table.get("first_codebook", np.full_like(first, np.nan)), np.float64)
    signal = ratio * texture_of**gamma
    known = {"first_loss": first, "second_loss": second, "ratio": ratio, "homogeneity": texture_of, "signal": signal}
    nothing = dict.fromkeys(Measurement._fields, np.full_like(first, np.nan))
    return Measurement(**nothing | known | {"latent_error": error})


POPULATION = 20_000

Score = Callable[[Columns], np.ndarray]
Signal = Callable[[Columns], Score]  # given belonging images' columns, a function from columns to scores


def _fixed(score: Score) -> Signal:
    return lambda own: score


def _ratio(passes: str, gamma: float) -> Signal:
    return _fixed(lambda table: np.asarray(measurement_of(table, passes, gamma=gamma).signal))


def _largest(*signals: Signal) -> Signal:
    """The largest of several scores, each standardized by belonging images."""

    def fit(own: Columns) -> Score:
        scores = [signal(own) for signal in signals]
        scales = [(score(own).mean(), score(own).std(ddof=1)) for score in scores]
        return lambda table: np.max([(f(table) - m) / s for f, (m, s) in zip(scores, scales, strict=True)], axis=0)

    return fit


def _residual(*on: str, prior: Sequence[float] | None = None, weight: float = 0.0, scaled: bool = False) -> Signal:
    """log L1 less its regression on the logarithms of other columns.

    `prior` slopes count as much as `weight` images; `scaled` divides by a spread that depends on log L2.
    """
    slopes = np.zeros(len(on)) if prior is None else np.asarray(prior)

    def design(table: Columns) -> np.ndarray:
        return np.stack([np.log(table[name]) for name in on], axis=1)

    def fit(own: Columns) -> Score:
        x, y = design(own), np.log(own["first_clip"]) - design(own) @ slopes
        centred = x - x.mean(0)
        ridge = weight * np.diag(x.var(0))
        b = slopes + np.linalg.solve(centred.T @ centred + ridge, centred.T @ (y - y.mean()))

        def residual(table: Columns) -> np.ndarray:
            return np.log(table["first_clip"]) - design(table) @ b

        if not scaled:
            return residual
        centre, spread = residual(own).mean(), residual(own).std()
        size = np.log(np.abs(residual(own) - centre) + 0.1 * spread)
        x2 = np.log(own["second_clip"])
        slope = ((x2 - x2.mean()) * (size - size.mean())).sum() / (np.square(x2 - x2.mean()).sum() + 10 * x2.var())
        return lambda table: (residual(table) - centre) / np.exp(slope * (np.log(table["second_clip"]) - x2.mean()))

    return fit


def _unclipped(signal: Signal) -> Signal:
    """The same on the losses of unclipped passes."""

    def raw(table: Columns) -> Columns:
        return {**table, "first_clip": table["first_raw"], "second_clip": table["second_raw"]}

    def fit(own: Columns) -> Score:
        score = signal(raw(own))
        return lambda table: score(raw(table))

    return fit


def _log_ratio(above: str, below: str) -> Signal:
    return _fixed(lambda table: np.log(table[above]) - np.log(table[below]))


_PRODUCT = _fixed(lambda table: np.log(measurement_of(table).signal))
_DIFFERENCE = _fixed(lambda table: table["first_clip"] - table["second_clip"])
_TURNED = _log_ratio("first_clip", "first_turned")
_RDD = _fixed(lambda t: t["first_clip"] - t["first_blurred"] - 0.5 * t["first_turned"] + 0.5 * t["second_turned"])
_CODEBOOK = _fixed(lambda table: np.log(table["first_codebook"]))
_ON_SECOND = _residual("second_clip")
_ON_BOTH = _residual("second_clip", "homogeneity")

PAPER = "paper: t·H"
TURNED = "larger of t·H, log L1 on log L2, log H, L1 / turned"
SIGNALS: dict[str, Signal] = {
    PAPER: _ratio("raw", 1.0),
    "t·H, clipped": _ratio("clip", 1.0),
    "t·H, clipped and rounded": _ratio("round8", 1.0),
    "t·H, clipped, posterior sample": _ratio("sample", 1.0),
    "t": _ratio("clip", 0.0),
    "t·√H": _ratio("clip", 0.5),
    "L1": _fixed(lambda table: table["first_clip"]),
    "L1 − L2": _DIFFERENCE,
    "log L1 on log L2": _ON_SECOND,
    "log L1 on log L2, log H": _ON_BOTH,
    "log L1 on log L2, log H, shrunk to t·H": _residual("second_clip", "homogeneity", prior=(1.0, -1.0), weight=20.0),
    "log L1 on log L2, texture-dependent spread": _residual("second_clip", scaled=True),
    "larger of t·H, log L1 on log L2": _largest(_PRODUCT, _ON_SECOND),
    "larger of t·H, log L1 on log L2, log H": _largest(_PRODUCT, _ON_BOTH),
    "larger of t·H, log L1 on log L2, log H, unclipped": _unclipped(_largest(_PRODUCT, _ON_BOTH)),
    "larger of log L1 on log L2, on log L2, log H": _largest(_ON_SECOND, _ON_BOTH),
    "larger of L1 − L2, log L1 on log L2": _largest(_DIFFERENCE, _ON_SECOND),
    "larger of L1 − L2, log L1 on log L2, log H": _largest(_DIFFERENCE, _ON_BOTH),
    "latent ratio": _log_ratio("first_latent", "second_latent"),
    "quantization error": _CODEBOOK,
    "quantization error ratio": _log_ratio("first_codebook", "second_codebook"),
    "quantization error · t": _fixed(lambda table: np.log(table["first_codebook"] * measurement_of(table).ratio)),
    "larger of t·H, log L1 on log L2, log H, quantization error": _largest(_PRODUCT, _ON_BOTH, _CODEBOOK),
    "L1 / that of the blurred image": _log_ratio("first_clip", "first_blurred"),
    "L1 / that of the turned image": _TURNED,
    "RDD, squared error": _RDD,
    "log L1 on log L2, log H, log turned L1": _residual("second_clip", "homogeneity", "first_turned"),
    "larger of t·H, log L1 on log L2, log H, RDD": _largest(_PRODUCT, _ON_BOTH, _RDD),
    TURNED: _largest(_PRODUCT, _ON_BOTH, _TURNED),
}


def score_signals(own: Columns, tables: Mapping[str, Columns]) -> dict[str, dict[str, np.ndarray]]:
    """`{signal: {source: scores}}` by fits to belonging images; where a signal is undefined it is left out."""
    found = {}
    for name, signal in SIGNALS.items():
        with np.errstate(invalid="ignore"):
            score = signal(own)
            scores = {source: np.asarray(score(table), np.float64) for source, table in tables.items()}
        if defined := {source: values for source, values in scores.items() if np.isfinite(values).all()}:
            found[name] = defined
    return found


@dataclasses.dataclass(frozen=True)
class Choice:
    """One round of choosing: what was best where it was chosen, and how it did elsewhere against the paper's signal.

    Attributes:
      chosen_on, reported_on: models.
      signal: of the highest mean AUC where it was chosen.
      auc, paper_auc: means over the models and sources that it is reported on.
    """

    chosen_on: tuple[str, ...]
    reported_on: tuple[str, ...]
    signal: str
    auc: float
    paper_auc: float


def choose(
    scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], rounds: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> list[Choice]:
    """Choose a signal on half of the images of some models, report it on the other half of others.

    Args:
      scores: `{model: {signal: {source: scores}}}`, the model's own images under its own name.
      rounds: pairs of models to choose on and models to report on. Even images choose, odd images report.
    """

    def mean_auc(models: Sequence[str], signal: str, half: int) -> float:
        areas = []
        for model in models:
            of = scores[model][signal]
            areas += [area_under_curve(of[model][half::2], of[s][half::2]) for s in of if s != model]
        return float(np.mean(areas))

    choices = []
    for chosen_on, reported_on in rounds:
        everywhere = [c for c in SIGNALS if all(len(scores[m].get(c, ())) == len(scores[m][PAPER]) for m in scores)]
        best = max(everywhere, key=lambda c: mean_auc(chosen_on, c, 0))
        auc, paper = (mean_auc(reported_on, c, 1) for c in (best, PAPER))
        choices.append(Choice(tuple(chosen_on), tuple(reported_on), best, auc, paper))
    return choices


def few_images(
    measured: Measurement,
    sizes: Sequence[int] = (20, 50, 200, 500),
    *,
    rules: Sequence[str] = ("exact", "empirical", "conformal"),
    fitted: bool = True,
    alpha: float = 0.05,
    repeats: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Realised acceptance of belonging images when few of them calibrate.

    Calibration images are drawn from the smooth density (Gaussian, Scott's bandwidth) of the given images' log losses
    and log homogeneity, and so are 20,000 that show what a calibration really accepts: a test on what is left of a few
    hundred would add its own noise to the realised acceptance, and hold none of it in common for all sizes.

    Returns:
      A row for each size and rule: size, rule, mean, low and high (2.5 and 97.5 percentiles over repeats) of the
      realised acceptance, and the shares of repeats whose acceptance interval held the realised acceptance
      (acceptance_covered) and whose threshold interval held the true quantile (threshold_covered).
    """
    logs = np.log(np.stack([measured.first_loss, measured.second_loss, measured.homogeneity]).astype(np.float64))
    smoothing = np.linalg.cholesky(np.cov(logs)) * logs.shape[1] ** (-1 / 7)

    def draw(n: int, rng: np.random.Generator) -> Measurement:
        first, second, texture_of = np.exp(
            logs[:, rng.integers(logs.shape[1], size=n)] + smoothing @ rng.standard_normal((3, n))
        )
        return measurement_of({"first_clip": first, "second_clip": second, "homogeneity": texture_of})

    population = draw(POPULATION, np.random.default_rng(seed))
    rows = []
    for size in sizes:
        seen: dict[str, list[tuple[float, bool, bool]]] = {rule: [] for rule in rules}
        for repeat in range(repeats):
            inside = draw(size, np.random.default_rng([seed, size, repeat]))
            own = cross_fit(inside) if fitted else np.asarray(inside.signal)
            new = np.asarray(fit_statistic(inside).on_host(population) if fitted else population.signal)
            low, high = threshold_interval(own, alpha)
            quantile = float(np.quantile(new, 1 - alpha))
            bounded = (low is None or low <= quantile) and (high is None or quantile <= high)
            for rule in rules:
                tau = threshold(own, alpha=alpha, rule=rule)
                realised = float((new < tau).mean())
                sure = acceptance_interval(own, tau, cross_fitted=fitted)
                seen[rule].append((realised, sure[0] <= realised <= sure[1], bounded))
        for rule, results in seen.items():
            realised, covered, bounded_share = np.array(results, np.float64).T
            low, high = interval(realised)
            rows.append(
                {
                    "size": size,
                    "rule": rule,
                    "mean": float(realised.mean()),
                    "low": low,
                    "high": high,
                    "acceptance_covered": float(covered.mean()),
                    "threshold_covered": float(bounded_share.mean()),
                }
            )
    return rows

"""A model's calibration: where its own images' scores lie, the threshold that follows, and how it came about."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.errors import AutoencoderError, CalibrationError, CalibrationWarning
from aedr_jax.files import whole_file
from aedr_jax.intervals import acceptance_interval, threshold_interval
from aedr_jax.signal import Measurement, SignalConfig, Values
from aedr_jax.statistic import Statistic, cross_fit, fit_statistic
from aedr_jax.threshold import RULES, check_signals, hold_in, kde_logpdf, on_its_side, p_value, threshold
from aedr_jax.validation import Validation, pick_alpha

__all__ = ["FEW", "Calibration", "Provenance", "calibrate"]

FORMAT = "aedr_jax calibration 3"
FEW = 20
ALPHA = 0.05
VERSIONED = ("aedr-jax", "jax", "jaxlib", "flax", "numpy", "dm-pix", "pillow")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a calibration was made from; None where it was not told.

    Attributes:
      source: what the autoencoder was loaded from: a registry name, a folder or a hub path.
      weights_hash: of the autoencoder (`weights_hash`).
      images_hash: sha256 over the sorted sha256 of the belonging images' files.
      dtype, precision, quantize: what the autoencoder computed in, and whether it decoded codebook entries.
      size_rule: how the images were brought to a multiple of the factor.
      processing: what was done to the images before they were measured (`processing.Processing`), or "none".
      versions: of the packages that take part in a score.
      created: UTC date and time.
    """

    source: str | None = None
    weights_hash: str | None = None
    images_hash: str | None = None
    dtype: str | None = None
    precision: str | None = None
    quantize: bool | None = None
    size_rule: str | None = None
    processing: str = "none"
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    created: str | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold on the scores of one model, and the belonging images' scores that it comes from.

    Attributes:
      model: the model's name, or None.
      method: what was measured: "aedr", or a rival's name.
      config: the `SignalConfig` as JSON values; empty for a rival's scores.
      statistic: what was fitted to the belonging images; None where scores are the signal itself or a rival's.
      scores: of the belonging images, sorted; each by a fit that the image took no part in.
      threshold: an image belongs where its score is below.
      threshold_interval: 95 %, for the threshold that endless belonging images would give; a side is None where these
        are too few to bound it.
      alpha: the share of belonging images to turn away.
      acceptance_interval: 95 %, for the share of belonging images that this threshold accepts.
      rule: of the threshold (`threshold.RULES`).
      validation: what images of other origin said; None where there were none.
      provenance: what it was made from.
    """

    model: str | None
    method: str
    config: dict[str, Any]
    statistic: Statistic | None
    scores: tuple[float, ...]
    threshold: float
    threshold_interval: tuple[float | None, float | None]
    alpha: float
    acceptance_interval: tuple[float, float]
    rule: str
    validation: Validation | None
    provenance: Provenance

    def score(self, measured: Measurement | Values) -> Float[Array, " n"]:
        """The statistic on whose scale threshold and p-values live: small where the image belongs. jit-able.

        Args:
          measured: a `Measurement`, or the scores of a rival, which stay as they are.
        """
        if isinstance(measured, Measurement):
            return jnp.asarray(measured.signal) if self.statistic is None else self.statistic(measured)
        return jnp.asarray(measured)

    def p_value(self, scores: Values) -> Float[Array, " n"]:
        """The share of the model's own images with at least this score (`threshold.p_value`). jit-able.

        Never below 1 / (n + 1) of n belonging images. It exceeds alpha exactly where the score is below the threshold.
        With an alpha below 1 / (n + 1), which only a density's tail can promise, it always does: the threshold decides.
        """
        scores = jnp.asarray(scores)
        scores = scores if scores.dtype == jnp.float64 else scores.astype(jnp.float32)
        p = p_value(scores, jnp.asarray(self.scores, scores.dtype), rule=self.rule)
        if self.alpha < 1 / (len(self.scores) + 1):
            return p
        return on_its_side(p, scores, threshold=self.threshold, alpha=self.alpha)

    def foreign_p_value(self, scores: Values) -> Float[Array, " n"]:
        """The p-value of the other null hypothesis, "not this model's": the share of the validation images, the image
        itself counted among them, with a score at most as large. NaN without validation images. jit-able."""
        if self.validation is None:
            return jnp.full(jnp.shape(scores), jnp.nan)
        others, scores = jnp.asarray(self.validation.scores, jnp.float32), jnp.asarray(scores)
        below = (others <= scores[..., None]).sum(-1)
        return jnp.where(jnp.isnan(scores), jnp.nan, (1 + below) / (1 + others.shape[0]))

    def likelihood_ratio(self, scores: Values) -> Float[Array, " n"]:
        """How many times likelier such a score is from this model than from the validation images' origins. jit-able.

        The ratio of both sides' estimated densities, at the score brought between their medians: further out than that
        the ratio of two tails is the bandwidths' doing. Capped at what the data support: never above the number of
        validation images + 1, never below 1 / (number of belonging images + 1). NaN without validation images.
        """
        if self.validation is None:
            return jnp.full(jnp.shape(scores), jnp.nan)
        own, others = (hold_in(jnp.asarray(x, jnp.float32), jnp) for x in (self.scores, self.validation.scores))
        inside = jnp.clip(jnp.asarray(scores), jnp.median(own), jnp.maximum(jnp.median(own), jnp.median(others)))
        log_ratio = kde_logpdf(inside, own) - kde_logpdf(inside, others)
        return jnp.clip(jnp.exp(log_ratio), 1 / (own.shape[0] + 1), others.shape[0] + 1.0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Raises:
          CalibrationError: with the file, when it is no calibration of this format or does not hold together.
        """
        try:
            values = json.loads(Path(path).read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CalibrationError(f"{path}: not readable as JSON: {error}") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise CalibrationError(f"{path}: not a calibration of format {FORMAT!r}; make it with aedr calibrate")
        try:
            values["provenance"] = Provenance(**values["provenance"])
            values |= {name: _tuples(value) for name, value in values.items() if name != "config"}
            for name, kind in (("statistic", Statistic), ("validation", Validation)):
                values[name] = None if values[name] is None else kind(**values[name])
            values["scores"] = tuple(map(float, values["scores"]))
            calibration = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"{path}: a field is missing, unknown or of the wrong type: {error}") from error
        check_signals(calibration.scores, what=f"{path}: scores")
        if not isinstance(calibration.threshold, float) or not np.isfinite(calibration.threshold):
            raise CalibrationError(f"{path}: threshold {calibration.threshold!r} is no finite number")
        if calibration.rule not in RULES:
            raise CalibrationError(f"{path}: rule {calibration.rule!r}: expected one of {', '.join(RULES)}")
        return calibration

    def check_against(self, weights: str | None, config: SignalConfig, *, where: str = "calibration") -> None:
        """Refuse to be used on other weights or other settings than it was made with.

        Raises:
          CalibrationError: naming both sides of what differs.
        """
        made = self.provenance.weights_hash
        if made is not None and weights is not None and made != weights:
            raise CalibrationError(
                f"{where}: made with weights {made[:12]}, used with {weights[:12]}: a threshold is of one autoencoder"
            )
        if self.method == "aedr" and self.config != config.describe():
            wrong = {k: (self.config.get(k), v) for k, v in config.describe().items() if self.config.get(k) != v}
            raise CalibrationError(f"{where}: made with other settings (calibrated, now): {wrong}")


def calibrate(
    measured: Measurement | Values,
    *,
    config: SignalConfig = SignalConfig(),
    method: str = "aedr",
    autoencoder: Any = None,
    alpha: float | None = None,
    validation: Measurement | Float[Array | np.ndarray, " m"] | None = None,
    false_accepts: float | None = None,
    quantized: bool | None = None,
    model: str | None = None,
    rule: str = "exact",
    source: str | None = None,
    images_hash: str | None = None,
    size_rule: str | None = None,
    processing: str = "none",
) -> Calibration:
    """A threshold from images known to belong to a model.

    Args:
      measured: a `Measurement` of belonging images, or any scores [n] where small means that an image belongs.
      config: the settings that they were measured with.
      method: what was measured; a rival's name for a rival's scores.
      autoencoder: what they were measured with; its weights' hash is recorded.
      alpha: the share of the model's own images to turn away; None: .05, or picked on the validation images.
      validation: the same of images known *not* to belong; where no alpha is given it is picked on them for best
        accuracy. Foreign p-values and likelihood ratios come of them.
      false_accepts: pick the smallest alpha that accepts at most this share of the validation images instead.
      quantized: whether the model decodes codebook entries; None: what the autoencoder says, without one whether a
        codebook was measured (`latent_error`). Give it where the codebook cannot be reached.
      model: its name.
      rule: how the threshold follows from the scores (`threshold.RULES`).
      source: what the autoencoder was loaded from, for the record.
      images_hash: of the images' files, for the record.
      size_rule: how they were sized, for the record.
      processing: what was done to them, for the record.

    Raises:
      CalibrationError: on fewer than 5 images, 6 where a statistic is fitted, signals that give no threshold
        (`threshold.check_signals`), an alpha outside (0, 1), an alpha beside `false_accepts`, or a fit that fails
        (`statistic.fit_statistic`).

    Warns:
      CalibrationWarning: below 20 images; where some lie far from the rest (`threshold.hold_in`), naming them.
    """
    statistic = None
    if isinstance(measured, Measurement) and config.fitted and method == "aedr":
        check_signals(measured.signal)
        quantized = _decodes_entries(measured, autoencoder) if quantized is None else quantized
        statistic = fit_statistic(measured, quantized=quantized)
        scores = cross_fit(measured, quantized=quantized)
    else:
        scores = np.asarray(measured.signal if isinstance(measured, Measurement) else measured, dtype=np.float64)
    scores = check_signals(scores, what="scores")
    if scores.size < FEW:
        message = f"{scores.size} belonging images: below {FEW} a threshold means little; see acceptance_interval"
        warnings.warn(message, CalibrationWarning, stacklevel=2)
    if far := np.flatnonzero(hold_in(scores, np) != scores).tolist():
        where = ", ".join(f"image {i} (score {scores[i]:g})" for i in far)
        warnings.warn(
            f"far from the rest of the {scores.size} belonging images, counted from 0: {where}. Are they the model's "
            'own? The rule "exact" takes each as if it lay nearer',
            CalibrationWarning,
            stacklevel=2,
        )
    validated = None
    if validation is not None:
        others = validation
        if isinstance(validation, Measurement):
            others = validation.signal if statistic is None else statistic(validation)
        alpha, validated = pick_alpha(scores, np.asarray(others), alpha=alpha, false_accepts=false_accepts, rule=rule)
    elif false_accepts is not None:
        raise CalibrationError(f"a target of {false_accepts:g} false accepts needs validation images")
    alpha = ALPHA if alpha is None else alpha
    tau = threshold(scores, alpha=alpha, rule=rule)
    numerics = getattr(autoencoder, "numerics", None)
    provenance = Provenance(
        source=source,
        weights_hash=_hash_or_none(autoencoder),
        images_hash=images_hash,
        dtype=None if numerics is None else jnp.dtype(numerics.dtype).name,
        precision=None if numerics is None else numerics.precision,
        quantize=getattr(autoencoder, "quantize_on_decode", None),
        size_rule=size_rule,
        processing=processing,
        versions={name: metadata.version(name) for name in VERSIONED},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Calibration(
        model=model,
        method=method,
        config=config.describe() if method == "aedr" else {},
        statistic=statistic,
        scores=tuple(sorted(scores.tolist())),
        threshold=tau,
        threshold_interval=threshold_interval(scores, alpha),
        alpha=alpha,
        acceptance_interval=acceptance_interval(scores, tau, cross_fitted=statistic is not None),
        rule=rule,
        validation=validated,
        provenance=provenance,
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that frozen dataclasses hold, one level into objects."""
    if isinstance(value, dict):
        return {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _decodes_entries(measured: Measurement, autoencoder: Any) -> bool:
    known = getattr(autoencoder, "quantize_on_decode", None)
    return bool(np.isfinite(np.asarray(measured.latent_error)).all()) if known is None else bool(known)


def _hash_or_none(autoencoder: Any) -> str | None:
    try:
        return None if autoencoder is None else weights_hash(autoencoder)
    except AutoencoderError:  # functions that close over their weights: there is nothing to hash
        return None

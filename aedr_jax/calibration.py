"""A model's calibration: where its own images' scores lie, the threshold that follows, and how it came about."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.errors import AutoencoderError, CalibrationError
from aedr_jax.signal import Measurement, SignalConfig, Values
from aedr_jax.threshold import check_signals, kde_cdf, kde_threshold

__all__ = ["Calibration", "Provenance", "calibrate"]

FORMAT = "aedr_jax calibration 1"
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
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    created: str | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold on the scores of one model, and the belonging images' scores that it comes from.

    Attributes:
      model: the model's name, or None.
      method: what was measured: "aedr", or a rival's name.
      config: the `SignalConfig` as JSON values; empty for a rival's scores.
      scores: of the belonging images, sorted.
      threshold: an image belongs where its score is below.
      alpha: the share of belonging images beyond the threshold, by the density estimate.
      rule: "exact" or "grid" (`threshold.kde_quantile`).
      provenance: what it was made from.
    """

    model: str | None
    method: str
    config: dict[str, Any]
    scores: tuple[float, ...]
    threshold: float
    alpha: float
    rule: str
    provenance: Provenance

    def score(self, measured: Measurement | Values) -> Float[Array, " n"]:
        """The statistic on whose scale threshold and p-values live: small where the image belongs. jit-able."""
        return jnp.asarray(measured.signal if isinstance(measured, Measurement) else measured)

    def p_value(self, scores: Values) -> Float[Array, " n"]:
        """The share of the model's own images, by the density estimate, with a larger score. jit-able.

        Small means "hardly this model's"; it says nothing of how likely another origin is. NaN stays NaN.
        """
        # The upper tail as the lower tail of the mirrored density: 1 − cdf would lose everything below 1e-7.
        return kde_cdf(-jnp.asarray(scores), -jnp.asarray(self.scores, jnp.float32))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")
        os.replace(partial, path)

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
            values["scores"] = tuple(map(float, values["scores"]))
            calibration = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"{path}: a field is missing, unknown or of the wrong type: {error}") from error
        check_signals(calibration.scores, what=f"{path}: scores")
        if not isinstance(calibration.threshold, float) or not np.isfinite(calibration.threshold):
            raise CalibrationError(f"{path}: threshold {calibration.threshold!r} is no finite number")
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
    alpha: float = 0.05,
    model: str | None = None,
    rule: str = "exact",
    source: str | None = None,
    images_hash: str | None = None,
    size_rule: str | None = None,
) -> Calibration:
    """A threshold from images known to belong to a model.

    Args:
      measured: a `Measurement` of belonging images, or any scores [n] where small means that an image belongs.
      config: the settings that they were measured with.
      method: what was measured; a rival's name for a rival's scores.
      autoencoder: what they were measured with; its weights' hash is recorded.
      alpha: the share of the model's own images to turn away.
      model: its name.
      rule: how the density is inverted: "exact", or "grid" for the authors' rule.
      source: what the autoencoder was loaded from, for the record.
      images_hash: of the images' files, for the record.
      size_rule: how they were sized, for the record.

    Raises:
      CalibrationError: on signals that give no density (`threshold.check_signals`), or an alpha outside (0, 1).
    """
    scores = np.asarray(measured.signal if isinstance(measured, Measurement) else measured, dtype=np.float64)
    threshold = kde_threshold(scores, alpha=alpha, method=rule)
    numerics = getattr(autoencoder, "numerics", None)
    provenance = Provenance(
        source=source,
        weights_hash=_hash_or_none(autoencoder),
        images_hash=images_hash,
        dtype=None if numerics is None else jnp.dtype(numerics.dtype).name,
        precision=None if numerics is None else numerics.precision,
        quantize=getattr(autoencoder, "quantize_on_decode", None),
        size_rule=size_rule,
        versions={name: metadata.version(name) for name in VERSIONED},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    settings = config.describe() if method == "aedr" else {}
    return Calibration(model, method, settings, tuple(sorted(scores.tolist())), threshold, alpha, rule, provenance)


def _hash_or_none(autoencoder: Any) -> str | None:
    try:
        return None if autoencoder is None else weights_hash(autoencoder)
    except AutoencoderError:  # functions that close over their weights: there is nothing to hash
        return None

"""A model's calibration: where its own images' scores lie, the threshold that follows, and how it came about."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from aedr_jax.autoencoders.models import check_autoencoder
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.decision.agreement import contradiction, measured_otherwise
from aedr_jax.decision.domain import Domain
from aedr_jax.decision.intervals import acceptance_interval, threshold_interval
from aedr_jax.decision.threshold import (
    as_numbers,
    check_signals,
    hold_in,
    in_place,
    kde_logpdf,
    on_its_side,
    p_value,
    threshold,
)
from aedr_jax.decision.validation import Validation, check_choice, pick_alpha
from aedr_jax.errors import CalibrationError, CalibrationWarning
from aedr_jax.files import whole_file
from aedr_jax.images.processing import Processing
from aedr_jax.signal.measurement import Measurement, SignalConfig, Values
from aedr_jax.signal.protocol import Identity, Protocol, told_apart
from aedr_jax.typed import build
from aedr_jax.versions import versions

__all__ = ["FEW", "Calibration", "Provenance", "calibrate", "pasts_of"]

FORMAT = "aedr_jax calibration 5"
FEW = 20
ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a calibration came from. It is a record; none of it is compared.

    Attributes:
      source: what the autoencoder was loaded from: a registry name, a folder or a hub path; None where it is not known.
      images_hash: sha256 over the sorted sha256 of the belonging images' files; None likewise.
      versions: the versions of the packages that take part in a score.
      created: UTC date and time.
      command: what was typed; None for a call in Python. (What has none is written without the field.)
    """

    source: str | None = None
    images_hash: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    created: str | None = None
    command: str | None = dataclasses.field(default=None, metadata={"later": True})


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold on the scores of one model, and the belonging images' scores that it comes from.

    Attributes:
      protocol: what was measured, with which model, and how. The calibration judges scores of this protocol only
        (`check_against`).
      domain: the sizes and values of the belonging images. The calibration judges images like these only.
      scores: the sorted scores of the belonging images.
      threshold: an image belongs if its score is below it.
      threshold_interval: the 95 % interval of the threshold that infinitely many belonging images would give. A side is
        None if there are too few images to bound it.
      alpha: the share of belonging images to turn away.
      acceptance_interval: the 95 % interval of the share of belonging images that this threshold accepts.
      rule: the rule of the threshold (`threshold.RULES`).
      validation: what images of other origin said; None if there were none.
      provenance: what the calibration was made from.

    >>> calibration = aedr.calibrate(np.linspace(1.0, 1.2, 40), method="mine", model="a")
    >>> calibration.save("a.json")
    >>> aedr.Calibration.load("a.json") == calibration
    True
    """

    protocol: Protocol
    domain: Domain
    scores: tuple[float, ...]
    threshold: float
    threshold_interval: tuple[float | None, float | None]
    alpha: float
    acceptance_interval: tuple[float, float]
    rule: str
    validation: Validation | None
    provenance: Provenance

    @property
    def model(self) -> str | None:
        """The model's name."""
        return self.protocol.identity.name

    @property
    def aligned(self) -> bool:
        """Whether scores are alignments."""
        return self.protocol.settings.get("alignment") is not None

    def score(self, measured: Measurement | Values) -> Values:
        """The score that threshold and p-values refer to, the alignment where settings have one, or else the signal:
        small where the image belongs. jit-able; of NumPy arrays it is NumPy's.

        Args:
          measured: a `Measurement`, or the scores of a rival, which stay as they are.
        """
        _, scores = in_place(_scores(measured, aligned=self.aligned))
        return scores

    def p_value(self, scores: Values) -> Values:
        """The share of the model's own images with at least this score (`threshold.p_value`). jit-able; of NumPy
        arrays it is NumPy's, as the others are.

        It is never below 1 / (n + 1) for n belonging images, and it exceeds alpha exactly where the score is below the
        threshold. An alpha below 1 / (n + 1) comes from a density's tail alone; every p-value exceeds it, and the
        threshold decides.
        """
        xp, scores = in_place(scores)
        scores = scores if scores.dtype == np.float64 else scores.astype(np.float32)
        p = p_value(scores, xp.asarray(self.scores, scores.dtype), rule=self.rule)
        if self.alpha < 1 / (len(self.scores) + 1):
            return p
        return on_its_side(p, scores, threshold=self.threshold, alpha=self.alpha)

    def foreign_p_value(self, scores: Values) -> Values:
        """The p-value of the other null hypothesis, "not this model's". jit-able.

        (1 + number of validation scores <= score) / (1 + number of validation scores); NaN without validation images.
        """
        xp, scores = in_place(scores)
        if self.validation is None:
            return xp.full(scores.shape, xp.nan, jnp.result_type(float))
        others = xp.asarray(self.validation.scores, np.float32)
        below = (others <= scores[..., None]).sum(-1)
        return xp.where(xp.isnan(scores), xp.nan, (1 + below) / (1 + others.shape[0])).astype(jnp.result_type(float))

    @np.errstate(all="ignore")
    def likelihood_ratio(self, scores: Values) -> Values:
        """How many times likelier such a score is from this model than from the validation images' origins. jit-able.

        f_own(s) / f_validation(s), the ratio of the two estimated densities. The score s is first clipped to lie
        between their medians, because further out the ratio of two tails depends on the bandwidths alone. The ratio is
        clipped to what the data support: at most the number of validation images + 1, at least 1 / (number of belonging
        images + 1). NaN without validation images.
        """
        xp, scores = in_place(scores)
        if self.validation is None:
            return xp.full(scores.shape, xp.nan, jnp.result_type(float))
        own, others = (hold_in(xp.asarray(x, np.float32), xp) for x in (self.scores, self.validation.scores))
        inside = xp.clip(scores, xp.median(own), xp.maximum(xp.median(own), xp.median(others)))
        log_ratio = kde_logpdf(inside, own) - kde_logpdf(inside, others)
        return xp.clip(xp.exp(log_ratio), 1 / (own.shape[0] + 1), others.shape[0] + 1.0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as JSON, whole or not at all, with a digest of its content.

        Raises:
          AedrError: if its loss has no name of its own (`Protocol.record`).
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps({**self._values(), "digest": self.digest()}, indent=1) + "\n")

    def digest(self) -> str:
        """sha256 over all that `save` writes, which writes it too: equal for equal calibrations."""
        return told_apart(self._values())

    def _values(self) -> dict[str, Any]:
        values = {"format": FORMAT, **dataclasses.asdict(self), "protocol": self.protocol.record()}
        if self.provenance.command is None:
            del values["provenance"]["command"]
        return values

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote. Everything that follows from the scores is derived again and compared.

        This does not prove who made the file: a forged file can be consistent. Use files of people you trust.

        Raises:
          CalibrationError: with the file, if it is no calibration of this format or contradicts itself.
        """
        try:
            values = json.loads(Path(path).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise CalibrationError(f"{path}: not readable as JSON: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise CalibrationError(
                f"{path}: not a calibration of format {FORMAT!r}; make it anew from the model's own images: "
                f"aedr calibrate FOLDER --model M --out {path}"
            )
        try:
            digest = values.pop("digest")
            if told_apart(values) != digest:
                raise CalibrationError("it was changed after it was written: its digest is of other content")
            del values["format"]
            return _checked(build(cls, values))
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        except (KeyError, ValueError) as error:
            raise CalibrationError(f"{path}: a field is missing, unknown or of the wrong type: {error}") from error

    def check_against(self, measured: Protocol, *, where: str = "calibration") -> None:
        """Refuse to judge scores that were measured in any other way than this calibration's own.

        The calibration's `processing` is the past of images that it stands for. Scores of images as they come, measured
        without it, are accepted.

        Args:
          measured: how the scores to be judged are measured (`scoring.scorer.Scorer.protocol`).
          where: what errors call the calibration.

        Raises:
          CalibrationError: naming both sides of everything that differs. What only one side knows also differs.

        Warns:
          CalibrationWarning: if the weights are known on neither side (functions that close over them).
        """
        processing = self.protocol.processing if measured.processing == "none" else measured.processing
        found = self.protocol.differences(dataclasses.replace(measured, processing=processing))
        if found:
            sides = "; ".join(f"{what}: calibrated {_short(a)}, now {_short(b)}" for what, (a, b) in found.items())
            size_rule = found.get("size_rule", ("", ""))[0] or ""
            remedy = f" (--multiple {size_rule[4:]} measures as it does)" if size_rule.startswith("crop") else ""
            if "settings.alignment.version" in found:
                remedy += " (another version of aedr_jax made it: calibrate anew)"
            raise CalibrationError(f"{where}: made with other weights or settings: {sides}{remedy}")
        if measured.identity.weights_hash is None:
            message = f"{where}: weights that cannot be hashed: nothing tells this autoencoder from the calibrated one"
            warnings.warn(message, CalibrationWarning, stacklevel=2)

    def trusted_source(self, asked: Collection[str] = ()) -> str:
        """The name or place to load the calibration's model from.

        A registry name and a folder on this machine are trusted. Any other source, above all a hub path, is trusted
        only if the user named it.

        Args:
          asked: what the user named as models.

        Raises:
          CalibrationError: if the file names no source, or one that nobody asked for.
        """
        source = self.provenance.source or self.model
        if source is None:
            raise CalibrationError("a calibration that names neither its model nor a source")
        if source in REGISTRY or source in asked or (Path(source) / "config.json").is_file():
            return source
        raise CalibrationError(
            f"calibration of {self.model}: its model {source!r} is neither in the registry nor a folder here, and "
            f"nothing is downloaded on a file's word; say where it is (--models {self.model}=FOLDER), or if you trust "
            f"it: --models {source}"
        )


def pasts_of(made: Calibration | Sequence[Calibration]) -> list[Calibration]:
    """A model's calibrations, one for each past of the images that they were made of, where it may be a single one."""
    several = list(made) if isinstance(made, Iterable) and not isinstance(made, str) else [made]
    if odd := [type(one).__name__ for one in several if not isinstance(one, Calibration)]:
        raise CalibrationError(f"calibration: {odd[0]}; expected a Calibration (Calibration.load reads a file)")
    return several


def calibrate(
    measured: Measurement | Values,
    *,
    config: SignalConfig = SignalConfig(),
    method: str = "aedr",
    autoencoder: Any = None,
    alpha: float | None = None,
    validation: Measurement | Float[Array | np.ndarray, " m"] | None = None,
    false_accepts: float | None = None,
    model: str | None = None,
    rule: str = "exact",
    source: str | None = None,
    images_hash: str | None = None,
    size_rule: str | None = None,
    processing: str = "none",
    sizes: Int[np.ndarray, "n 2"] | None = None,
) -> Calibration:
    """A threshold from images known to belong to a model.

    The threshold τ is the score below which a belonging image falls with probability 1 − alpha. By the rule "exact" it
    solves (1/n) Σ Φ((τ − s_i) / b) = 1 − alpha over the belonging images' scores s_i (`kde_cdf`). Scores are
    alignments, or the signal where the settings have no alignment.

    Args:
      measured: a `Measurement` of belonging images, or any scores [n] where small means that an image belongs.
      config: the settings that they were measured with.
      method: what was measured: "aedr", or a rival's name for a rival's scores.
      autoencoder: what they were measured with. Its identity is recorded; scores to be judged must have the same.
      alpha: the share of the model's own images to turn away. None: .05, or picked on the validation images.
      validation: the same of images known *not* to belong. Alpha is picked on them for best accuracy, unless it is
        given. Foreign p-values and likelihood ratios need them.
      false_accepts: pick the smallest alpha that accepts at most this share of the validation images instead.
      model: the model's name.
      rule: how the threshold follows from the scores (`threshold.RULES`).
      source: what the autoencoder was loaded from, for the record.
      images_hash: the hash of the images' files, for the record.
      size_rule: how the images were brought to size; images to be judged must be brought to size likewise.
      processing: what was done to the images first: the past that the calibration stands for.
      sizes: height and width of each image as it was measured; the calibration judges images of similar sizes only.
        None: of all sizes.

    Raises:
      CalibrationError: on a measurement that shows other settings than `config` (`agreement.measured_otherwise`), fewer
        than 5 images, scores that give no threshold (`threshold.check_signals`), an alpha outside (0, 1), an alpha
        beside `false_accepts`, or a `false_accepts` outside [0, 1) or without validation images.
      ValueError: on another rule.

    Warns:
      CalibrationWarning: below 20 images; if nothing can be said of some, which are left out; if some lie far from
        the rest (`threshold.hold_in`), naming them; if the autoencoder's weights cannot be hashed.

    >>> rng = np.random.default_rng(0)
    >>> second_loss, homogeneity = rng.uniform(1e-3, 2e-3, 40), rng.uniform(0.4, 0.6, 40)
    >>> own = aedr.Measurement.from_losses(second_loss * rng.normal(1.1, 0.02, 40), second_loss, homogeneity)
    >>> calibration = aedr.calibrate(own, model="mine", config=aedr.SignalConfig.paper())
    >>> calibration.alpha, bool(calibration.score(own).mean() < calibration.threshold)
    (0.05, True)
    """
    if not isinstance(config, SignalConfig):
        raise CalibrationError(f"config {config!r}: expected a SignalConfig, such as SignalConfig.paper()")
    if autoencoder is not None:
        check_autoencoder(autoencoder)
    settings = config.describe() if method == "aedr" else {}
    for what, given in (("measured", measured), ("validation", validation)):
        if isinstance(given, list | tuple) and any(isinstance(part, Measurement) for part in given):
            raise CalibrationError(
                f"{what}: a list of measurements; join them: jax.tree.map(lambda *x: np.concatenate(x), *{what})"
            )
        if isinstance(given, Measurement) and method == "aedr" and (wrong := measured_otherwise(given, settings)):
            raise CalibrationError(f"{what}: not by this config: {wrong}; pass the one that it was measured with")
    check_choice(alpha=alpha, false_accepts=false_accepts, rule=rule, validated=validation is not None)
    aligned = method == "aedr" and config.alignment is not None
    scores = as_numbers(_scores(measured, aligned=aligned), "scores")
    numbers = np.arange(len(scores))
    if aligned and isinstance(measured, Measurement):
        said = np.isfinite(scores)
        if silent := np.flatnonzero(~said).tolist():
            message = f"of images {', '.join(map(str, silent))} nothing can be said (too little fine detail): left out"
            warnings.warn(message, CalibrationWarning, stacklevel=2)
        scores, numbers, measured = scores[said], numbers[said], measured.take(said)
        sizes = None if sizes is None else sizes[said]
    scores = check_signals(scores, what="scores")
    if scores.size < FEW:
        message = f"{scores.size} belonging images: below {FEW} a threshold means little; see acceptance_interval"
        warnings.warn(message, CalibrationWarning, stacklevel=2)
    if far := np.flatnonzero(hold_in(scores, np) != scores).tolist():
        where = ", ".join(f"image {numbers[i]} (score {scores[i]:g})" for i in far)
        warnings.warn(
            f"far from the rest of the {scores.size} belonging images, counted from 0: {where}. Are they the model's "
            'own? The rule "exact" takes each as if it lay nearer',
            CalibrationWarning,
            stacklevel=2,
        )
    validated = None
    if validation is not None:
        others = as_numbers(_scores(validation, aligned=aligned), "validation")
        others = others[np.isfinite(others)] if aligned else others
        alpha, validated = pick_alpha(scores, others, alpha=alpha, false_accepts=false_accepts, rule=rule)
    alpha = ALPHA if alpha is None else alpha
    tau = threshold(scores, alpha=alpha, rule=rule)
    identity = Identity.of(autoencoder, name=model)
    if autoencoder is not None and identity.weights_hash is None:
        message = "functions that close over their weights: nothing will tell another autoencoder from this one"
        warnings.warn(message, CalibrationWarning, stacklevel=2)
    provenance = Provenance(
        source=source,
        images_hash=images_hash,
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Calibration(
        protocol=Protocol(identity, method, settings, size_rule, processing),
        domain=Domain() if aligned else Domain.of(measured if isinstance(measured, Measurement) else scores, sizes),
        scores=tuple(sorted(scores.tolist())),
        threshold=tau,
        threshold_interval=threshold_interval(scores, alpha),
        alpha=alpha,
        acceptance_interval=acceptance_interval(scores, tau),
        rule=rule,
        validation=validated,
        provenance=provenance,
    )


def _checked(made: Calibration) -> Calibration:
    """The calibration, if what it says follows from what it holds."""
    identity = made.protocol.identity
    hashes = {"weights_hash": identity.weights_hash, "rounded_hash": identity.rounded_hash}
    for name, digest in (hashes | {"images_hash": made.provenance.images_hash}).items():
        if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
            raise CalibrationError(f"{name} {digest!r}: expected 64 hexadecimal digits")
    Processing.parse(made.protocol.processing)
    if made.protocol.method == "aedr" and made.protocol.settings.keys() != SignalConfig().describe().keys():
        raise CalibrationError(f"settings {sorted(made.protocol.settings)}: not those of a SignalConfig")
    if wrong := contradiction(made):
        raise CalibrationError(f"{wrong}; make it anew with aedr calibrate")
    return made


def _short(value: Any) -> str:
    """Of a hash its beginning."""
    return repr(value[:12] if isinstance(value, str) and len(value) == 64 else value)


def _scores(measured: Measurement | Values | Sequence[float], *, aligned: bool) -> Values | Sequence[float]:
    if not isinstance(measured, Measurement):
        return measured
    return measured.alignment if aligned else measured.signal

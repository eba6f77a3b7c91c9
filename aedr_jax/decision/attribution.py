"""Which of several models made each image, or none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from aedr_jax.decision.calibration import Calibration, pasts_of
from aedr_jax.errors import CalibrationError
from aedr_jax.signal.measurement import Measurement, Values
from aedr_jax.signal.protocol import Identity

__all__ = ["CAVEAT", "NONE", "NOT_ASSESSABLE", "Attribution", "attribute", "holm"]

NONE = "none"
NOT_ASSESSABLE = "not assessable"
ROUNDING = 1 + 1e-6  # p-values are multiples of 1 / (images + 1) in float32: a bound that one meets exactly is met
CAVEAT = (
    '"none" means: none of these candidates. It does not mean a real photograph: closed services, GANs and '
    "autoencoders that were not among the candidates end there too. A photograph that went through a candidate's "
    "autoencoder once looks like that model's own."
)


class Attribution(NamedTuple):
    """Verdicts over m models for n images.

    Attributes:
      models: their names, the order of the columns.
      scores: float [n,m], small where an image belongs.
      p_values: float [n,m]; the null hypothesis of each is "made by this model", so small speaks against it.
      accepted: bool [n,m], score below the model's threshold.
      verdicts: n strings: a model, a family "a|b" (models that share one autoencoder), "ambiguous: a, b", "none", or
        "not assessable".
      foreign_p_values: float [n,m]; the null hypothesis of each is "not made by this model", so small speaks for it.
        NaN for a model if one of its calibrations has no validation images.
      likelihood_ratios: float [n,m] (`Calibration.likelihood_ratio`); NaN likewise.

    >>> own = np.linspace(1.0, 1.2, 40)
    >>> result = aedr.attribute({"a": np.array([1.1, 5.0])}, {"a": aedr.calibrate(own, method="mine")})
    >>> result.models, result.verdicts, result.accepted.tolist()
    (('a',), ('a', 'none'), [[True], [False]])
    """

    models: tuple[str, ...]
    scores: Float[np.ndarray, "n m"]
    p_values: Float[np.ndarray, "n m"]
    accepted: Bool[np.ndarray, "n m"]
    verdicts: tuple[str, ...]
    foreign_p_values: Float[np.ndarray, "n m"]
    likelihood_ratios: Float[np.ndarray, "n m"]


def attribute(
    measured: Mapping[str, Measurement | Values],
    calibrations: Mapping[str, Calibration | Sequence[Calibration]],
    *,
    sizes: Mapping[str, Int[np.ndarray, "n 2"]] | None = None,
    false_names: float | None = None,
    families: Mapping[str, str] | None = None,
    assessable: Bool[np.ndarray, " n"] | None = None,
) -> Attribution:
    """A verdict for each image: every model that accepts it, score < threshold, which is where p-value > alpha.

    At most one family made an image. So the true one is missing from the verdict with probability at most alpha,
    however many candidates there are, and no correction is needed. How often an image of *no* candidate gets a name is
    another rate. It grows with the number of candidates; `false_names` bounds it by means of the validation images.

    A model may have several calibrations, one for each past of its images (as they came, saved as JPEG, ...). The past
    of an image is not known, so a null hypothesis is rejected only if it is rejected under every past: both p-values
    are the largest over the pasts, and the likelihood ratio is the smallest. Where the pasts lie apart this costs
    names, because an unprocessed image of another model can score like the model's own after JPEG. The members of a
    family share one null hypothesis and one p-value.

    Args:
      measured: for each model, the measurement (or a rival's scores) of the same n images.
      calibrations: for each model, its calibration, or several for different pasts. The score is then the one under the
        past with the largest p-value. A model accepts an image if any of its calibrations does, so it also accepts more
        images of other origin.
      sizes: for each model, height and width of each image as it was measured; None: sizes are not compared.
      false_names: a rate in (0, 1). Only families are accepted whose foreign p-value (the largest of the members'),
        adjusted by Holm's step-down over the families, is at most this. An image that is like the validation images of
        one past of each family then gets a name with probability at most this.
      families: for each model, a string that names its autoencoder; models with equal strings are one family. None: two
        models are one family if their calibrations are of one autoencoder (`Identity.family`), or, where a weights hash
        is missing, if their measurements are equal to the last bit.
      assessable: which images can be judged at all; None: those with a defined score for every model. An image is also
        not assessable if no calibration saw its size, or if every model that accepts it does so outside the values that
        its calibrations saw (`domain.Domain`).

    Raises:
      CalibrationError: when models and calibrations or families do not match, calibrations were made with different
        settings (presets), the numbers of images differ, or `false_names` is outside (0, 1) or given for a calibration
        without validation images.

    Source of the step-down: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> own = np.linspace(1.0, 1.2, 40)  # any scores that are small where an image belongs, or a `Measurement`
    >>> calibrations = {"a": aedr.calibrate(own, method="mine"), "b": aedr.calibrate(own + 1, method="mine")}
    >>> aedr.attribute({"a": np.array([1.1, 5.0]), "b": np.array([2.1, 5.0])}, calibrations).verdicts
    ('ambiguous: a, b', 'none')
    """
    for what, given, value in (("measured", measured, "measurement"), ("calibrations", calibrations, "calibration")):
        if not isinstance(given, Mapping):
            raise CalibrationError(f"{what}: a {type(given).__name__}; expected a mapping, {{model: {value}}}")
    models = tuple(measured)
    if not models:
        raise CalibrationError("no model to attribute to")
    if missing := [name for name in models if name not in calibrations]:
        raise CalibrationError(f"no calibration for {', '.join(missing)}")
    if false_names is not None and not 0.0 < false_names < 1.0:
        raise CalibrationError(f"false names {false_names}: expected a share in (0, 1)")
    pasts = {name: pasts_of(calibrations[name]) for name in models}
    if empty := [name for name in models if not pasts[name]]:
        raise CalibrationError(f"no calibration for {', '.join(empty)}")
    _check_same_settings(pasts)
    judged_by = [_under_any(measured[name], pasts[name]) for name in models]
    counts = {name: len(one.score) for name, one in zip(models, judged_by, strict=True)}
    counts |= {f"sizes of {name}": len(of_model) for name, of_model in (sizes or {}).items()}
    if len(set(counts.values())) > 1:
        raise CalibrationError(f"different numbers of images: {counts}")
    scores, p_values, accepted, foreign, ratios = (np.stack(values, axis=1) for values in zip(*judged_by, strict=True))
    family = _families(measured, pasts, families)
    if false_names is not None:
        if silent := [name for name in models if any(c.validation is None for c in pasts[name])]:
            raise CalibrationError(f"a bound on false names needs validation images in the calibration of {silent[0]}")
        accepted &= _holm_over(family, models, foreign) <= false_names * ROUNDING
    judged = [bool(np.isfinite(row).all()) for row in scores]
    if assessable is not None:
        judged = [ok and bool(given) for ok, given in zip(judged, assessable, strict=True)]
    judged = [ok and bool(inside) for ok, inside in zip(judged, _inside(measured, pasts, accepted, sizes), strict=True)]
    verdicts = tuple(
        _verdict([models[j] for j in np.flatnonzero(row)], family) if ok else NOT_ASSESSABLE
        for row, ok in zip(accepted, judged, strict=True)
    )
    return Attribution(models, scores, p_values, accepted, verdicts, foreign, ratios)


def _check_same_settings(pasts: Mapping[str, Sequence[Calibration]]) -> None:
    """Refuse calibrations of several presets: one measurement an image cannot be right for all of them. (A measurement
    does not know its settings; rows of scores do, and are compared where they are judged.)

    Raises:
      CalibrationError: naming both models and the settings in which they differ.
    """
    made = [
        (name, c.protocol.settings) for name, several in pasts.items() for c in several if c.protocol.method == "aedr"
    ]
    for name, config in made[1:]:
        first, other = made[0]
        if wrong := {k: (other.get(k), config.get(k)) for k in {**other, **config} if other.get(k) != config.get(k)}:
            raise CalibrationError(f"calibrations made with different settings ({first}, {name}): {wrong}")


def _inside(
    measured: Mapping[str, Measurement | Values],
    pasts: Mapping[str, Sequence[Calibration]],
    accepted: Bool[np.ndarray, "n m"],
    sizes: Mapping[str, Int[np.ndarray, "n 2"]] | None,
) -> Bool[np.ndarray, " n"]:
    """Whether the calibrations' verdict on an image is more than an extrapolation.

    If no model accepts the image, some calibration must have seen its size. If models accept it, one of them must have
    seen its size and its values. The other accepting models stay in the verdict, since nothing speaks against them.
    """
    sized, known = [], []
    for name in measured:
        domains = [calibration.domain for calibration in pasts[name]]
        fits = [np.True_ if sizes is None else domain.holds_sizes(sizes[name]) for domain in domains]
        holds = [fit & domain.holds_values(measured[name]) for fit, domain in zip(fits, domains, strict=True)]
        known.append(np.any(holds, axis=0))
        sized.append(np.any(np.broadcast_arrays(*fits, known[-1])[:-1], axis=0))
    accepts = accepted.any(axis=1)
    return np.where(accepts, (accepted & np.stack(known, axis=1)).any(axis=1), np.stack(sized, axis=1).any(axis=1))


class _Judged(NamedTuple):
    """One model's columns of an `Attribution`."""

    score: np.ndarray
    p_value: np.ndarray
    accepted: np.ndarray
    foreign_p_value: np.ndarray
    likelihood_ratio: np.ndarray


def _under_any(measured: Measurement | Values, pasts: Sequence[Calibration]) -> _Judged:
    """The score under the past with the largest p-value, whether any accepts it, and what holds under every past."""
    found = []
    for calibration in pasts:
        score = np.asarray(calibration.score(measured), dtype=np.float64)
        found.append(
            _Judged(
                score,
                np.asarray(calibration.p_value(score)),
                score < calibration.threshold,  # NaN is below no threshold: what cannot be measured is not accepted
                np.asarray(calibration.foreign_p_value(score)),
                np.asarray(calibration.likelihood_ratio(score)),
            )
        )
    stacked = _Judged(*(np.stack(values) for values in zip(*found, strict=True)))
    best = np.argmax(np.nan_to_num(stacked.p_value), axis=0)[None]
    return _Judged(
        np.take_along_axis(stacked.score, best, axis=0)[0],
        np.take_along_axis(stacked.p_value, best, axis=0)[0],
        np.asarray(stacked.accepted.any(axis=0)),
        stacked.foreign_p_value.max(axis=0),  # NaN where any is: of that past nothing is known
        # Under any one past of a foreign image the ratio is 1 on average, and so the smallest at most 1.
        stacked.likelihood_ratio.min(axis=0),
    )


def holm(p_values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Each row's p-values adjusted by Holm's step-down.

    Reference: `statsmodels.stats.multitest.multipletests(method="holm")`; here against a loop over the definition.
    """
    m = p_values.shape[1]
    order = np.argsort(p_values, axis=1)
    stepped = np.maximum.accumulate(np.take_along_axis(p_values, order, 1) * np.arange(m, 0, -1), axis=1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=1)
    return adjusted


def _holm_over(
    family: Mapping[str, str], models: Sequence[str], p_values: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "n m"]:
    """`holm` with one p-value a family, the largest of its members', for each model."""
    names, of = np.unique([family[name] for name in models], return_inverse=True)
    largest = np.stack([p_values[:, of == k].max(axis=1) for k in range(len(names))], axis=1)
    return holm(largest)[:, of]


def _families(
    measured: Mapping[str, Measurement | Values],
    pasts: Mapping[str, Sequence[Calibration]],
    given: Mapping[str, str] | None,
) -> dict[str, str]:
    """The family of each model: the names of all candidates that share its autoencoder, joined by "|"."""
    if given is not None:
        if missing := [name for name in measured if name not in given]:
            raise CalibrationError(f"families: nothing for {', '.join(missing)}")
        return _joined({name: given[name] for name in measured})
    known = {name: pasts[name][0].protocol.identity for name in measured}
    one: dict[str, str] = {}
    for name in measured:
        alike = [other for other in one if _share(name, other, measured, known)]
        joined = {one[other] for other in alike}
        one = {other: name if first in joined else first for other, first in one.items()} | {name: name}
    return _joined(one)


def _share(a: str, b: str, measured: Mapping[str, Measurement | Values], known: Mapping[str, Identity]) -> bool:
    """Whether two models are one autoencoder: by their weights, or else by measurements that no chance makes equal."""
    if (shared := known[a].shares_family(known[b])) is not None:
        return shared
    x, y = measured[a], measured[b]
    if not isinstance(x, Measurement) or not isinstance(y, Measurement):
        return False
    return all(np.array_equal(p, q, equal_nan=True) for p, q in zip(x, y, strict=True)) and bool(
        np.isfinite(np.asarray(x.ratio)).any()
    )


def _joined(fingerprints: Mapping[str, str]) -> dict[str, str]:
    return {
        name: "|".join(sorted(other for other in fingerprints if fingerprints[other] == mine))
        for name, mine in fingerprints.items()
    }


def _verdict(accepting: list[str], families: dict[str, str]) -> str:
    names = sorted({families[name] for name in accepting})
    if not names:
        return NONE
    return names[0] if len(names) == 1 else f"ambiguous: {', '.join(names)}"

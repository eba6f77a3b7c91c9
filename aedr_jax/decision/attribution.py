"""Which of several models made each image, or none of them.

Two null hypotheses are tested for each model: that the image has nothing to do with its autoencoder, for which nothing
needs to be calibrated (`null`), and, where there is a calibration, that the model made it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Bool, Float, Int

from aedr_jax.autoencoders.names import why_no_name
from aedr_jax.decision.agreement import measured_otherwise
from aedr_jax.decision.calibration import Calibration, pasts_of
from aedr_jax.decision.domain import Domain
from aedr_jax.decision.null import ROUNDING, Null
from aedr_jax.decision.threshold import is_share
from aedr_jax.errors import CalibrationError, CalibrationWarning
from aedr_jax.signal.measurement import Measurement, Values
from aedr_jax.signal.protocol import Identity, deciding

__all__ = [
    "AMBIGUOUS",
    "CAVEAT",
    "NONE",
    "NOT_ASSESSABLE",
    "Attribution",
    "attribute",
    "check_false_names",
    "check_pasts",
    "classes",
    "has_alignment",
    "holm",
]

NONE = "none"
NOT_ASSESSABLE = "not assessable"
AMBIGUOUS = "ambiguous: "  # and then the names
LEAST_LEVEL = 0.1  # own images whose median alignment is nearer to 0 give no scale
CLOSE = 1.0  # errors of a difference of alignments, below which two models are not told apart
CAVEAT = (
    '"none" means: none of these candidates. It does not mean a real photograph: closed services, GANs and '
    "autoencoders that were not among the candidates end there too. A name means: this model, or one that shares its "
    "autoencoder's encoder. A photograph that went through a candidate's autoencoder once looks like that model's own."
)


class Attribution(NamedTuple):
    """Verdicts over m models for n images.

    Attributes:
      models: their names, the order of the columns.
      scores: float [n,m], small where an image belongs.
      p_values: float [n,m]; the null hypothesis of each is "made by this model", so small speaks against it; NaN for a
        model without a calibration.
      accepted: bool [n,m].
      verdicts: n strings: a model, a family "a|b" (models that share one autoencoder), "ambiguous: a, b", "none", or
        "not assessable".
      foreign_p_values: float [n,m]; the null hypothesis of each is "from no decoder that shares an encoder with this
        model's", so small speaks for it. NaN where nothing can be said, and for a model whose measurement has no
        alignment and one of whose calibrations has no validation images.
      likelihood_ratios: float [n,m] (`Calibration.likelihood_ratio`); NaN for a model without validation images.

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
    calibrations: Mapping[str, Calibration | Sequence[Calibration]] | None = None,
    *,
    false_names: float = 0.05,
    null: Null | None = None,
    sizes: Mapping[str, Int[np.ndarray, "n 2"]] | None = None,
    families: Mapping[str, str] | None = None,
    assessable: Bool[np.ndarray, " n"] | None = None,
) -> Attribution:
    """A verdict for each image, with nothing calibrated: every model whose alignment foreign images do not reach.

    A foreign p-value says how many foreign images stand on the grid of a decoder that they do not come from as firmly
    as this image does (`Null`). A model accepts an image if this p-value, adjusted by Holm's step-down over the
    families of candidates, is at most `false_names`. So an image of no candidate that stands like those of one of the
    reference's groups gets a name with probability at most `false_names`, however many candidates there are. (A foreign
    p-value is at least 1 / (N + 1) for a group of N: where that times the number of families exceeds `false_names`, no
    image gets a name.) Of several models that accept an image the one with the lowest
    alignment is named; if another's is within their errors, the verdict is "ambiguous". An image of a model that shares
    an encoder with a candidate stands on the candidate's grid too: a name means "this model, or one with its encoder".

    A calibration refines this: its model also turns away images that are unlike the model's own, p-value <= alpha. As
    a p-value is at least 1 / (n + 1), one on fewer than 19 images turns nothing away at alpha .05; with calibrations of
    all models, alignments are compared in shares of the median of each model's own images.

    Measurements without alignment (the paper's settings, a rival's scores) need calibrations: a model then accepts an
    image if score < threshold, which is where p-value > alpha, and, where all of its calibrations have validation
    images, if its foreign p-value among them passes `false_names` too. At most one family made an image, so the true
    one is missing with probability at most alpha; how often an image of no candidate gets a name is bounded only with
    foreign p-values.

    A model may have several calibrations, one for each past of its images (as they came, saved as JPEG, ...). The past
    of an image is not known, so a null hypothesis is rejected only if it is rejected under every past: both p-values
    are the largest over the pasts, and the likelihood ratio is the smallest. The members of a family share one null
    hypothesis and one p-value.

    Args:
      measured: for each model, the measurement (or a rival's scores) of the same n images, by the settings of its
        calibrations. A measurement does not know its settings: other ones are noticed only where they show in its
        columns (no alignment, another gamma, losses that are not rounded).
      calibrations: for each model, or for some, its calibration, or several for different pasts. The score is then the
        one under the past with the largest p-value. None: for none.
      false_names: the rate at which an image of no candidate may get a name, in (0, 1).
      null: the reference of foreign images; None: the one that ships, which is of the default settings.
      sizes: for each model, height and width of each image as it was measured; None: sizes are not compared.
      families: for each model, a string that names its autoencoder; models with equal strings are one family. None: two
        models are one family if their calibrations are of one autoencoder (`Identity.shares_family`), or, where these
        do not say, if their measurements are equal to the last bit.
      assessable: which images can be judged at all; None: those with a defined score for every model, and those that a
        model accepts although another's alignment says nothing of them. An image is also not assessable if no
        calibration saw its size, or if every model that accepts it does so outside the values that its calibrations saw
        (`domain.Domain`); where alignments decide, neither is asked.

    Raises:
      CalibrationError: on a name that is what a verdict says or that it could not hold ("none", "a|b"), on values that
        are not [n], when models and sizes or families do not match, there are calibrations for what was not measured
        while a model has none (a mistyped name), a model has neither alignment nor calibration, calibrations were made
        with different settings (presets), the numbers of images differ, or `false_names` is outside (0, 1).

    Warns:
      CalibrationWarning: of more families of candidates than the reference can tell at this rate.

    Source of the step-down: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> own = np.linspace(1.0, 1.2, 40)  # any scores that are small where an image belongs, or a `Measurement`
    >>> calibrations = {"a": aedr.calibrate(own, method="mine"), "b": aedr.calibrate(own + 1, method="mine")}
    >>> aedr.attribute({"a": np.array([1.1, 5.0]), "b": np.array([2.1, 5.0])}, calibrations).verdicts
    ('ambiguous: a, b', 'none')
    """
    calibrations = {} if calibrations is None else calibrations
    for what, asked, value in (("measured", measured, "measurement"), ("calibrations", calibrations, "calibration")):
        if not isinstance(asked, Mapping):
            raise CalibrationError(f"{what}: a {type(asked).__name__}; expected a mapping, {{model: {value}}}")
    models = tuple(measured)
    if not models:
        raise CalibrationError("no model to attribute to")
    if wrong := next(filter(None, map(why_no_name, models)), ""):
        raise CalibrationError(wrong)
    for name in models:
        _check_columns(name, measured[name])
    check_false_names(false_names)
    for what, given in (("sizes", sizes), ("families", families)):
        if given is not None and (missing := [name for name in models if name not in given]):
            raise CalibrationError(f"{what}: nothing for {', '.join(missing)}")
    pasts = {name: pasts_of(calibrations.get(name, ())) for name in models}
    if silent := [name for name in models if not pasts[name] and not has_alignment(measured[name])]:
        raise CalibrationError(
            f"no calibration for {', '.join(silent)}, and no alignment in what was measured: measure with the default "
            "settings, or pass calibrations"
        )
    bare = [name for name in models if name not in calibrations]
    if bare and (unknown := [str(name) for name in calibrations if name not in measured]):
        raise CalibrationError(  # a mistyped name; where every model has its own, those of others do no harm
            f"calibrations for {', '.join(unknown)}, which were not measured, and none for {', '.join(bare)}, which "
            "were; call both alike, or leave those calibrations out"
        )
    check_pasts({name: several for name, several in pasts.items() if name in calibrations})
    for name in models:
        _check_measured_alike(name, measured[name], pasts[name])
    reference = Null.shipped() if null is None else null
    judged_by = [_judged(measured[name], pasts[name], reference) for name in models]
    counts = {name: len(one.score) for name, one in zip(models, judged_by, strict=True)}
    counts |= {f"sizes of {name}": len(of_model) for name, of_model in (sizes or {}).items()}
    if len(set(counts.values())) > 1:
        raise CalibrationError(f"different numbers of images: {counts}")
    columns = _Judged(*(np.stack(values, axis=1) for values in zip(*judged_by, strict=True)))
    family = _families(measured, pasts, families)
    aligned = np.array([has_alignment(measured[name]) for name in models])
    known = aligned | np.array([all(c.validation for c in pasts[name]) for name in models])
    _warn_of_too_many({family[models[i]] for i in np.flatnonzero(aligned)}, reference, false_names)
    accepted = columns.accepted & (~known | _significant(columns.foreign_p_value, known, family, models, false_names))
    said = np.isfinite(columns.score)
    # A candidate that says nothing of an image cannot take another's name away; without a name there is no "none".
    judged = said.all(axis=1) | ((said | aligned).all(axis=1) & accepted.any(axis=1))
    if assessable is not None:
        judged &= np.asarray(assessable, bool)
    judged &= _inside(measured, pasts, accepted, sizes)
    standing = _Compared.of(measured, pasts)
    verdicts = tuple(
        _verdict([models[j] for j in np.flatnonzero(row)], family, standing, i) if ok else NOT_ASSESSABLE
        for i, (row, ok) in enumerate(zip(accepted, judged, strict=True))
    )
    return Attribution(
        models,
        columns.score,
        columns.p_value,
        accepted,
        verdicts,
        columns.foreign_p_value,
        columns.likelihood_ratio,
    )


def has_alignment(measured: Measurement | Values) -> TypeGuard[Measurement]:
    """Whether alignments were measured: an error is infinite where nothing can be said, NaN where nobody asked."""
    if not isinstance(measured, Measurement):
        return False
    error = np.asarray(measured.alignment_error)
    return not (error.size and bool(np.isnan(error).all()))


def check_false_names(rate: float) -> None:
    """Refuse a rate that is none: asked before images are scored, not after.

    Raises:
      CalibrationError: outside (0, 1).
    """
    if not is_share(rate):
        raise CalibrationError(f"false names {rate!r}: expected a share in (0, 1)")


def check_pasts(pasts: Mapping[str, Sequence[Calibration]]) -> None:
    """Refuse calibrations that cannot judge together, whatever the images: none of a model, and those of several
    presets, since one measurement an image cannot be right for all of them.

    Args:
      pasts: for each model, its calibrations.

    Raises:
      CalibrationError: naming the model, or both models and the settings in which they differ.
    """
    if empty := [name for name, several in pasts.items() if not several]:
        raise CalibrationError(f"no calibration for {', '.join(empty)}")
    made = [
        (name, c.protocol.settings) for name, several in pasts.items() for c in several if c.protocol.method == "aedr"
    ]
    for name, settings in made[1:]:
        first, firsts = made[0]
        other, config = deciding(firsts, settings)
        if wrong := {k: (other.get(k), config.get(k)) for k in {**other, **config} if other.get(k) != config.get(k)}:
            raise CalibrationError(f"calibrations made with different settings ({first}, {name}): {wrong}")


def _check_columns(name: str, measured: Measurement | Values) -> None:
    """Refuse what has not one value an image, such as a single image's values or what `pmap` gives."""
    for column in measured if isinstance(measured, Measurement) else (measured,):
        if np.ndim(column) != 1 or (kind := np.asarray(column).dtype).kind in "OSU":
            given = f"shape {np.shape(column)}" if np.ndim(column) != 1 else f"type {kind}"
            raise CalibrationError(f"{name}: measured values of {given}; expected [n], one number an image")


def _check_measured_alike(name: str, measured: Measurement | Values, pasts: Sequence[Calibration]) -> None:
    """Refuse a measurement that shows other settings than its calibrations'. Most settings do not show; rows of scores
    know theirs, and are compared where they are judged.
    """
    for calibration in pasts:
        if not isinstance(measured, Measurement) or calibration.protocol.method != "aedr":
            continue
        if wrong := measured_otherwise(measured, calibration.protocol.settings):
            raise CalibrationError(f"{name}: not measured with its calibration's settings: {wrong}")


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
        domains = [calibration.domain for calibration in pasts[name]] or [Domain()]
        fits = [np.True_ if sizes is None else domain.holds_sizes(sizes[name]) for domain in domains]
        holds = [fit & domain.holds_values(measured[name]) for fit, domain in zip(fits, domains, strict=True)]
        known.append(np.any(holds, axis=0))
        sized.append(np.any(np.broadcast_arrays(*fits, known[-1])[:-1], axis=0))
    accepts = accepted.any(axis=1)
    return np.where(accepts, (accepted & np.stack(known, axis=1)).any(axis=1), np.stack(sized, axis=1).any(axis=1))


class _Judged(NamedTuple):
    """One model's columns of an `Attribution`; or all models', stacked."""

    score: np.ndarray
    p_value: np.ndarray
    accepted: np.ndarray
    foreign_p_value: np.ndarray
    likelihood_ratio: np.ndarray


def _judged(measured: Measurement | Values, pasts: Sequence[Calibration], null: Null) -> _Judged:
    """What one model says of each image, before the others are looked at."""
    if not has_alignment(measured):
        return _under_any(measured, pasts)
    standing = np.asarray(measured.standing, np.float64)
    foreign = np.asarray(null.p_value(standing), np.float64)
    if pasts:
        found = _under_any(measured, pasts)
        return found._replace(foreign_p_value=foreign, accepted=found.accepted & ~np.isnan(standing))
    nothing = np.full_like(foreign, np.nan)
    return _Judged(np.asarray(measured.alignment, np.float64), nothing, ~np.isnan(standing), foreign, nothing)


def _under_any(measured: Measurement | Values, pasts: Sequence[Calibration]) -> _Judged:
    """The score under the past with the largest p-value, whether any accepts it, and what holds under every past."""
    found = []
    for calibration in pasts:
        score = np.asarray(calibration.score(measured), dtype=np.float64)
        p = np.asarray(calibration.p_value(score))
        # NaN is below no threshold: what cannot be measured is not accepted. Where alignments decide, a calibration on
        # few images turns nothing away, as no p-value of theirs can reach alpha.
        accepted = p > calibration.alpha if calibration.aligned else score < calibration.threshold
        found.append(
            _Judged(
                score,
                p,
                accepted,
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


def _significant(
    foreign: Float[np.ndarray, "n m"],
    known: Bool[np.ndarray, " m"],
    family: Mapping[str, str],
    models: Sequence[str],
    false_names: float,
) -> Bool[np.ndarray, "n m"]:
    """Which foreign p-values pass the bound, adjusted over the families that have some."""
    found = np.zeros(foreign.shape, bool)
    if known.any():
        names = [name for name, yes in zip(models, known, strict=True) if yes]
        adjusted = _holm_over(family, names, np.nan_to_num(foreign[:, known], nan=1.0))
        found[:, known] = adjusted <= false_names * ROUNDING
    return found


class _Compared(NamedTuple):
    """For each model with alignments, how firmly each image stands on its grid, on one scale, and the error of that."""

    depth: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, measured: Mapping[str, Measurement | Values], pasts: Mapping[str, Sequence[Calibration]]) -> _Compared:
        aligned = {name: m for name, m in measured.items() if has_alignment(m)}
        calibrated = all(pasts[name] and all(past.aligned for past in pasts[name]) for name in aligned)
        # Of several pasts the one under which own images stand most firmly, in whatever order they are given.
        own = {n: min(float(np.median(past.scores)) for past in pasts[n]) if calibrated else -1.0 for n in aligned}
        own = own if all(level < -LEAST_LEVEL for level in own.values()) else dict.fromkeys(own, -1.0)
        depth = {name: np.asarray(m.alignment, np.float64) / own[name] for name, m in aligned.items()}
        error = {name: np.asarray(m.alignment_error, np.float64) / -own[name] for name, m in aligned.items()}
        return cls(depth, error)

    def firmest(self, names: Sequence[str], image: int) -> list[str]:
        """Of the models that accept an image, the one on whose grid it stands most firmly, and those within errors."""
        if any(name not in self.depth for name in names):
            return list(names)
        best = max(names, key=lambda name: self.depth[name][image])

        def apart(name: str) -> bool:
            error = np.hypot(self.error[best][image], self.error[name][image])
            return bool(self.depth[best][image] - self.depth[name][image] > CLOSE * error)

        return [name for name in names if name == best or not apart(name)]


def _warn_of_too_many(families: set[str], null: Null, false_names: float) -> None:
    most = int(false_names * ROUNDING / null.least)
    if len(families) > most:
        message = (
            f"{len(families)} families of candidates: the reference of foreign images can tell {most} at a rate of "
            f"false names of {false_names:g}, so no image gets a name; ask fewer, or allow more false names"
        )
        warnings.warn(message, CalibrationWarning, stacklevel=3)


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
        return _joined({name: given[name] for name in measured})
    known = {name: pasts[name][0].protocol.identity if pasts[name] else Identity(name) for name in measured}
    return _joined(classes(measured, lambda a, b: _share(a, b, measured, known)))


def classes(names: Iterable[str], alike: Callable[[str, str], bool]) -> dict[str, str]:
    """For each name one that stands for its class: names that are alike, and what is alike to one of them, share it.

    >>> from aedr_jax.decision.attribution import classes
    >>> classes(["a", "b", "ab"], lambda one, other: one in other or other in one)
    {'a': 'ab', 'b': 'ab', 'ab': 'ab'}
    """
    one: dict[str, str] = {}
    for name in names:
        joined = {one[other] for other in one if alike(name, other)}
        one = {other: name if first in joined else first for other, first in one.items()} | {name: name}
    return one


def _share(a: str, b: str, measured: Mapping[str, Measurement | Values], known: Mapping[str, Identity]) -> bool:
    """Whether two models are one autoencoder: by their weights, or else by measurements that no chance makes equal."""
    if (shared := known[a].shares_family(known[b])) is not None:
        return shared
    x, y = measured[a], measured[b]
    if not isinstance(x, Measurement) or not isinstance(y, Measurement):
        return False
    said = any(np.isfinite(np.asarray(column)).any() for column in (x.ratio, x.alignment))
    return said and all(np.array_equal(p, q, equal_nan=True) for p, q in zip(x, y, strict=True))


def _joined(fingerprints: Mapping[str, str]) -> dict[str, str]:
    return {
        name: "|".join(sorted(other for other in fingerprints if fingerprints[other] == mine))
        for name, mine in fingerprints.items()
    }


def _verdict(accepting: list[str], families: dict[str, str], compared: _Compared, image: int) -> str:
    firmest = compared.firmest(accepting, image) if len(accepting) > 1 else accepting
    names = sorted({families[name] for name in firmest})
    if not names:
        return NONE
    return names[0] if len(names) == 1 else AMBIGUOUS + ", ".join(names)

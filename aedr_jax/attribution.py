"""Which of several models made each image, or none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from aedr_jax.calibration import Calibration
from aedr_jax.errors import CalibrationError
from aedr_jax.signal import Measurement, Values

__all__ = ["CAVEAT", "NONE", "NOT_ASSESSABLE", "Attribution", "attribute"]

NONE = "none"
NOT_ASSESSABLE = "not assessable"
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
    """

    models: tuple[str, ...]
    scores: Float[np.ndarray, "n m"]
    p_values: Float[np.ndarray, "n m"]
    accepted: Bool[np.ndarray, "n m"]
    verdicts: tuple[str, ...]


def attribute(
    measured: Mapping[str, Measurement | Values],
    calibrations: Mapping[str, Calibration],
    *,
    assessable: Bool[np.ndarray, " n"] | None = None,
) -> Attribution:
    """A verdict for each image.

    Args:
      measured: for each model, the measurement (or a rival's scores) of the same n images.
      calibrations: for each model, its calibration.
      assessable: which images can be judged at all; None: those with a defined score for every model.

    Raises:
      CalibrationError: when models and calibrations do not match, or the numbers of images differ.
    """
    models = tuple(measured)
    if not models:
        raise CalibrationError("no model to attribute to")
    if missing := [name for name in models if name not in calibrations]:
        raise CalibrationError(f"no calibration for {', '.join(missing)}")
    columns = [np.asarray(calibrations[name].score(measured[name]), dtype=np.float64) for name in models]
    if len({column.shape for column in columns}) > 1:
        raise CalibrationError(
            f"different numbers of images: { {m: c.shape for m, c in zip(models, columns, strict=True)} }"
        )
    scores = np.stack(columns, axis=1)
    pairs = list(zip(models, columns, strict=True))
    p_values = np.stack([np.asarray(calibrations[name].p_value(column)) for name, column in pairs], axis=1)
    # A NaN score is below no threshold: whatever cannot be measured is not accepted.
    accepted = np.stack([column < calibrations[name].threshold for name, column in pairs], axis=1)
    judged = [bool(np.isfinite(row).all()) for row in scores]
    if assessable is not None:
        judged = [ok and bool(given) for ok, given in zip(judged, assessable, strict=True)]
    families = _families(models, calibrations)
    verdicts = tuple(
        _verdict([models[j] for j in np.flatnonzero(row)], families) if ok else NOT_ASSESSABLE
        for row, ok in zip(accepted, judged, strict=True)
    )
    return Attribution(models, scores, p_values, accepted, verdicts)


def _families(models: tuple[str, ...], calibrations: Mapping[str, Calibration]) -> dict[str, str]:
    """The family of each model: the names of all candidates whose autoencoder has the same hash, joined by "|"."""
    hashes = {name: calibrations[name].provenance.weights_hash or name for name in models}
    return {name: "|".join(sorted(other for other in models if hashes[other] == hashes[name])) for name in models}


def _verdict(accepting: list[str], families: dict[str, str]) -> str:
    names = sorted({families[name] for name in accepting})
    if not names:
        return NONE
    return names[0] if len(names) == 1 else f"ambiguous: {', '.join(names)}"

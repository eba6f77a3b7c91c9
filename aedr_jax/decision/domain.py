"""Where a calibration can speak: the sizes and values that its belonging images had, with a stated slack.

A threshold on losses holds for images like those that it was made from. An image that shows its subject larger has
smaller losses and more alike neighbouring pixels: photographs of 1024 pixels then look like the own images of a model
that was calibrated on 128. So a signal below the threshold says nothing beyond the sizes, second losses and
homogeneities that were seen. (Where alignments decide there is no such bound: an image is compared with itself.)
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Int

from aedr_jax.signal.measurement import Measurement, Values

__all__ = ["REACH", "STRETCH", "Domain"]

STRETCH = 1.5  # times the largest side seen, and the smallest over it
REACH = 0.25  # of the range of a logarithm, beyond either end


@dataclasses.dataclass(frozen=True)
class Domain:
    """Smallest and largest of what a calibration's belonging images had; None where it was not told.

    Attributes:
      sides: of the images as they were measured, in pixels, widths and heights alike.
      second_loss, homogeneity: what the signal is made of, beside the first loss.
    """

    sides: tuple[int, int] | None = None
    second_loss: tuple[float, float] | None = None
    homogeneity: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            ends = getattr(self, field.name)
            if ends is not None and not (len(ends) == 2 and 0 < ends[0] <= ends[1] < math.inf):
                raise ValueError(f"{field.name} {ends}: expected the smallest and largest of positive numbers")

    @classmethod
    def of(cls, measured: Measurement | Values, sizes: Int[np.ndarray, "n 2"] | None = None) -> Domain:
        """What belonging images had.

        Args:
          measured: a `Measurement`; of a rival's scores nothing but the sizes is known.
          sizes: height and width of each image as it was measured; None: not told.
        """
        sides = None if sizes is None else _ends(sizes, int)
        if not isinstance(measured, Measurement):
            return cls(sides)
        return cls(sides, _ends(measured.second_loss, float), _ends(measured.homogeneity, float))

    def holds_sizes(self, sizes: Int[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """Whether both sides of an image are within `STRETCH` of those seen."""
        if self.sides is None:
            return np.ones(len(sizes), bool)
        low, high = self.sides
        return np.all((sizes >= low / STRETCH) & (sizes <= high * STRETCH), axis=1)

    def holds_values(self, measured: Measurement | Values) -> Bool[np.ndarray, " n"]:
        """Whether second loss and homogeneity are within `REACH` of those seen; True of a rival's scores."""
        if not isinstance(measured, Measurement):
            return np.ones(np.shape(measured), bool)
        return _reached(measured.second_loss, self.second_loss) & _reached(measured.homogeneity, self.homogeneity)

    def why(self, size: tuple[int, int] | None, second_loss: float, homogeneity: float) -> str:
        """What of one image lies outside and what was seen, or ""; `size` is height and width."""
        if size is not None and self.sides is not None and not self.holds_sizes(np.array([size]))[0]:
            low, high = self.sides
            seen = f"{low}×{high}" if low == high else f"sides of {low} to {high}"
            return f"{size[1]}×{size[0]} pixels; calibrated on {seen}: crop it to such a size, or calibrate at this one"
        for what, value, seen_ends in (
            ("second loss", second_loss, self.second_loss),
            ("homogeneity", homogeneity, self.homogeneity),
        ):
            if seen_ends is not None and not _reached(np.array([value]), seen_ends)[0]:
                return f"{what} {value:.3g}; calibrated on {seen_ends[0]:.3g} to {seen_ends[1]:.3g}"
        return ""


def _ends(values: Values | Int[np.ndarray, "n 2"], kind: type) -> tuple | None:
    """Smallest and largest; None where nothing positive and finite spans a range."""
    found = np.asarray(values)
    good = found[np.isfinite(found) & (found > 0)]
    return (kind(good.min()), kind(good.max())) if good.size else None


def _reached(values: Values, ends: tuple[float, float] | None) -> Bool[np.ndarray, " n"]:
    values = np.asarray(values, np.float64)
    if ends is None:
        return np.ones(values.shape, bool)
    low, high = np.log(ends)
    slack = REACH * (high - low)
    logarithms = np.log(np.where(values > 0, values, np.nan))  # NaN, which is not defined, lies nowhere
    return (logarithms >= low - slack) & (logarithms <= high + slack)

"""What images that have nothing to do with an autoencoder score: the reference of the foreign p-value.

The null hypothesis is "from no decoder that shares an encoder with this one". An image's standing, its alignment over
its own standard error, is compared with those of foreign images of many kinds, measured once with several autoencoders
(`benchmarks.null`). Their scores ship; no picture does. The tails differ between the autoencoders of the reference, and
between kinds of images, so a p-value is the largest over the groups of the reference: it bounds the false names
for an image that is exchangeable with those of any one group, exactly. That another autoencoder's foreign images stand
like these is an empirical claim, which docs/decision.md has the figures of.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from functools import cache
from pathlib import Path

import numpy as np

from aedr_jax.decision.threshold import in_place
from aedr_jax.errors import CalibrationError
from aedr_jax.files import whole_file
from aedr_jax.signal.measurement import Values
from aedr_jax.signal.protocol import told_apart

__all__ = ["ROUNDING", "Null"]

FORMAT = "aedr_jax null 1"
SHIPPED = Path(__file__).with_suffix(".json")
ROUNDING = 1 + 1e-6  # p-values are multiples of 1 / (images + 1) in float32: a bound that one meets exactly is met


@dataclasses.dataclass(frozen=True)
class Null:
    """Standings of foreign images, in groups.

    Attributes:
      groups: for each group its name and the sorted standings of its images.

    Raises:
      CalibrationError: on a group that is empty, or whose standings are not sorted and finite.

    >>> null = aedr.Null({"photographs": tuple(np.linspace(-2.5, 2.5, 99))})
    >>> null.p_value(np.array([-8.0, 0.0]))
    array([0.01, 0.51], dtype=float32)
    """

    groups: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if not self.groups:
            raise CalibrationError("a null without a group of foreign images")
        for name, standings in self.groups.items():
            values = np.asarray(standings, np.float64)
            if not values.size or not np.isfinite(values).all() or (np.diff(values) < 0).any():
                raise CalibrationError(f"null, {name}: expected finite standings, sorted")

    def p_value(self, standings: Values) -> Values:
        """The largest over the groups of (1 + number of standings <= s) / (1 + size of the group). jit-able;
        NumPy's of a NumPy array.

        NaN where the standing is.
        """
        xp, found = in_place(standings)
        found = found if found.dtype == np.float64 else found.astype(np.float32)
        counts = [
            (1 + xp.searchsorted(xp.asarray(group, found.dtype), found, side="right")).astype(found.dtype)
            / (1 + len(group))
            for group in self.groups.values()
        ]
        return xp.where(xp.isnan(found), xp.asarray(np.nan, found.dtype), xp.stack(counts).max(0))

    def threshold(self, rate: float) -> float:
        """The standing below which p-values are at most a rate: accepted is what lies below it, as everywhere.

        Of each group so many images may stand as low as the rate allows; the first beyond them is the group's, and the
        lowest of the groups' counts. -inf for a rate that a group cannot tell, inf for one that all images meet.

        >>> aedr.Null({"photographs": tuple(np.linspace(-2.5, 2.5, 99))}).threshold(0.01)
        -2.5
        """
        firsts = []
        for group in self.groups.values():
            below = math.floor(rate * ROUNDING * (1 + len(group))) - 1
            firsts.append(-math.inf if below < 0 else math.inf if below >= len(group) else group[below])
        return float(np.float32(min(firsts)))  # p-values compare float32

    @property
    def least(self) -> float:
        """The least p-value that it can tell."""
        return 1.0 / (1.0 + min(map(len, self.groups.values())))

    def digest(self) -> str:
        """sha256 over the groups and their standings: verdicts by different references are told apart."""
        return told_apart({name: list(group) for name, group in self.groups.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        groups = {name: [round(value, 4) for value in group] for name, group in self.groups.items()}
        with whole_file(Path(path)) as partial:
            partial.write_text(json.dumps({"format": FORMAT, "groups": groups}) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Null:
        """Read what `save` wrote.

        Raises:
          CalibrationError: with the file, where it is none.
        """
        try:
            values = json.loads(Path(path).read_text())
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']!r}, expected {FORMAT!r}")
            return cls({str(name): tuple(map(float, group)) for name, group in values["groups"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CalibrationError(f"{path}: no null that can be read: {error}") from error
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error

    @classmethod
    @cache
    def shipped(cls) -> Null:
        """The one that comes with the package."""
        return cls.load(SHIPPED)

"""Histograms with one value marked, as numbers that a template draws: no text of a stranger is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Bar", "Histogram", "histogram"]

WIDTH, HEIGHT = 480.0, 120.0  # of the drawing, in its own units
BINS = 40


class Bar(NamedTuple):
    """A bar's left upper corner and size."""

    x: float
    y: float
    width: float
    height: float


class Histogram(NamedTuple):
    """A histogram in a drawing of 480 by 120, 0 below.

    Attributes:
      bars: of the values.
      marker: where the marked value stands from the left.
      limit: where a second value stands, such as a threshold; None for none.
      ticks: (from the left, text) of round numbers.
      total: how many values there are.
      value: the marked one.
    """

    bars: tuple[Bar, ...]
    marker: float
    limit: float | None
    ticks: tuple[tuple[float, str], ...]
    total: int
    value: float


def histogram(values: Sequence[float], marked: float, limit: float | None = None) -> Histogram:
    """The histogram of values, wide enough to show a marked one too.

    Args:
      values: finite ones, at least one.
      marked: finite.
      limit: marked otherwise; None, or what is not finite, for nothing.
    """
    known = np.asarray(values, np.float64)
    limit = limit if limit is not None and np.isfinite(limit) else None
    every = [known.min(), known.max(), marked, *([] if limit is None else [limit])]
    low, high = min(every), max(every)
    margin = 0.03 * (high - low) or 1.0
    low, high = low - margin, high + margin
    counts, edges = np.histogram(known, bins=BINS, range=(low, high))

    def across(value: float) -> float:
        return round(float((value - low) / (high - low) * WIDTH), 2)

    tallest = counts.max()
    bars = tuple(
        Bar(
            across(left),
            round(HEIGHT * (1 - n / tallest), 2),
            across(right) - across(left),
            round(HEIGHT * n / tallest, 2),
        )
        for n, left, right in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if n
    )
    step = _step((high - low) / 6)
    rounds = [round(i * step, 10) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
    ticks = tuple((across(value), f"{value:g}") for value in rounds)
    return Histogram(bars, across(marked), None if limit is None else across(limit), ticks, len(known), float(marked))


def _step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below a rough step."""
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))

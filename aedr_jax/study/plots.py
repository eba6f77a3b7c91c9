"""Plots of an evaluation, from its scores alone. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aedr_jax.errors import SourceError
from aedr_jax.rivals.registry import DEFAULT, PAPER
from aedr_jax.study.comparison import REAL, Decision, Scores, Study, study

__all__ = ["check_plots", "write_plots"]

EXTRA = 'pip install "aedr-jax[plots]"'
OWN, OTHER, LINE = "#2a6f97", "#e07a5f", "#333333"
COLOURS = {DEFAULT: OWN, PAPER: OTHER}  # of contenders; grey for others
ACROSS = 3  # panels
FEWEST = 0.005  # false positives at the left end of a ROC curve, which is where good curves differ
MARKERS = "osD^vP"


def check_plots() -> None:
    """Ask for matplotlib before the long work, not after.

    Raises:
      SourceError: where it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SourceError(f"plots are drawn with matplotlib: {EXTRA}, or --no-plots ({error})") from error


def write_plots(
    scores: Scores, found: Mapping[str, Sequence[Mapping[str, Any]]], out: str | os.PathLike[str]
) -> list[Path]:
    """`OUT/NAME.png` of each plot that the scores allow.

    Args:
      scores: from `comparison.read_scores`.
      found: from `tables.tables`.
      out: the folder.

    Raises:
      SourceError: without matplotlib.
    """
    check_plots()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done = study({key: cell for key, cell in scores.items() if key[1] in (PAPER, DEFAULT)})
    shown = [d for (name, _), d in done.decided.items() if name == PAPER]
    drawn: dict[str, tuple[int, Callable[[Any, int], None]]] = {
        "ratio": (len(shown), lambda axis, i: _histogram(axis, shown[i])),
        "roc": (len(done.models), lambda axis, i: _roc(axis, done, done.models[i])),
        "confusion": (_any(found["attribution"]), lambda axis, _: _confusion(axis, found["attribution"])),
        "alpha": (len(_methods(found["alpha"])), lambda axis, i: _curves(axis, found["alpha"], i, "alpha", log=True)),
        "robustness": (
            len(_methods(found["robustness"])),
            lambda axis, i: _curves(axis, found["robustness"], i, "processing"),
        ),
        "seconds": (1, lambda axis, _: _against_seconds(axis, found)),
    }
    return [_figure(out / f"{name}.png", panels, draw) for name, (panels, draw) in drawn.items() if panels]


def _any(records: Sequence[Mapping[str, Any]]) -> int:
    return int(any("note" not in record for record in records))


def _methods(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(record["method"] for record in records if "note" not in record))


def _figure(path: Path, panels: int, draw: Callable[[Any, int], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, ACROSS)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.6 * columns if panels > 1 else 8, 4.2 * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, axis in enumerate(axes[:panels]):
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis, i)
    for axis in axes[panels:]:
        axis.set_visible(False)
    figure.savefig(path)
    return path


def _histogram(axis: Any, decision: Decision) -> None:
    """The paper's signal of own and of all other test images, with the threshold."""
    from matplotlib.ticker import LogLocator, NullLocator

    others = np.concatenate(list(decision.others.values()))
    low, high = np.percentile(np.concatenate([decision.own, others]), [0.5, 99.5])
    bins = np.geomspace(low, high, 40)
    for values, colour, name in ((decision.own, OWN, "own"), (others, OTHER, "other")):
        # Shares of images, for a density would be lower where bins are wider; what lies further out is in the end bins.
        shares = np.full(len(values), 1 / len(values))
        label = f"{name}, n = {len(values)}"
        axis.hist(values.clip(low, high), bins, weights=shares, color=colour, alpha=0.7, label=label)
    axis.axvline(decision.threshold, color=LINE, linestyle="--", label="threshold")
    axis.set(xscale="log", title=decision.model, xlabel="ratio · homogeneity", yticks=[])
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8)


def _roc(axis: Any, done: Study, model: str) -> None:
    for name in [name for name, of in done.decided if of == model]:
        decision = done.decided[name, model]
        for source, style in ((REAL, "-"), ("models", ":")):
            chosen = [v for s, v in decision.others.items() if (s == REAL) == (source == REAL)]
            if chosen:
                others = np.sort(np.concatenate(chosen))
                # Own images below the smallest of the others, the second smallest, ...: with 0, 1, ... accepted.
                taken = np.searchsorted(np.sort(decision.own), others) / len(decision.own)
                places = np.append(np.arange(len(others)) / len(others), 1.0).clip(FEWEST)
                colour = COLOURS.get(name, "#999999")
                label = f"{name}, {source}"
                axis.step(places, np.append(taken, 1.0), style, where="post", color=colour, label=label)
    axis.set(title=model, xlabel="others accepted", ylabel="own accepted")
    axis.set(xscale="log", xlim=(FEWEST, 1), ylim=(0, 1.01))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _confusion(axis: Any, records: Sequence[Mapping[str, Any]]) -> None:
    sources, verdicts = (list(dict.fromkeys(r[name] for r in records)) for name in ("source", "verdict"))
    shares = np.zeros((len(sources), len(verdicts)))
    for record in records:
        shares[sources.index(record["source"]), verdicts.index(record["verdict"])] = record["share"]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axis.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else LINE)
    axis.set_xticks(range(len(verdicts)), verdicts, rotation=30, ha="right")
    axis.set_yticks(range(len(sources)), sources)
    axis.set(xlabel="verdict", ylabel="source")


def _curves(axis: Any, records: Sequence[Mapping[str, Any]], panel: int, along: str, *, log: bool = False) -> None:
    """Accuracy along one column, a panel for each method and a line for each model."""
    methods = _methods(records)
    for i, model in enumerate(dict.fromkeys(r["model"] for r in records)):
        points = [(r[along], r["accuracy"]) for r in records if (r["method"], r["model"]) == (methods[panel], model)]
        # jpeg90 and jpeg80 are joined, and webp80 stands apart.
        for j, (_, some) in enumerate(itertools.groupby(points, lambda point: str(point[0]).rstrip(".0123456789"))):
            label = None if j else model
            axis.plot(*zip(*some, strict=True), marker=".", color=f"C{i}", label=label)
    lowest = min(r["accuracy"] for r in records)
    axis.set(title=methods[panel], xlabel=along, ylabel="accuracy", ylim=(min(lowest - 0.03, 0.9), 1.01))
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    else:
        axis.tick_params(axis="x", rotation=90, labelsize=8)
    if panel == len(methods) - 1:
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _against_seconds(axis: Any, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    accuracy = {r["method"]: r for r in found["summary"] if r.get("against") == "all"}
    timed = [method for method in dict.fromkeys(r["method"] for r in found["table3_seconds"]) if method in accuracy]
    # In the legend's order from top to bottom: names beside the points would cover each other.
    for i, method in enumerate(sorted(timed, key=lambda method: -accuracy[method]["accuracy"])):
        seconds = np.mean([r["seconds_an_image"] for r in found["table3_seconds"] if r["method"] == method])
        record = accuracy[method]
        height = [[record["accuracy"] - record["accuracy_low"]], [record["accuracy_high"] - record["accuracy"]]]
        marker = MARKERS[i // 10 % len(MARKERS)]
        axis.errorbar(
            seconds, record["accuracy"], np.clip(height, 0, None), fmt=marker, color=f"C{i % 10}", label=method
        )
    axis.set(xscale="log", xlabel="seconds an image", ylabel="mean accuracy, 95 % interval")
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))

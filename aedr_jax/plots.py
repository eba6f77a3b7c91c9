"""Plots of an evaluation, from its scores alone. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aedr_jax.comparison import DEFAULT, REAL, Decision, Scores, Study, study
from aedr_jax.errors import SourceError

__all__ = ["check_plots", "write_plots"]

EXTRA = 'pip install "aedr-jax[plots]"'
OWN, OTHER, LINE = "#2a6f97", "#e07a5f", "#333333"


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
      found: from `report.tables`.
      out: the folder.

    Raises:
      SourceError: without matplotlib.
    """
    check_plots()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done = study({key: cell for key, cell in scores.items() if key[1] in ("aedr", DEFAULT)})
    shown = [d for (rule, _), d in done.decided.items() if rule == "aedr"]
    drawn: dict[str, tuple[int, Callable[[Any, int], None]]] = {
        "ratio": (len(shown), lambda axis, i: _histogram(axis, shown[i])),
        "roc": (len(done.models), lambda axis, i: _roc(axis, done, done.models[i])),
        "confusion": (_any(found["attribution"]), lambda axis, _: _confusion(axis, found["attribution"])),
        "alpha": (_any(found["alpha"]), lambda axis, _: _curves(axis, found["alpha"], "alpha", log=True)),
        "robustness": (_any(found["robustness"]), lambda axis, _: _curves(axis, found["robustness"], "processing")),
        "seconds": (1, lambda axis, _: _against_seconds(axis, found)),
    }
    return [_figure(out / f"{name}.png", panels, draw) for name, (panels, draw) in drawn.items() if panels]


def _any(records: Sequence[Mapping[str, Any]]) -> int:
    return int(any("note" not in record for record in records))


def _figure(path: Path, panels: int, draw: Callable[[Any, int], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels if panels > 1 else 8, 4.2), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for i, axis in enumerate(axes):
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis, i)
    figure.savefig(path)
    return path


def _histogram(axis: Any, decision: Decision) -> None:
    """The paper's signal of own and of all other test images, with the threshold."""
    others = np.concatenate(list(decision.others.values()))
    low, high = np.percentile(np.concatenate([decision.own, others]), [0.5, 99.5])
    bins = np.geomspace(low, high, 40)
    for values, colour, name in ((decision.own, OWN, "own"), (others, OTHER, "other")):
        axis.hist(values, bins, color=colour, alpha=0.7, density=True, label=f"{name}, n = {len(values)}")
    axis.axvline(decision.calibration.threshold, color=LINE, linestyle="--", label="threshold")
    axis.set(xscale="log", title=decision.model, xlabel="ratio · homogeneity", yticks=[])
    axis.legend(frameon=False, fontsize=8)


def _roc(axis: Any, done: Study, model: str) -> None:
    for rule in [rule for rule, of in done.decided if of == model]:
        decision = done.decided[rule, model]
        for source, style in ((REAL, "-"), ("models", ":")):
            chosen = [v for s, v in decision.others.items() if (s == REAL) == (source == REAL)]
            if chosen:
                others = np.sort(np.concatenate(chosen))
                taken = np.searchsorted(np.sort(decision.own), others) / len(decision.own)
                colour = OWN if rule == DEFAULT else OTHER
                axis.step(np.arange(len(others)) / len(others), taken, style, color=colour, label=f"{rule}, {source}")
    axis.set(title=model, xlabel="others accepted", ylabel="own accepted", xlim=(0, 1), ylim=(0, 1.01))
    axis.legend(frameon=False, fontsize=8)


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


def _curves(axis: Any, records: Sequence[Mapping[str, Any]], along: str, *, log: bool = False) -> None:
    """Accuracy along one column, a line for each method and model."""
    for method, style in (("aedr", ":"), (DEFAULT, "-")):
        for i, model in enumerate(dict.fromkeys(r["model"] for r in records if r["method"] == method)):
            points = [(r[along], r["accuracy"]) for r in records if (r["method"], r["model"]) == (method, model)]
            axis.plot(*zip(*points, strict=True), style, marker=".", color=f"C{i}", label=f"{model}, {method}")
    if log:
        axis.set_xscale("log")
    axis.tick_params(axis="x", rotation=0 if log else 60)
    axis.set(xlabel=along, ylabel="accuracy")
    axis.legend(frameon=False, fontsize=7, ncols=2)


def _against_seconds(axis: Any, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    accuracy = {r["method"]: r for r in found["summary"] if r.get("against") == "all"}
    for method in dict.fromkeys(r["method"] for r in found["table3_seconds"]):
        if method in accuracy:
            seconds = np.mean([r["seconds_an_image"] for r in found["table3_seconds"] if r["method"] == method])
            record = accuracy[method]
            height = [[record["accuracy"] - record["accuracy_low"]], [record["accuracy_high"] - record["accuracy"]]]
            axis.errorbar(seconds, record["accuracy"], np.clip(height, 0, None), fmt="o", color=OWN)
            axis.annotate(method, (seconds, record["accuracy"]), (4, 4), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", xlabel="seconds an image", ylabel="mean accuracy, 95 % interval")

"""The tables of docs/results.md, condensed from those that `aedr evaluate` wrote.

    aedr evaluate DIR --out RESULTS
    python -m benchmarks.results RESULTS

Everything is read from RESULTS/tables and RESULTS/scores.parquet; nothing is measured or chosen here. A figure in
brackets is a 95 % interval.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from aedr_jax.rivals.registry import DEFAULT, PAPER
from aedr_jax.study.comparison import REAL
from benchmarks.matrix import print_table, related

SHOWN = (PAPER, DEFAULT)
SIGNED = "rdd-mse"
Record = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS")
    results = parser.parse_args().results
    tables = results / "tables"
    found = {file.stem: list(csv.DictReader(file.read_text().splitlines())) for file in sorted(tables.glob("*.csv"))}
    print_methods(found["summary"])
    print_unrelated(found["table1_models"])
    print_same_images(found["same_images"])
    print_by_model([*found["table1_models"], *found["table2_real"]])
    for method in SHOWN:
        print_pairs(method, [*found["table1_models"], *found["table2_real"]])
    print_seconds(found["table3_seconds"])
    print_autoencoders(found["table4_autoencoders"])
    for name in ("losses", "homogeneity"):
        print_variants(name, found[name])
    print_along("alpha", "Accuracy against alpha (%), not picked", found["alpha"])
    print_along("n_calibration", "Accuracy against calibration images (%), alpha .05", found["calibration_size"])
    print_along("processing", "Accuracy on processed images (%)", found["robustness"])
    print_verdicts(found["attribution"])
    print_control(found["control"])
    chosen = [("method", "==", SIGNED), ("processing", "==", "none")]
    print_signs(SIGNED, pq.read_table(results / "scores.parquet", filters=chosen).to_pylist())


def print_methods(records: Sequence[Record]) -> None:
    """Each method over pairs of models, against photographs, and over both."""
    methods = list(dict.fromkeys(r["method"] for r in records))
    cells = {(r["method"], r["against"]): r for r in records}
    rows = []
    for method in methods:
        if (method, "all") not in cells:
            rows.append([method, cells[method, ""]["note"], *[""] * 7])
            continue
        both = cells[method, "all"]
        accuracies = [percent(cells.get((method, against)), "accuracy") for against in ("models", REAL)]
        others = [share(both, metric) for metric in ("auc", "ap", "tpr_at_1", "tpr_at_5")]
        rows.append([method, *accuracies, *others, both["pairs"], both["n_own"]])
    header = ["method", "accuracy, pairs of models", "against photographs", "AUC", "AP", "TPR at 1 % FPR", "at 5 %"]
    print_table("Every method: means over the cells, accuracy in %", [*header, "cells", "own images tested"], rows)


def print_unrelated(records: Sequence[Record]) -> None:
    """Mean accuracy over pairs of models that share no encoder."""
    apart = [r for r in records if not related(r["model"], r["other"])]
    rows = [[method, f"{mean(of, 'accuracy'):.1f}", str(len(of))] for (method,), of in group(apart, "method").items()]
    print_table("Accuracy over pairs of models that share no encoder (%)", ["method", "accuracy", "pairs"], rows)


def print_same_images(records: Sequence[Record]) -> None:
    rows = [
        [r["images_of"], r["method"], percent(r, "accuracy"), share(r, "auc"), r["pairs"], r["n_own"]]
        for r in records
        if "images_of" in r
    ]
    header = ["images of", "method", "accuracy (%)", "AUC", "cells", "own images tested"]
    print_table("The dear methods beside AEDR on the very images that they scored", header, rows)


def print_by_model(records: Sequence[Record]) -> None:
    """Mean accuracy of each candidate over all others, a column for each method that scored all candidates."""
    models = list(dict.fromkeys(r["model"] for r in records))
    of = group(records, "method", "model")
    rows = [
        [method, *(f"{mean(of[method, m], 'accuracy'):.1f}" if (method, m) in of else "-" for m in models)]
        for method in dict.fromkeys(r["method"] for r in records)
    ]
    print_table("Accuracy by candidate, mean over the other models and photographs (%)", ["method", *models], rows)


def print_pairs(method: str, records: Sequence[Record]) -> None:
    chosen = {(r["model"], r["other"]): r for r in records if r["method"] == method}
    others = list(dict.fromkeys(other for _, other in chosen))
    rows = [
        [model, *(percent(chosen.get((model, other)), "accuracy") for other in others)]
        for model in dict.fromkeys(model for model, _ in chosen)
    ]
    print_table(f"{method}: each candidate against each other source, accuracy (%)", ["candidate", *others], rows)


def print_seconds(records: Sequence[Record]) -> None:
    rows = []
    for method, of in group(records, "method").items():
        seconds, times, compiling = (
            [float(r[name]) for r in of] for name in ("seconds_an_image", "times_aedr", "seconds_to_compile")
        )
        rows.append(
            [*method, f"{np.mean(seconds):.3g}", f"{np.mean(times):.3g}", f"{np.mean(compiling):.1f}", str(len(of))]
        )
    header = ["method", "seconds an image", "times AEDR's", "seconds to compile", "models"]
    print_table(
        "Seconds: mean over the models of the median over images; \"times AEDR's\": mean of the models' own ratios; "
        "compiling apart",
        header,
        rows,
    )


def print_autoencoders(records: Sequence[Record]) -> None:
    designs = list(dict.fromkeys(r["autoencoder"] for r in records))
    of = {(r["method"], r["autoencoder"]): r for r in records}
    methods = dict.fromkeys(r["method"] for r in records)
    rows = [[method, *(percent(of.get((method, design)), "accuracy") for design in designs)] for method in methods]
    print_table("Accuracy by the design of the candidate's autoencoder (%)", ["method", *designs], rows)


def print_variants(name: str, records: Sequence[Record]) -> None:
    models = list(dict.fromkeys(r["model"] for r in records if r["model"]))
    of = {(r["variant"], r["model"]): r for r in records}
    rows = []
    for variant in dict.fromkeys(r["variant"] for r in records):
        measured = [of.get((variant, model)) for model in models]
        if not any(measured):
            rows.append([variant, of[variant, ""]["note"], *[""] * len(models)])
            continue
        whole = [float(r["accuracy"]) for r in measured if r]
        areas = [float(r["auc"]) for r in measured if r]
        rows.append(
            [variant, *(percent(r, "accuracy") for r in measured), f"{100 * np.mean(whole):.1f}; {np.mean(areas):.4f}"]
        )
    print_table(f"Ablation of the {name}: accuracy (%)", [name, *models, "mean; AUC"], rows)


def print_along(along: str, title: str, records: Sequence[Record]) -> None:
    """A column for each method: mean accuracy over the candidates."""
    records = [r for r in records if r.get("method")]
    methods = [method for method in SHOWN if any(r["method"] == method for r in records)]
    of = group(records, along, "method")
    places = dict.fromkeys(r[along] for r in records)
    rows = []
    for place in places:
        figures = []
        for method in methods:
            if chosen := of.get((place, method)):
                own = f"{100 * np.mean([float(r['tpr']) for r in chosen]):.1f}"
                figures.append(f"{mean(chosen, 'accuracy'):.1f} (own accepted {own}); {len(chosen)}")
            else:
                figures.append("-")
        rows.append([place, *figures])
    print_table(title, [along, *(f"{method}; models" for method in methods)], rows)


def print_verdicts(records: Sequence[Record]) -> None:
    verdicts = list(dict.fromkeys(r["verdict"] for r in records))
    shares = {(r["source"], r["verdict"]): float(r["share"]) for r in records}  # of a verdict that none has: no record
    rows = [
        [f"{source} ({n})", *(f"{shares.get((source, verdict), 0.0):.2f}" for verdict in verdicts)]
        for source, n in dict.fromkeys((r["source"], r["n"]) for r in records)
    ]
    print_table(
        "Verdicts of the default over all candidates, nothing calibrated, false names .05",
        ["made by (images)", *verdicts],
        rows,
    )


def print_control(records: Sequence[Record]) -> None:
    of = group(records, "by", "model")
    names = dict.fromkeys(r["by"] for r in records)
    models = dict.fromkeys(r["model"] for r in records)
    rows = []
    for name in names:
        photographs = [r for r in records if r["by"] == name and r["other"] == REAL]
        rows.append(
            [name, *(f"{mean(of[name, m], 'accuracy'):.1f}" for m in models), f"{mean(photographs, 'accuracy'):.1f}"]
        )
    print_table("Control: accuracy by the files alone (%)", ["by", *models, "all against photographs"], rows)


def print_signs(method: str, records: Sequence[dict[str, Any]]) -> None:
    """How far a method goes without calibration, if 0 is its threshold."""
    of = group(records, "model", "source")
    models, sources = (dict.fromkeys(key[i] for key in of) for i in (0, 1))
    rows = [
        [model, *(f"{np.mean([r['score'] < 0.0 for r in of[model, source]]):.3f}" for source in sources)]
        for model in models
    ]
    print_table(f"{method}: share of images with a score below 0, nothing calibrated", ["candidate", *sources], rows)


def group(records: Sequence[dict[str, Any]], *names: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(tuple(record[name] for name in names), []).append(record)
    return found


def mean(records: Sequence[Record], metric: str) -> float:
    return 100 * float(np.mean([float(r[metric]) for r in records]))


def figure(record: Record | None, metric: str, scale: float, form: str) -> str:
    if not record or not record[metric]:
        return "-"
    value, low, high = (format(scale * float(record[metric + end]), form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def percent(record: Record | None, metric: str) -> str:
    return figure(record, metric, 100, ".1f")


def share(record: Record, metric: str) -> str:
    return figure(record, metric, 1, ".3f")


if __name__ == "__main__":
    main()

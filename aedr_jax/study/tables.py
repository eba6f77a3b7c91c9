"""The tables of the paper's experiments and a few more, as CSV and Markdown; a record is a row, n stands in each.

All of it follows from a `comparison.Study`, and so from the Parquet of scores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from aedr_jax.decision.attribution import NONE, NOT_ASSESSABLE, attribute, has_alignment
from aedr_jax.decision.threshold import threshold
from aedr_jax.decision.validation import ALPHAS
from aedr_jax.rivals.registry import DEFAULT, PAPER, PERCEPTUAL, RIVALS
from aedr_jax.scoring.tables import for_terminal, to_markdown, write_csv
from aedr_jax.signal.measurement import Measurement
from aedr_jax.study.comparison import (
    HALVES,
    REAL,
    Columns,
    Scores,
    Study,
    contenders,
    decide,
    half_of,
    study,
)
from aedr_jax.study.metrics import balanced_accuracy, interval

__all__ = ["tables", "write_tables"]

Records = list[dict[str, Any]]

SHOWN = (PAPER, DEFAULT)  # where a table has room for few
SIZES = (10, 20, 50, 100, 200, 500)
REPEATS = 50
LOSSES = {"MSE": PAPER, "MAE": "aedr-mae", "SSIM": "aedr-ssim", "LPIPS": f"aedr-{PERCEPTUAL}"}
HOMOGENEITIES = {"off": f"{PAPER} without H", "paper": PAPER, "official": "aedr-official"}
NO_LPIPS = "absent: no weights of LPIPS were given (--lpips), and nothing stands in for them"
NOT_CALIBRATED = "absent: too few of these images have a score to calibrate it"
NOT_MEASURED = "absent: not measured in this run"


def tables(scores: Scores) -> dict[str, Records]:
    """Every table by its name, from what `comparison.read_scores` gives."""
    done = study(scores)
    return {
        "summary": _summary(done),
        "same_images": _same_images(scores),
        "table1_models": _pairs(done, real=False),
        "table2_real": _pairs(done, real=True),
        "table3_seconds": _seconds(done),
        "table4_autoencoders": _autoencoders(done),
        "losses": _variants(done, LOSSES),
        "homogeneity": _variants(done, HOMOGENEITIES),
        "alpha": _alphas(done),
        "calibration_size": _sizes(done),
        "robustness": _robustness(scores),
        "attribution": _attributions(done),
        "control": _control(done),
    }


def _summary(done: Study) -> Records:
    """Each method's mean over all pairs, over pairs of models, and against photographs."""
    records: Records = []
    for name in dict.fromkeys(name for name, _ in done.decided):
        cells = [key for key in done.drawn if key[0] == name]
        real = [key for key in cells if key[2] == REAL]
        for against, keys in (("all", cells), ("models", [k for k in cells if k not in real]), (REAL, real)):
            if keys:
                records.append({"method": name, "against": against, "pairs": len(keys), **done.record(keys)})
    there = {name for name, _ in done.decided}
    absent = {f"{r.name}-{PERCEPTUAL}": NO_LPIPS for r in RIVALS.values() if r.distance and f"{r.name}-mse" in there}
    for rival in [rival for rival in RIVALS.values() if rival.name in there]:
        for name in [f"{rival.name}-{ending}" for ending in rival.resized]:
            absent[name] = f"absent: not asked for (--methods {name}); {rival.resized_note}"
    absent |= dict.fromkeys((contender.name for contender in contenders(done.scores)), NOT_CALIBRATED)
    return records + [{"method": name, "note": note} for name, note in absent.items() if name not in there]


def _same_images(scores: Scores) -> Records:
    """The dear methods, each beside AEDR on the very images that it scored, in the same halves."""
    records: Records = []
    sizes: dict[str, int] = {}
    for (_, method, _, _), cell in scores.items():
        sizes[method] = max(sizes.get(method, 0), len(cell["image"]))
    for dear in [method for method, size in sizes.items() if size < max(sizes.values())]:
        pairs = {key[2:]: cell for key, cell in scores.items() if key[:2] == ("none", dear)}
        chosen = {
            ("none", method, *pair): _of_images(scores["none", method, *pair], cell)
            for method in (*SHOWN, dear)
            for pair, cell in pairs.items()
            if ("none", method, *pair) in scores
        }
        done = study(chosen)
        for name in [contender.name for contender in contenders(chosen)]:
            keys = [key for key in done.drawn if key[0] == name]
            record = {"pairs": len(keys), **done.record(keys)} if keys else {"note": NOT_CALIBRATED}
            records.append({"images_of": dear, "method": name, **record})
    return records or [{"note": "absent: every method scored every image"}]


def _of_images(cell: Columns, wanted: Columns) -> Columns:
    """The rows of the images that are wanted, in that order and those halves."""
    places = {image: i for i, image in enumerate(cell["image"])}
    chosen = [places[image] for image in wanted["image"]]
    return {name: values[chosen] for name, values in cell.items()} | {"half": wanted["half"]}


def _pairs(done: Study, *, real: bool) -> Records:
    records: Records = []
    for key in done.drawn:
        name, model, source = key
        if (source == REAL) == real:
            decision = done.decided[name, model]
            tau = decision.threshold
            record = {"method": name, "model": model, "other": source, **done.record([key]), "tpr": decision.tpr}
            record |= {"tnr": float((decision.others[source] >= tau).mean()), "threshold": tau}
            records.append(record | {"alpha": decision.alpha, "alpha_picked": decision.picked})
    return records


def _seconds(done: Study) -> Records:
    """Medians over timed batches: the cheap methods are timed on one batch of each shape, the dear ones on all."""
    records: Records = []
    for method in dict.fromkeys(method for _, method, _, _ in done.scores):
        for model in done.models:
            cells = [c for (p, m, x, _), c in done.scores.items() if (p, m, x) == ("none", method, model)]
            if cells:
                seconds, compiling = (np.concatenate([c[n] for c in cells]) for n in ("seconds", "compile_seconds"))
                record = {"method": method, "model": model, "seconds_an_image": float(np.median(seconds))}
                record |= {"seconds_to_compile": float(np.max(compiling)), "batches_timed": len(np.unique(seconds))}
                records.append(record | {"n": len(seconds)})
    of_aedr = {r["model"]: r["seconds_an_image"] for r in records if r["method"] == PAPER}
    return [r | {"times_aedr": r["seconds_an_image"] / of_aedr.get(r["model"], np.nan)} for r in records]


def _autoencoders(done: Study) -> Records:
    designs = {model: str(cell["autoencoder"][0]) for (_, _, model, _), cell in done.scores.items()}
    records: Records = []
    for name in dict.fromkeys(name for name, _ in done.decided):
        for design in dict.fromkeys(designs.values()):
            keys = [key for key in done.drawn if key[0] == name and designs[key[1]] == design]
            if keys:
                of = ", ".join(dict.fromkeys(model for _, model, _ in keys))
                records.append({"method": name, "autoencoder": design, "models": of, **done.record(keys)})
    return records


def _variants(done: Study, variants: Mapping[str, str]) -> Records:
    records: Records = []
    for variant, name in variants.items():
        models = [model for decided, model in done.decided if decided == name]
        for model in models:
            keys = [key for key in done.drawn if key[:2] == (name, model)]
            records.append({"variant": variant, "method": name, "model": model, **done.record(keys)})
        if not models:
            records.append({"variant": variant, "note": NO_LPIPS if variant == "LPIPS" else NOT_MEASURED})
    return records


def _alphas(done: Study) -> Records:
    records: Records = []
    for (name, model), decision in done.decided.items():
        for alpha in ALPHAS[::3] if name == PAPER else ():
            tau = threshold(decision.calibration, alpha=alpha)
            record = {"method": name, "model": model, "alpha": alpha, "accuracy": decision.accuracy(tau)}
            counts = {"n_calibration": len(decision.calibration), "n_own": len(decision.own)}
            counts |= {"n_other": sum(map(len, decision.others.values()))}
            records.append(record | {"tpr": float((decision.own < tau).mean()), "threshold": tau} | counts)
    return records


def _sizes(done: Study) -> Records:
    """The paper's settings (the default is not calibrated): some of the calibration images at a time, alpha .05, tested
    on all of the second halves."""
    records: Records = []
    for contender in [contender for contender in contenders(done.scores) if contender.name == PAPER]:
        for model in [model for model in done.models if (contender.name, model) in done.decided]:
            at = ("none", contender.method, model, model)
            cell = done.scores[at]
            first, second = (np.flatnonzero(cell["half"] == half) for half in HALVES)
            for size in [size for size in SIZES if size <= len(first)]:
                found = []
                for repeat in range(REPEATS):
                    chosen = np.random.default_rng([size, repeat]).choice(first, size, replace=False)
                    few = {name: values[np.concatenate([chosen, second])] for name, values in cell.items()}
                    if decision := decide({**done.scores, at: few}, contender, model, alpha=0.05):
                        found.append((decision.accuracy(), decision.tpr))
                if found:
                    accuracies, tprs = np.array(found).T
                    low, high = interval(accuracies)
                    record = {"method": contender.name, "model": model, "n_calibration": size, "repeats": len(found)}
                    record |= {"accuracy": float(accuracies.mean()), "accuracy_low": low}
                    record |= {"accuracy_high": high, "tpr": float(tprs.mean()), "n_own": len(second)}
                    others = done.decided[contender.name, model].others
                    records.append(record | {"n_other": sum(map(len, others.values()))})
    return records


def _robustness(scores: Scores) -> Records:
    """Test images are processed, thresholds come from images as they were, or for the default from no own images."""
    processings = list(dict.fromkeys(processing for processing, _, _, _ in scores))
    if len(processings) < 2:
        return [{"processing": "none", "note": "absent: not asked for (--robustness N)"}]
    known = {key: cell for key, cell in scores.items() if key[1] in SHOWN}
    records: Records = []
    for processing in processings:
        done = study(known, processing=processing)
        for (name, model), decision in done.decided.items():
            keys = [key for key in done.drawn if key[:2] == (name, model)]
            record = {"method": name, "processing": processing, "model": model, **done.record(keys)}
            records.append(record | {"tpr": decision.tpr})
    return records


def _attributions(done: Study) -> Records:
    """How often the default gives each verdict to the test images of a source, all models asked, nothing calibrated."""
    measured: dict[str, dict[str, Measurement]] = {}
    for (processing, method, model, source), cell in done.scores.items():
        if (processing, method) == ("none", DEFAULT):
            measured.setdefault(source, {})[model] = _measurement(half_of(cell, "test"))
    records: Records = []
    for source, by_model in measured.items():
        verdicts = attribute(by_model).verdicts if all(map(has_alignment, by_model.values())) else ()
        short = ["ambiguous" if verdict.startswith("ambiguous") else verdict for verdict in verdicts]
        for verdict in dict.fromkeys((*by_model, "ambiguous", NONE, NOT_ASSESSABLE, *short)) if short else ():
            share = short.count(verdict) / len(short)
            records.append({"source": source, "verdict": verdict, "share": share, "n": len(short)})
    return records or [{"note": NOT_MEASURED}]


def _measurement(cell: Columns) -> Measurement:
    """What the rows of the default hold of a measurement: enough for a verdict, and to know one autoencoder by."""
    losses = (np.asarray(cell[name], np.float64) for name in ("first_loss", "second_loss", "homogeneity"))
    return Measurement.from_losses(*losses, alignment=cell["alignment"], alignment_error=cell["alignment_error"])


def _control(done: Study) -> Records:
    """What bytes a pixel and the format of the files tell: a bias of the data, for which no method deserves credit."""
    method = next(method for _, method, _, _ in done.scores)
    records: Records = []
    for model in done.models:
        cells = {s: c for (p, m, x, s), c in done.scores.items() if (p, m, x) == ("none", method, model)}
        for source in [source for source in cells if source != model]:
            pair = cells[model], cells[source]
            for name, predict in (("bytes a pixel", _by_size), ("format", _by_format)):
                own, other = predict(*pair)
                accuracy = balanced_accuracy(1.0 - own, 1.0 - other, threshold=0.5)  # 0: taken for its own
                record = {"by": name, "model": model, "other": source, "accuracy": accuracy}
                counts = {"n_calibration": sum((cell["half"] == "calibration").sum() for cell in pair)}
                records.append(record | counts | {"n_own": len(own), "n_other": len(other)})
    return records


def _by_size(own: Columns, other: Columns) -> list[Bool[np.ndarray, " n"]]:
    """Which test images the best threshold and side of the first halves takes for the model's own."""

    def sizes(cell: Columns, half: str) -> Float[np.ndarray, " n"]:
        of = half_of(cell, half)
        return of["bytes"] / (of["width"] * of["height"])

    first = [sizes(cell, "calibration") for cell in (own, other)]
    seen = np.unique(np.concatenate(first))
    between = (np.append(seen, seen[-1]) + np.append(seen[0], seen)) / 2
    _, sign, tau = max(
        ((sign * first[0] <= sign * tau).mean() - (sign * first[1] <= sign * tau).mean(), sign, tau)
        for tau in between
        for sign in (1.0, -1.0)
    )
    return [sign * sizes(cell, "test") <= sign * tau for cell in (own, other)]


def _by_format(own: Columns, other: Columns) -> list[Bool[np.ndarray, " n"]]:
    """Which test images have a format that is commoner among the model's own in the first halves."""
    first = [half_of(cell, "calibration")["format"] for cell in (own, other)]
    taken = [name for name in set(first[0]) if (first[0] == name).mean() > (first[1] == name).mean()]
    return [np.isin(half_of(cell, "test")["format"].astype(str), taken) for cell in (own, other)]


def write_tables(found: Mapping[str, Sequence[Mapping[str, Any]]], out: str | os.PathLike[str]) -> list[Path]:
    """`OUT/NAME.csv` and `OUT/NAME.md` of each table; in Markdown an interval stands beside its figure."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, records in found.items():
        columns = list(dict.fromkeys(column for record in records for column in record))
        with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            write_csv(records, file, ending="\n")
        shown = [column for column in columns if not column.endswith(("_low", "_high"))]
        text = to_markdown(shown, [[_cell(record, column) for column in shown] for record in records])
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        written += [out / f"{name}.csv", out / f"{name}.md"]
    return written


def _cell(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, float):
        return "" if value is None else for_terminal(str(value)).replace("|", "\\|")  # a folder's name, say
    if f"{column}_low" in record:
        return f"{value:.3f} [{record[f'{column}_low']:.3f}, {record[f'{column}_high']:.3f}]"
    exact = column in ("alpha", "threshold", "times_aedr") or column.startswith("seconds")
    return f"{value:.4g}" if exact else f"{value:.3f}"

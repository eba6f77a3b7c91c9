"""The decision on the miniature models: which signal, how sure, and how many wrong names.

    python -m benchmarks.decision --photos DIR --work WORK [--published DIR]

Reads the scores that `python -m benchmarks.matrix score` left in WORK; nothing is measured here, so it runs in minutes.
Fits are made on each model's calibration images (seeds 0 to 199) and tested on other seeds and on photographs that no
model was trained or calibrated on. `--published` holds the AEDR authors' own losses and homogeneities (`losses/`,
`homogeneity/`), for the figures on SD1.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from aedr_jax import Calibration, Measurement, SignalConfig, attribute, calibrate, fit_statistic
from aedr_jax.autoencoders.registry import REGISTRY, calibration_file
from aedr_jax.decision.intervals import share_interval
from aedr_jax.generate.demo import PHOTOGRAPHS
from aedr_jax.study.metrics import area_under_curve, balanced_accuracy, interval, resample
from aedr_jax.study.signals import PAPER, SIGNALS, TURNED, choose, few_images, measurement_of, score_signals
from benchmarks.matrix import CALIBRATION, MODELS, clusters, print_table, read_tables
from weights.photos import read_index, subject

REPEATS = 1000
# Models to choose a signal on and to report it on, both ways: each group has a continuous and a quantized decoder.
GROUPS = (("mini-kl4-a", "mini-kl4-b", "mini-movq"), ("mini-kl16", "mini-vq"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--published", type=Path)
    args = parser.parse_args()
    subjects = {Path(row["file"]).stem: subject(row) for row in read_index(args.photos)}
    tables = {model: read_tables(model, args.work) for model in MODELS}
    signals = {model: signal_scores(model, tables[model]) for model in MODELS}
    report_signals(signals)
    report_default(tables, subjects)
    report_turned(signals, tables, subjects)
    report_verdicts(tables, subjects)
    if args.published:
        report_published(args.published)
    report_few(tables, args.published)


def signal_scores(model: str, tables: dict) -> dict[str, dict[str, np.ndarray]]:
    """`{signal: {source: scores}}`, fitted to the calibration images."""
    tested = {source: table for source, table in tables.items() if source != CALIBRATION}
    return score_signals(tables[CALIBRATION], numbers(tested))


def report_signals(scores: dict) -> None:
    """Every signal's AUC, a mean over the other sources, and what choosing honestly gives."""
    rows = []
    for name in SIGNALS:
        cells = []
        for model in MODELS:
            of = scores[model].get(name)
            areas = {source: area_under_curve(of[model], of[source]) for source in of or () if source != model}
            cells.append(f"{np.mean(list(areas.values())):.4f} ({min(areas.values()):.3f})" if areas else "-")
        rows.append([name, *cells])
    print_table("AUC of each signal: mean over the other sources (the worst of them)", ["signal", *MODELS], rows)
    rounds = choose(scores, (GROUPS, GROUPS[::-1]))
    header = ["chosen on (even images)", "signal", "reported on (odd images)", "AUC", "the paper's"]
    rows = [
        [", ".join(c.chosen_on), c.signal, ", ".join(c.reported_on), f"{c.auc:.4f}", f"{c.paper_auc:.4f}"]
        for c in rounds
    ]
    print_table("Choosing on one half of images and models, reporting on the other", header, rows)


def numbers(tables: dict) -> dict:
    return {s: {k: v for k, v in table.items() if k != "image"} for s, table in tables.items()}


def default_scores(model: str, tables: dict) -> dict[str, np.ndarray]:
    """Each source's scores by the default statistic, fitted to the calibration images."""
    statistic = fit_statistic(measurement_of(tables[CALIBRATION]), quantized=bool(REGISTRY[model].quantize))
    return {source: statistic.on_host(measurement_of(table)) for source, table in tables.items()}


def compare(one: dict, two: dict, model: str, tables: dict, subjects: dict[str, str]) -> tuple[list[float], str]:
    """Mean AUC over the other sources by two scores of the same images, and a paired bootstrap of the difference."""
    others = [source for source in (*MODELS, PHOTOGRAPHS) if source != model]

    def mean_auc(scores: dict, drawn: list[np.ndarray]) -> float:
        own = scores[model][drawn[0]]
        return float(np.mean([area_under_curve(own, scores[s][i]) for s, i in zip(others, drawn[1:], strict=True)]))

    everything = [np.arange(len(tables[s]["image"])) for s in (model, *others)]
    found = [mean_auc(scores, everything) for scores in (one, two)]
    sampled = resample([clusters(s, tables[s]["image"], subjects) for s in (model, *others)], REPEATS)
    low, high = interval([mean_auc(one, drawn) - mean_auc(two, drawn) for drawn in sampled])
    return found, f"{found[0] - found[1]:+.4f} [{low:+.4f}, {high:+.4f}]"


def report_turned(scores: dict, tables: dict, subjects: dict[str, str]) -> None:
    """The signal that takes the turned image for a control against the default and the paper's signal."""
    rows = []
    for model in MODELS:
        found, default = scores[model], default_scores(model, tables[model])
        (area, _), over_default = compare(found[TURNED], default, model, tables[model], subjects)
        _, over_paper = compare(found[TURNED], found[PAPER], model, tables[model], subjects)
        rows.append([model, f"{area:.4f}", over_default, over_paper])
    header = ["candidate", "AUC", "above the default [95 %]", "above the paper's [95 %]"]
    print_table(f"{TURNED} (means over the other sources)", header, rows)


def report_default(tables: dict, subjects: dict[str, str]) -> None:
    """The default against the paper's signal, model by model: the same images, a paired bootstrap of the difference."""
    rows = []
    pairs: dict[str, list[float]] = {"default": [], "the paper's": []}
    photographs: dict[str, list[float]] = {"default": [], "the paper's": []}
    for model in MODELS:
        default = default_scores(model, tables[model])
        paper = {source: measurement_of(table, "raw").signal for source, table in tables[model].items()}
        others = [source for source in (*MODELS, PHOTOGRAPHS) if source != model]
        found, difference = compare(default, paper, model, tables[model], subjects)
        rates = []
        for name, scores in (("default", default), ("the paper's", paper)):
            config = SignalConfig() if name == "default" else SignalConfig.paper()
            measured = measurement_of(tables[model][CALIBRATION], "clip" if config.fitted else "raw")
            threshold = calibrate(measured, config=config, quantized=bool(REGISTRY[model].quantize)).threshold
            accuracy = {s: balanced_accuracy(scores[model], scores[s], threshold=threshold) for s in others}
            photographs[name].append(accuracy[PHOTOGRAPHS])
            pairs[name] += [accuracy[s] for s in others if s != PHOTOGRAPHS]
            rates.append(np.mean(list(accuracy.values())))
        rows.append([model, *(f"{v:.4f}" for v in found), difference, *(f"{100 * r:.1f}" for r in rates)])
    header = ["candidate", "AUC, default", "AUC, the paper's", "difference [95 %]", "accuracy, default", "the paper's"]
    print_table("The default and the paper's signal (means over the other sources)", header, rows)
    for name in pairs:
        accuracies = f"{100 * np.mean(pairs[name]):.1f} % over {len(pairs[name])} pairs of models"
        print(f"\nmean accuracy, {name}: {accuracies}, {100 * np.mean(photographs[name]):.1f} % against photographs")


def report_verdicts(tables: dict, subjects: dict[str, str]) -> None:
    """Five candidates and "none": confusion, the true family missing, and wrong names against the candidates."""
    calibrations = {model: Calibration.load(calibration_file(model)) for model in MODELS}
    sources = (*MODELS, PHOTOGRAPHS)
    measured = {s: {model: measurement_of(tables[model][s]) for model in MODELS} for s in sources}
    results = {s: attribute(measured[s], calibrations) for s in sources}
    columns = [*MODELS, "ambiguous, truth among them", "ambiguous, without", "none"]
    rows, right, total = [], 0, 0
    for source in sources:
        counts = dict.fromkeys(columns, 0)
        for verdict, accepted in zip(results[source].verdicts, results[source].accepted, strict=True):
            if verdict.startswith("ambiguous"):
                held = source != PHOTOGRAPHS and accepted[MODELS.index(source)]
                counts[columns[-3 if held else -2]] += 1
            else:
                counts[verdict] += 1
        truth = "none" if source == PHOTOGRAPHS else source
        right, total = right + counts[truth], total + sum(counts.values())
        rows.append([source, *(str(counts[c]) for c in columns)])
    print_table("Verdicts", ["made by", *columns], rows)
    print(f"\nright: {right} of {total}, {100 * right / total:.1f} %")
    rows = []
    for j, model in enumerate(MODELS):
        missing, n = int((~results[model].accepted[:, j]).sum()), len(results[model].verdicts)
        low, high = share_interval(missing, n)
        rows.append([model, f"{missing} of {n}", f"{missing / n:.3f} [{low:.3f}, {high:.3f}]"])
    print_table(
        "The true family missing from the accepted ones (alpha .05)", ["model", "missing", "share [95 %]"], rows
    )
    report_wrong_names(measured, calibrations, tables, subjects)


def report_wrong_names(measured: dict, calibrations: dict, tables: dict, subjects: dict[str, str]) -> None:
    """Photographs by half of the subjects validate, the other half tests; the halves share no subject."""
    group = clusters(PHOTOGRAPHS, tables[MODELS[0]][PHOTOGRAPHS]["image"], subjects)
    shuffled = np.random.default_rng(0).permutation(group.max() + 1)
    validating = np.isin(group, shuffled[: len(shuffled) // 2])
    photographs = measured[PHOTOGRAPHS]

    strict = {
        model: calibrate(
            measurement_of(tables[model][CALIBRATION]),
            quantized=bool(REGISTRY[model].quantize),
            validation=photographs[model].take(validating),
        )
        for model in MODELS
    }
    rows = []
    for count in range(1, len(MODELS) + 1):
        names = MODELS[:count]
        row = [str(count), names[-1]]
        for of, options in ((calibrations, {}), (strict, {}), (strict, {"false_names": 0.05})):
            result = attribute(
                {m: photographs[m].take(~validating) for m in names}, {m: of[m] for m in names}, **options
            )
            wrong = sum(v != "none" for v in result.verdicts)
            low, high = share_interval(wrong, len(result.verdicts))
            # Images of the models that are no candidates are negatives that chose nothing, too.
            foreign = [s for s in MODELS if s not in names]
            named = [v != "none" for s in foreign for v in attribute(
                {m: measured[s][m] for m in names}, {m: of[m] for m in names}, **options).verdicts]  # fmt: skip
            row.append(f"{wrong / len(result.verdicts):.3f} [{low:.3f}, {high:.3f}]; {np.mean(named):.3f}" if named
                       else f"{wrong / len(result.verdicts):.3f} [{low:.3f}, {high:.3f}]; -")  # fmt: skip
        rows.append(row)
    title = (
        f"Wrong names for {int((~validating).sum())} photographs [95 %]; for images of the models that are no candidate"
    )
    header = ["candidates", "the last added", "alpha .05", "alpha by validation", "and false names .05"]
    print_table(title, header, rows)
    rows = []
    for alpha in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2):
        at = {m: calibrate(measurement_of(tables[m][CALIBRATION]), quantized=bool(REGISTRY[m].quantize), alpha=alpha)
              for m in MODELS}  # fmt: skip
        right = [v == s for s in MODELS for v in attribute(measured[s], at).verdicts]
        wrong = [v != "none" for v in attribute(photographs, at).verdicts]
        rows.append([f"{alpha:g}", f"{np.mean(right):.3f}", f"{np.mean(wrong):.3f}"])
    print_table("Open set, five candidates", ["alpha", "own images named right", "photographs named"], rows)


def report_published(published: Path) -> None:
    """50 halves of the authors' 500 SD1.5 rows: fitted on one half, scored on the other and on 500 SD2.1 rows."""
    own, other = (published_measurement(published, name) for name in ("sd1.5", "sd2.1"))
    rows = []
    for name, fitted in (("default", True), ("the paper's", False)):
        areas, accepts = [], []
        for seed in range(50):
            order = np.random.default_rng(seed).permutation(500)
            fit, test = own.take(order[:250]), own.take(order[250:])
            score = fit_statistic(fit).on_host if fitted else (lambda m: m.signal)
            inside, outside = score(test), score(other)
            areas.append(area_under_curve(inside, outside))
            accepts.append((outside < np.quantile(inside, 0.99)).mean())
        rows.append([name, f"{np.mean(areas):.4f}", f"{100 * np.mean(accepts):.2f}", f"{100 * np.max(accepts):.2f}"])
    header = ["signal", "AUC", "false accepts at 99 % acceptance, mean (%)", "the worst half (%)"]
    print_table("Published SD1.5 rows, 50 seeded halves (unclipped passes)", header, rows)


def published_measurement(published: Path, name: str) -> Measurement:
    first, second = np.loadtxt(published / "losses" / f"sd1.5_on_{name}.txt").T
    homogeneity = np.loadtxt(published / "homogeneity" / f"{name}.txt")
    return measurement_of({"first_clip": first, "second_clip": second, "homogeneity": homogeneity})


def report_few(tables: dict, published: Path | None) -> None:
    """Realised acceptance from few images, in smooth populations like those measured."""
    populations = {MODELS[0]: measurement_of(tables[MODELS[0]][CALIBRATION])}
    if published:
        populations["published SD1.5"] = published_measurement(published, "sd1.5")
    for name, measured in populations.items():
        rows = [
            [str(r["size"]), r["rule"], f"{r['mean']:.3f} [{r['low']:.3f}, {r['high']:.3f}]",
             f"{r['acceptance_covered']:.3f}", f"{r['threshold_covered']:.3f}"]
            for r in few_images(measured)
        ]  # fmt: skip
        header = ["images", "rule", "realised acceptance [95 % of repeats]", "its interval covers", "the threshold's"]
        print_table(f"Few images, nominal 95 %, 200 repeats: {name}", header, rows)


if __name__ == "__main__":
    main()

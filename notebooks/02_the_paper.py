# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The paper, on models that fit a laptop
#
# AEDR (AAAI 2026, [arXiv 2507.18988](https://arxiv.org/abs/2507.18988)) asks whether an image came from a model by
# passing it through the model's autoencoder twice. Here is the method on one miniature latent diffusion model, live;
# then the paper's tables and figures on all five of them, beside the rows that the paper published.

# %% [markdown]
# `pip install ".[notebook]"` in a checkout; this notebook then runs in any folder.

# %%
import itertools
import re

import jax
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr
from aedr_jax.files import shipped
from aedr_jax.generate.miniature import sample_images

plt.rcParams["figure.dpi"] = 70

# %% [markdown]
# ## The signal
#
# With r1 = D(E(x)) and r2 = D(E(r1)), the losses are L1 = MSE(r1, x) and L2 = MSE(r2, r1). Their ratio t = L1 / L2
# cancels what makes an image hard to reconstruct; times the homogeneity H of its grey levels it is the signal. 32
# images that the model generates here and now: 20 calibrate, 12 are tested, with images of other models and
# photographs.

# %%
own = sample_images("mini-kl4-a", range(32))
folders = ("mini-kl16", "mini-vq", "mini-movq", "photographs")
paths = [path for folder in folders for path in sorted((shipped("examples") / folder).glob("*.png"))]
images = aedr.prepare([*own, *(aedr.read_image(path) for path in paths)])

paper = aedr.SignalConfig.paper()
ae = aedr.load_autoencoder("mini-kl4-a")
measured = jax.jit(lambda ae, x: aedr.measure(ae, x, config=paper))(ae, images)
calibrating, tested, foreign = measured.take(slice(20)), measured.take(slice(20, 32)), measured.take(slice(32, None))

# %% [markdown]
# The threshold is the 95 % quantile of a Gaussian kernel density estimate on the calibrating signals.

# %%
calibration = aedr.calibrate(calibrating, config=paper, autoencoder=ae, model="mini-kl4-a")
low, high = calibration.acceptance_interval
print(f"threshold {calibration.threshold:.3f}; it accepts {low:.2f} to {high:.2f} of own images (95 %)")
print(f"own images accepted: {(tested.signal < calibration.threshold).sum()} of {tested.signal.size}")
print(f"others accepted: {(foreign.signal < calibration.threshold).sum()} of {foreign.signal.size}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
everywhere = np.geomspace(measured.second_loss.min(), measured.second_loss.max())
left.loglog(everywhere, everywhere, color="gray", lw=1, label="t = 1")
for part, marker, label in ((calibrating, ".", "own, calibrating"), (tested, "o", "own"), (foreign, "x", "others")):
    left.loglog(part.second_loss, part.first_loss, marker, label=label)
left.set(xlabel="second loss", ylabel="first loss")
left.legend()
signals = np.linspace(0, foreign.signal.max(), 400)
right.plot(
    signals, aedr.kde_cdf(signals, calibrating.signal), color="C0", label="estimated distribution of own signals"
)
right.axvline(calibration.threshold, color="black", label="threshold, α = .05")
right.plot(tested.signal, np.full(tested.signal.size, 0.03), "|", ms=14, color="C1", label="own")
right.plot(foreign.signal, np.full(foreign.signal.size, 0.03), "|", ms=14, color="C2", label="others")
right.set(xlabel="signal t · H")
right.legend()
plt.show()

# %% [markdown]
# ## All models, all methods
#
# What takes hours is read from where it is kept: `docs/results.md` and `docs/decision.md` ship with the package, and
# both name the commands that made each table. The first of this section came out of
#
# ```sh
# aedr evaluate EVAL --out RESULTS --count 100 --no-plots --methods aedr,aedr-default,...
# python -m benchmarks.results RESULTS
# ```
#
# The paper's rows are the figures that it published, on real models; they are quoted in the same file, and were not
# measured here. The paper's 500 images a model are not distributed with this package.


# %%
def table(document: str, caption: str) -> list[dict[str, str]]:
    """The rows of the table below a caption."""
    lines = (shipped("docs") / document).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"**{caption}"))
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in body)
    return [dict(zip(heads, row, strict=True)) for row in rows]


def number(cell: str) -> float:
    """The first number of a cell; NaN in one without."""
    found = re.search(r"\d+\.?\d*", cell)
    return float(found[0]) if found else np.nan


def show(rows: list[dict[str, str]], columns: list[str]) -> None:
    """Print some columns."""
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    for row in ({column: column for column in columns}, *rows):
        print("  ".join(row[column].ljust(width) for column, width in zip(columns, widths, strict=True)).rstrip())


methods = [row for row in table("results.md", "Every method") if row["AUC"]]
show(methods, ["method", "accuracy, pairs of models", "against photographs", "AUC", "own images tested"])

# %% [markdown]
# Brackets are 95 % bootstrap intervals. The row `aedr-default` is the alignment, with one threshold for all models and
# nothing calibrated; the others have thresholds from 50 own images of each model, at an alpha picked for accuracy.
# LatentTracer and RONAN take seconds to minutes an image, and have a table of their own in the same file.
#
# ### Accuracy by model
#
# Left the miniature models, right the paper's. For AEDR the MoVQ model is the hardest in both, and 16 channels are
# harder than four; the alignment tells both. It cannot tell, and does not ask, which of two models with one encoder
# (`mini-kl4-a` and `-b`) made an image, and so has 50 % there in one pair of five; verdicts compare the two.

# %%
published = re.findall(
    r"`([\w.-]+)`\s+(\d+\.\d)\s*/\s*(\d+\.\d)\s*/\s*(\d+\.\d)",
    (shipped("docs") / "results.md").read_text(encoding="utf-8"),
)
candidates = table("results.md", "Accuracy by candidate")
minis = [column for column in candidates[0] if column != "method"]
here = {row["method"]: [number(row[model]) for model in minis] for row in candidates}

fig, axes = plt.subplots(1, 2, figsize=(12, 3.6), sharey=True, width_ratios=(5, 8), layout="constrained")
for offset, (method, color) in enumerate({"aedr": "C0", "aedr-default": "C1", "rdd-mse": "C2"}.items()):
    axes[0].bar(np.arange(len(minis)) + 0.27 * offset, here[method], 0.25, color=color, label=method)
for offset, (method, color) in enumerate({"AEDR": "C0", "LatentTracer": "C3", "RONAN": "C4"}.items()):
    values = [float(row[1 + offset]) for row in published]
    axes[1].bar(np.arange(len(published)) + 0.27 * offset, values, 0.25, color=color, label=method)
for axis, names in zip(axes, (minis, [row[0] for row in published]), strict=True):
    axis.set_xticks(np.arange(len(names)) + 0.27, names, rotation=25)
    axis.axhline(50, color="gray", lw=1)
    axis.legend(loc="lower right", fontsize=8)
axes[0].set(title="here", ylabel="accuracy, %", ylim=(40, 102))
axes[1].set(title="the paper")
plt.show()

# %% [markdown]
# ### What accuracy costs
#
# Seconds an image of 128 pixels on one core while other work ran, compiling apart. `aedr-default` measures the
# alignment and both losses; the alignment alone, which `aedr attribute` measures, does not grow with an image
# (`docs/large.md`).
# The paper has LatentTracer at 12 to 163 seconds where AEDR takes .06 to 1.25.

# %%
seconds = {row["method"]: number(row["seconds an image"]) for row in table("results.md", "Seconds: mean")}
plt.figure(figsize=(8, 3.8))
for row in methods:
    if (name := row["method"]) in seconds and name not in ("aedr-mae", "aedr-official", "aedr-ssim"):
        plt.semilogx(seconds[name], accuracy := number(row["accuracy, pairs of models"]), "o", color="C0")
        plt.annotate(name, (seconds[name], accuracy), xytext=(5, -3), textcoords="offset points", fontsize=8)
plt.xlabel("seconds an image")
plt.ylabel("accuracy, pairs of models, %")
plt.show()

# %% [markdown]
# ### Ablations
#
# The paper finds MSE best of the losses on `sd2.1` (MSE 99.4, SSIM 99.1, MAE 97.2), and that H helps most models. Here
# MAE and SSIM do a little better than MSE in the mean, and H helps the 16-channel model alone.

# %%
for caption in ("Ablation of the losses", "Ablation of the homogeneity"):
    rows = [row for row in table("results.md", caption) if row["mean; AUC"]]
    show(rows, list(rows[0]))
    print()

# %% [markdown]
# ### Processed images, and what came after
#
# Compressed images lose the signal of the losses. The alignment, the default of today, takes each image as its own
# control: it needs no calibration, and keeps most of what compression leaves (`docs/decision.md`; `python -m
# benchmarks.robustness`). The two rows of points are of other images (10 a model for the paper's signal but for `none`,
# 100 for the alignment), and differ in what they ask: the paper's signal has a threshold from 100 own images of each
# model, at an alpha picked for accuracy; the alignment accepts where the foreign p-value is at most .05. A crop or a
# resize moves the grid, and both are lost.

# %%
by_paper = {row["processing"]: row["aedr; models"] for row in table("results.md", "Accuracy on processed images")}
by_paper = {name: number(cell.partition("own accepted")[2]) / 100 for name, cell in by_paper.items()}
by_alignment = table("decision.md", "own images accepted, foreign p <= 0.05")
by_alignment = {row["condition"]: number(row["mean"]) for row in by_alignment}
shown = [name for name in by_paper if name in by_alignment]
plt.figure(figsize=(9, 3.2))
for label, values in (("the paper's signal, calibrated", by_paper), ("alignment, nothing calibrated", by_alignment)):
    plt.plot(shown, [values[name] for name in shown], "o", label=label)
plt.xticks(rotation=45)
plt.ylabel("own images accepted")
plt.legend()
plt.show()

# %% [markdown]
# One threshold for all five models: what share of 1,000 own images it accepts, at 1 and .1 % of foreign images (`python
# -m benchmarks.alignment`). Models that share an encoder ("cousins") find each other's images aligned, as they should;
# which of them made an image, only the comparison of their alignments tells.

# %%
thresholds = table("decision.md", "one threshold for all models")
show(thresholds, list(thresholds[0]))

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
# # Which model made this image?
#
# An image that came out of a latent diffusion model's decoder is nearly a fixed point of that model's autoencoder. Pass
# it through twice, and both reconstruction losses are alike; any other image is pulled in by the first pass, so its
# first loss is far above its second. Everything here runs offline on the miniature
# models that ship.

# %%
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr

ROOT = Path.cwd() if Path("examples").is_dir() else Path.cwd().parent
ae = aedr.load_autoencoder("mini-kl4-a")  # with a network: "sd1.5", "flux", "org/repo/vae", or your own folder
print(f"{jax.device_count()} device(s): {jax.devices()[0].device_kind}; family {aedr.weights_hash(ae)[:12]}")

# %% [markdown]
# ## Load
#
# Images are float32 NHWC in [-1, 1]: `read_image` gives uint8 pixels, `prepare` makes images of them. Each folder
# holds the images of the miniature model of that name, or photographs (licences in `examples/README.md`).

# %%
names = [name for name in aedr.list_models() if (ROOT / "examples" / name).is_dir()]
paths = [path for folder in (*names, "photographs") for path in sorted((ROOT / "examples" / folder).glob("*.png"))]
own = np.array([path.parent.name == "mini-kl4-a" for path in paths])
images = aedr.prepare([aedr.read_image(path) for path in paths])
gray = np.stack([aedr.read_gray(path) for path in paths])
images.shape

# %% [markdown]
# ## Reconstruct twice
#
# An autoencoder is a pytree: pass it to a jitted function as an argument, and models of one architecture share one
# compiled program.

# %%
first, second = jax.jit(aedr.double_reconstruct)(ae, images)


# %%
def show(index: int) -> None:
    """x, r1, r2 and the residuals of both passes, on one scale."""
    x, r1, r2 = (np.clip((np.asarray(a[index]) + 1) / 2, 0, 1) for a in (images, first, second))
    residuals = [np.abs(r1 - x).mean(-1), np.abs(r2 - r1).mean(-1)]
    _, axes = plt.subplots(1, 5, figsize=(13, 2.9))
    for axis, picture, title in zip(axes, [x, r1, r2], ["x", "r1 = D(E(x))", "r2 = D(E(r1))"], strict=False):
        axis.imshow(picture)
        axis.set_title(title)
    for axis, residual, title in zip(axes[3:], residuals, ["|r1 − x|", "|r2 − r1|"], strict=True):
        axis.imshow(residual, cmap="magma", vmin=0, vmax=0.15)
        axis.set_title(f"{title}, mean {residual.mean():.3f}")
    for axis in axes:
        axis.axis("off")
    plt.suptitle(f"{paths[index].parent.name}: {paths[index].name}", y=1.06)
    plt.show()


show(int(np.flatnonzero(own)[0]))
show(len(paths) - 1)

# %% [markdown]
# ## Score
#
# `measure` is a pure function: both losses, their ratio, the homogeneity of the grey-level co-occurrence matrix, and
# their product, the signal. `make_sharded(aedr.measure)` spreads the same over every device.

# %%
measured = jax.jit(aedr.measure)(ae, images, gray=gray)
print(f"{'image':28s} {'L1':>9s} {'L2':>9s} {'ratio':>7s} {'H':>6s} {'signal':>7s}")
for i, path in enumerate(paths):
    l1, l2, ratio, texture, signal = (float(column[i]) for column in measured[:5])
    name = f"{path.parent.name}/{path.name}"
    print(f"{name:28s} {l1:9.5f} {l2:9.5f} {ratio:7.2f} {texture:6.3f} {signal:7.2f}")

# %% [markdown]
# ## Verdict
#
# A calibration holds a statistic that was fitted to images known to belong, their scores, and a threshold. Those that
# ship were made by `aedr calibrate` on 200 generated images each, of other seeds than these. The null hypothesis of a
# p-value is "made by this model", and none is below 1/201, which is what 200 images can tell; several models may accept
# an image, and then the verdict says so.

# %%
from aedr_jax.autoencoders.registry import calibration_file
from aedr_jax.decision.attribution import CAVEAT

calibrations = {name: aedr.Calibration.load(calibration_file(name)) for name in names}
measure = jax.jit(aedr.measure)
measurements = {name: measure(aedr.load_autoencoder(name), images, gray=gray) for name in names}
result = aedr.attribute(measurements, calibrations)
print(f"{'image':28s} {'verdict':36s} p-values of {', '.join(names)}")
for path, verdict, row in zip(paths, result.verdicts, result.p_values, strict=True):
    print(f"{path.parent.name + '/' + path.name:28s} {verdict:36s} {', '.join(f'{p:.3f}' for p in row)}")
print(f"\n{CAVEAT}")

# %%
calibration = calibrations["mini-kl4-a"]
score = np.asarray(calibration.score(measured))
plt.figure(figsize=(8, 2.6))
plt.hist(calibration.scores, bins=30, density=True, alpha=0.4, label="calibration images")
plt.axvline(calibration.threshold, color="black", label=f"threshold, α = {calibration.alpha:g}")
plt.scatter(score[own], np.full(own.sum(), 0.05), marker="|", s=200, label="own")
plt.scatter(score[~own], np.full((~own).sum(), 0.05), marker="|", s=200, label="other models, photographs")
plt.xlabel("score: the larger of two standardized values")
plt.legend()
plt.show()

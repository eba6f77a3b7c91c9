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
# An image that came out of a latent diffusion model's decoder is nearly a fixed point of that model's autoencoder, and
# it stands on the decoder's grid, upright. Moved by a few pixels, mirrored or turned, it is a foreign image of the same
# texture: an image is its own control. Everything here runs offline on the miniature models that ship.

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
# ## Measure
#
# `measure` is a pure function. Beside the two losses, their ratio, the homogeneity of the grey-level co-occurrence
# matrix and their product (AEDR's signal), it gives the alignment: how the image stands on the decoder's grid, held
# against its own moved and turned copies. About 0 for images that have nothing to do with the model, far below for its
# own. `make_sharded(aedr.measure)` spreads the same over every device.

# %%
measured = jax.jit(aedr.measure)(ae, images, gray=gray)
print(f"{'image':28s} {'ratio':>7s} {'signal':>7s} {'alignment':>10s} {'over its error':>15s}")
for i, path in enumerate(paths):
    columns = measured.ratio, measured.signal, measured.alignment, measured.standing
    ratio, signal, alignment, standing = (float(column[i]) for column in columns)
    print(f"{path.parent.name + '/' + path.name:28s} {ratio:7.2f} {signal:7.2f} {alignment:10.2f} {standing:15.1f}")

# %% [markdown]
# ## Verdict
#
# Nothing is calibrated. A foreign p-value says how many images that have nothing to do with a model stand as firmly on
# its grid; their scores ship with the package. A model accepts where it is at most `false_names`, .05, adjusted for the
# number of candidates; of several the one on whose grid the image stands most firmly is named.

# %%
from aedr_jax.decision.attribution import CAVEAT

measure = jax.jit(aedr.measure)
measurements = {name: measure(aedr.load_autoencoder(name), images, gray=gray) for name in names}
result = aedr.attribute(measurements)
print(f"{'image':28s} {'verdict':12s} foreign p-values of {', '.join(names)}")
for path, verdict, row in zip(paths, result.verdicts, result.foreign_p_values, strict=True):
    print(f"{path.parent.name + '/' + path.name:28s} {verdict:12s} {', '.join(f'{p:.3f}' for p in row)}")
print(f"\n{CAVEAT}")

# %%
null = aedr.Null.shipped()
plt.figure(figsize=(8, 2.6))
plt.hist(null.groups["mini-kl4-a"], bins=60, density=True, alpha=0.4, label="foreign images of the reference")
plt.axvline(null.threshold(0.05 / len(names)), color="black", label=f"p = .05 / {len(names)}")
standing = np.asarray(measured.standing)
plt.scatter(standing[own], np.full(own.sum(), 0.02), marker="|", s=200, label="own")
plt.scatter(standing[~own], np.full((~own).sum(), 0.02), marker="|", s=200, label="other models, photographs")
plt.xlabel("alignment over its error, mini-kl4-a")
plt.legend()
plt.show()

# %% [markdown]
# ## Where
#
# The same, block by block: half of a picture of the model, half of a photograph.

# %%
half = images[:1].copy()
half[:, :, 64:] = images[-1:, :, 64:]
blocks = np.asarray(jax.jit(aedr.alignment_map)(ae, half))[0]
_, axes = plt.subplots(1, 2, figsize=(6, 2.8))
axes[0].imshow(np.clip((np.asarray(half[0]) + 1) / 2, 0, 1))
shown = axes[1].imshow(blocks, cmap="RdBu", vmin=-1.5, vmax=1.5)
plt.colorbar(shown, label="alignment of the block")
plt.show()

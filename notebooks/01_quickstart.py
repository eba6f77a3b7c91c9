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

# %% [markdown]
# `pip install ".[notebook]"` in a checkout; this notebook then runs in any folder.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr
from aedr_jax.files import shipped

plt.rcParams["figure.dpi"] = 70
ae = aedr.load_autoencoder("mini-kl4-a")  # with a network: "sd1.5", "flux", "org/repo/vae", or your own folder
print(f"{jax.device_count()} device(s): {jax.devices()[0].device_kind}; family {aedr.weights_hash(ae)[:12]}")

# %% [markdown]
# ## Load
#
# Images are float32 NHWC in [-1, 1]: `read_image` gives uint8 pixels, `prepare` makes images of them. Each folder holds
# the images of the miniature model of that name, or photographs (licences in its `README.md`).

# %%
names = ["mini-kl4-a", "mini-kl16", "mini-vq"]  # five ship: `aedr attribute examples` asks them all
paths = [path for name in (*names, "photographs") for path in sorted((shipped("examples") / name).glob("*.png"))]
labels = [f"{path.parent.name}/{path.name}" for path in paths]
own = np.array([path.parent.name == "mini-kl4-a" for path in paths])
images = aedr.prepare([aedr.read_image(path) for path in paths])
images.shape

# %% [markdown]
# ## Reconstruct twice
#
# AEDR, the method that this project began with, passes an image through the autoencoder twice. The first pass changes a
# photograph more than the second one does; an own image is changed as little by either. An autoencoder is a pytree:
# pass it to a jitted function as an argument, and models of one architecture share one compiled program.

# %%
first, second = jax.jit(aedr.double_reconstruct)(ae, images)
fig, grid = plt.subplots(2, 5, figsize=(12, 5), layout="constrained")
for axes, index in zip(grid, (0, len(paths) - 1), strict=True):
    x, r1, r2 = (np.clip((np.asarray(a[index]) + 1) / 2, 0, 1) for a in (images, first, second))
    for axis, picture, title in zip(
        axes[:3], (x, r1, r2), (labels[index], "r1 = D(E(x))", "r2 = D(E(r1))"), strict=True
    ):
        axis.imshow(picture)
        axis.set_title(title)
    for axis, change, title in zip(axes[3:], (r1 - x, r2 - r1), ("|r1 − x|", "|r2 − r1|"), strict=True):
        axis.imshow(np.abs(change).mean(-1), cmap="magma", vmin=0, vmax=0.15)
        axis.set_title(f"{title}, mean {np.abs(change).mean():.3f}")
for axis in grid.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Measure
#
# `measure` is a pure function. Beside the two losses and their ratio it gives the alignment: how the image stands on
# the decoder's grid, held against its own moved and turned copies. It is about 0 for images that have nothing to do
# with the model, and far below for its own. `make_sharded(aedr.measure)` spreads the same over every device.

# %%
measure = jax.jit(aedr.measure)
measured = measure(ae, images)
print(f"{'image':28s} {'ratio':>6s} {'alignment':>10s} {'over its error':>15s}")
for label, *values in zip(labels, measured.ratio, measured.alignment, measured.standing, strict=True):
    ratio, alignment, standing = map(float, values)
    print(f"{label:28s} {ratio:6.2f} {alignment:10.2f} {standing:15.1f}")

# %% [markdown]
# ## Verdict
#
# Nothing is calibrated. A foreign p-value says how many images that have nothing to do with a model stand as firmly on
# its grid; their scores ship with the package. A model accepts where it is at most `false_names`, .05, adjusted for the
# number of candidates; of several the one with the lowest alignment is named. A verdict needs the
# alignment alone, which `SignalConfig.tiles()` measures.

# %%
align = jax.jit(lambda ae, x: aedr.measure(ae, x, config=aedr.SignalConfig.tiles()))
others = {name: align(aedr.load_autoencoder(name), images) for name in names[1:]}
result = aedr.attribute({names[0]: measured, **others})
print(f"{'image':28s} {'verdict':12s} foreign p-values of {', '.join(names)}")
for label, verdict, row in zip(labels, result.verdicts, result.foreign_p_values, strict=True):
    print(f"{label:28s} {verdict:12s} {', '.join(f'{p:.3f}' for p in row)}")

# %% [markdown]
# "none" means: none of these candidates. It does not mean a real photograph: closed services, GANs and autoencoders
# that were not among the candidates end there too. A name means: this model, or one that shares its autoencoder's
# encoder.

# %%
null = aedr.Null.shipped()
standing = np.asarray(measured.standing)
plt.figure(figsize=(8, 2.6))
plt.hist(null.groups["mini-kl4-a"], bins=60, density=True, alpha=0.4, label="foreign images of the reference")
plt.axvline(null.threshold(0.05 / len(names)), color="black", label=f"p = .05 / {len(names)}")
plt.plot(standing[own], np.full(own.sum(), 0.02), "|", ms=20, mew=2, label="own")
plt.plot(standing[~own], np.full((~own).sum(), 0.02), "|", ms=20, label="other models, photographs")
plt.xlabel("alignment over its error, mini-kl4-a")
plt.legend()
plt.show()

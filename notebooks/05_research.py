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
# # For research
#
# Every score is a pure function of arrays and pytrees. So it has a gradient, a new one takes ten lines and the whole
# decision machinery works for it, and the alignment can be looked at block by block.

# %% [markdown]
# `pip install ".[notebook]"` in a checkout; this notebook then runs in any folder.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr
from aedr_jax.files import shipped
from aedr_jax.generate.miniature import sample_images

plt.rcParams["figure.dpi"] = 60
ae = aedr.load_autoencoder("mini-kl4-a")
own = aedr.prepare(sample_images("mini-kl4-a", range(24)))
folders = ("photographs", "mini-kl16", "mini-vq", "mini-movq")
paths = [path for folder in folders for path in sorted((shipped("examples") / folder).glob("*.png"))]
foreign = aedr.prepare([aedr.read_image(path) for path in paths])

# %% [markdown]
# ## Gradients
#
# The standing (the alignment over its own error) of an image decides. Its gradient with respect to the pixels goes
# through the autoencoder, the bands, the moved and turned copies and the error. One signed step of two grey levels,
# away from the model for an own image and towards it for a photograph, shows what a white-box attack begins with.

# %%
config = aedr.SignalConfig.tiles()
smooth = dataclasses.replace(config, alignment=aedr.AlignmentConfig(least_turned=None))  # a veto has no gradient


@jax.jit
def standing_and_gradient(ae, x):
    def total(x):
        standing = aedr.measure(ae, x, config=smooth).standing
        return standing.sum(), standing

    gradient, standing = jax.grad(total, has_aux=True)(x)
    return standing, gradient


x = jnp.concatenate([own[:1], foreign[:1]])
before, gradient = standing_and_gradient(ae, x)
direction = jnp.array([1.0, -1.0])[:, None, None, None]
stepped = jnp.clip(x + direction * (2 / 127.5) * jnp.sign(gradient), -1, 1)

images = np.concatenate([own, foreign, stepped])
measured = jax.jit(lambda ae, x: aedr.measure(ae, x, config=config))(ae, images)
standings = np.stack([before, measured.standing[-2:]], axis=1)
for name, standing, p in zip(("own", "photograph"), standings, aedr.Null.shipped().p_value(standings), strict=True):
    print(f"{name:10s} standing {standing[0]:6.1f} -> {standing[1]:6.1f}, foreign p {p[0]:.3f} -> {p[1]:.3f}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
for i, name in enumerate(("own", "photograph")):
    axes[2 * i].imshow(np.clip((x[i] + 1) / 2, 0, 1))
    axes[2 * i].set_title(name)
    size = np.abs(gradient[i]).mean(-1)
    axes[2 * i + 1].imshow(size, cmap="magma", vmax=np.quantile(size, 0.99))
    axes[2 * i + 1].set_title("|gradient of the standing|")
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# The margin is dark: its pixels do not count. `docs/decision.md` has 20 such steps on 40 images of every model and
# photograph (`python -m benchmarks.attacks`): a name is no proof against somebody who has the weights.
#
# ## A new signal
#
# What does the alignment owe to holding an image against its own copies? The energy of the residual's fine detail after
# one pass, small where the image belongs, and the same over that of one moved copy: two passes in place of six, and no
# turns.


# %%
from aedr_jax.signal.alignment import box_mean


def fine_detail(ae, images):
    """Energy of the residual's detail finer than 5 pixels, and the same over a moved copy's; [n] each."""
    n, side = len(images), images.shape[1] - ae.factor
    copies = jnp.concatenate([images[:, :side, :side], images[:, 3 : side + 3, 5 : side + 5]])
    residual = jnp.clip(ae.decode(ae.encode(copies)), -1, 1) - copies
    fine = residual - box_mean(residual, 5)
    energy = jnp.square(fine[:, 16:-16, 16:-16]).mean((1, 2, 3))
    return energy[:n], energy[:n] / energy[n:]


plain, over_a_copy = map(np.asarray, jax.jit(fine_detail)(ae, images[:-2]))
alignments = np.asarray(measured.alignment[:-2])

# %% [markdown]
# That is all it takes: it jits, shards (`make_sharded(fine_detail)`) and calibrates. How well it separates, beside the
# alignment on the same images, as the area under the curve:

# %%
from aedr_jax.study.metrics import area_under_curve

is_own = np.arange(len(plain)) < len(own)
shown = {"fine detail": np.log(plain), "over a copy's": np.log(over_a_copy), "alignment": alignments}
for name, scores in shown.items():
    print(f"{name:14s} AUC {area_under_curve(scores[is_own], scores[~is_own]):.3f}")

calibration = aedr.calibrate(over_a_copy[:20], method="fine detail", model="mini-kl4-a", autoencoder=ae)
verdicts = aedr.attribute({"mini-kl4-a": over_a_copy[20:]}, {"mini-kl4-a": calibration}).verdicts
named = np.array([verdict == "mini-kl4-a" for verdict in verdicts])
print(f"calibrated on 20: {named[:4].sum()} of 4 own and {named[4:].sum()} of {len(foreign)} foreign images are named")

# %%
fig, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
for axis, (name, scores) in zip(axes, shown.items(), strict=True):
    bins = np.linspace(np.min(scores), np.max(scores), 24)
    axis.hist(scores[is_own], bins=bins, alpha=0.6, label="own")
    axis.hist(scores[~is_own], bins=bins, alpha=0.6, label="foreign")
    axis.set_xlabel(name if name == "alignment" else f"log of {name}")
axes[0].legend()
plt.show()

# %% [markdown]
# On these few images the ratio does all that the alignment does. What the alignment's further copies, bands and error
# are there for shows on compressed images and in the tails: `docs/decision.md` has what was compared.
#
# ## A map
#
# `alignment_map` is the same block by block. A mosaic of photographs, 256 × 256, with a square of the model's own
# pixels in its middle, where its grid is the image's: blocks of 16 pixels, `standardized` over the spread of the
# image's own controls.

# %%


def mosaic(parts):
    return np.concatenate([np.concatenate(parts[i : i + 2], axis=1) for i in (0, 2)])


composite = mosaic(np.asarray(foreign[:4]))
composite[64:192, 64:192] = mosaic(np.asarray(own[:4]))[64:192, 64:192]
blocks = np.asarray(jax.jit(lambda ae, x: aedr.alignment_map(ae, x, standardized=True))(ae, composite[None]))[0]
margin = aedr.AlignmentConfig().margin
fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
axes[0].imshow(np.clip((composite + 1) / 2, 0, 1))
height, width = (margin + side * 16 for side in blocks.shape)
shown = axes[1].imshow(blocks, cmap="RdBu", vmin=-4, vmax=4, extent=(margin, width, height, margin))
axes[1].set(xlim=(0, 256), ylim=(256, 0))
for axis in axes:
    axis.add_patch(plt.Rectangle((64, 64), 128, 128, fill=False, lw=2))
plt.colorbar(shown, label="alignment of the block, standardized")
plt.show()
inside = np.zeros((256, 256), bool)
inside[64:192, 64:192] = True
inside = inside[margin:height, margin:width][8::16, 8::16]
print(f"blocks below -2: {(blocks[inside] < -2).mean():.2f} inside, {(blocks[~inside] < -2).mean():.2f} outside")

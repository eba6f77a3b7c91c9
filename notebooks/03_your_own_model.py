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
# # Your own model
#
# Whatever autoencoder a generative model decodes with can be a candidate: a checkpoint in diffusers' layout, or any
# pair of JAX functions. Nothing has to be trained or calibrated; a calibration on the model's own images refines.

# %% [markdown]
# `pip install ".[notebook]"` in a checkout; this notebook then runs in any folder.

# %%
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr
from aedr_jax.autoencoders.registry import local_folder
from aedr_jax.files import shipped
from aedr_jax.generate.miniature import sample_images

plt.rcParams["figure.dpi"] = 70

# %% [markdown]
# ## A diffusers checkpoint
#
# A folder with `config.json` and safetensors, as `pipe.vae.save_pretrained("my-vae")` writes it. The miniature models
# ship in just that layout, so one of theirs stands for yours. A path of the hub, `"org/repo/vae"`, would do as well; no
# PyTorch is needed, and no pickle is opened.

# %%
folder = Path("my-vae")
folder.mkdir(exist_ok=True)
for name in ("config.json", "diffusion_pytorch_model.safetensors"):
    shutil.copy(local_folder("mini-kl4-a") / name, folder)

mine = aedr.load_autoencoder(folder)
parameters = sum(leaf.size for leaf in jax.tree.leaves(mine))
print(f"{type(mine).__name__}: {parameters:,} parameters, factor {mine.factor}, hash {aedr.weights_hash(mine)[:12]}")

# %% [markdown]
# ## Plain functions
#
# `from_functions` takes `encode(params, images)` and `decode(params, latents)`. The least that can be called a
# generative model with a decoder: 24 principal components of 8 × 8 patches, and a Gaussian over them. What it makes is
# no beauty, but it stands on a grid. The patches are taken at many offsets, mirrored and turned: fitted to one grid
# only, the components would know the photographs' own patches better than moved ones, and photographs would be named.

# %%
P = 8


def to_patches(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // P, P, w // P, P, c).swapaxes(2, 3).reshape(n, h // P, w // P, P * P * c)


def encode(params, images):
    return (to_patches(images) - params["mean"]) @ params["basis"]


def decode(params, latents):
    n, h, w, _ = latents.shape
    patches = latents @ params["basis"].T + params["mean"]
    return patches.reshape(n, h, w, P, P, 3).swapaxes(2, 3).reshape(n, h * P, w * P, 3)


photographs = aedr.prepare(
    [aedr.read_image(path) for path in sorted((shipped("examples") / "photographs").glob("*.png"))]
)
turns = [photographs, photographs[:, :, ::-1], np.rot90(photographs, axes=(1, 2))]
offsets = [(y, x) for y in range(0, P, 2) for x in range(0, P, 2)]
patches = [to_patches(turn[:, y : y + 120, x : x + 120]).reshape(-1, P * P * 3) for turn in turns for y, x in offsets]
patches = np.concatenate(patches)
variances, components = np.linalg.eigh(np.cov(patches, rowvar=False))
params = {"mean": jnp.asarray(patches.mean(0)), "basis": jnp.asarray(components[:, -24:], jnp.float32)}
linear = aedr.from_functions(encode, decode, params, factor=P)

deviations = jnp.sqrt(jnp.asarray(variances[-24:], jnp.float32))
latents = deviations * jax.random.normal(jax.random.key(0), (4, 16, 16, 24))
pixels = np.asarray(jnp.clip(jnp.round((linear.decode(latents) + 1) * 127.5), 0, 255).astype(jnp.uint8))

# %% [markdown]
# ## Attribute
#
# 24 images of the checkpoint's model, four of the patches', two by a cousin that shares the checkpoint's encoder (with
# another decoder), two by a stranger, and the photographs, which no model made. One compiled program for each
# architecture.

# %%
own = sample_images("mini-kl4-a", range(24))
sources = ["my-vae"] * 24 + ["patches"] * 4
others = [path for name in ("mini-kl4-b", "mini-kl16") for path in sorted((shipped("examples") / name).glob("*.png"))]
sources += [path.parent.name for path in others] + ["photograph"] * len(photographs)
images = np.concatenate([aedr.prepare([*own, *pixels, *map(aedr.read_image, others)]), photographs])

config = aedr.SignalConfig.tiles()  # the alignment and no more: what decides
measure = jax.jit(lambda ae, x: aedr.measure(ae, x, config=config))
measured = {"my-vae": measure(mine, images), "patches": measure(linear, images)}
result = aedr.attribute(measured)

print(f"{'image of':12s} {'verdict':12s} {'alignments':>14s} foreign p-values")
for i in range(22, len(sources)):
    alignments = " ".join(f"{score:6.2f}" for score in result.scores[i])
    print(f"{sources[i]:12s} {result.verdicts[i]:12s} {alignments:>14s} {result.foreign_p_values[i].round(3)}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, i in zip(axes, (22, 24, 28, len(sources) - 1), strict=True):
    axis.imshow(np.clip((images[i] + 1) / 2, 0, 1))
    axis.set_title(f"{sources[i]}: {result.verdicts[i]}")
    axis.axis("off")
plt.show()

# %% [markdown]
# The cousin's images are named "my-vae": a name means this model, or one that shares its encoder.
#
# ## Calibrate
#
# Images known to be the model's own give the other null hypothesis: "made by this model". Its p-value turns away what
# is aligned, but less than the model's own images are. 20 calibrate; the other four are tested.

# %%
calibration = aedr.calibrate(measured["my-vae"].take(slice(20)), config=config, autoencoder=mine, model="my-vae")
calibration.save("my-vae.json")
calibration = aedr.Calibration.load("my-vae.json")
low, high = calibration.acceptance_interval
print(f"alignments below {calibration.threshold:.3f}: {low:.2f} to {high:.2f} of own images (95 %)")

# %%
rest = {name: values.take(slice(20, None)) for name, values in measured.items()}
refined = aedr.attribute(rest, {"my-vae": calibration})
print(f'{"image of":12s} {"verdict":12s} p-value of "my-vae\'s"')
for source, verdict, p in zip(sources[20:], refined.verdicts, refined.p_values[:, 0], strict=True):
    print(f"{source:12s} {verdict:12s} {p:.3f}")

# %%
bins = np.linspace(result.scores[:, 0].min(), 0.5, 40)
plt.figure(figsize=(8, 2.6))
for label in ("my-vae", "mini-kl4-b", "mini-kl16", "patches", "photograph"):
    plt.hist(result.scores[np.array(sources) == label, 0], bins=bins, alpha=0.6, label=label)
plt.axvline(calibration.threshold, color="black", label="threshold")
plt.xlabel("alignment under my-vae")
plt.legend()
plt.show()

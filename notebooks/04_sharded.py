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
# # Many devices, many images
#
# Every image is measured by itself, so a batch spreads over devices with no communication. This notebook takes the TPU
# or GPU that is there, and otherwise makes eight devices of the CPU: a dress rehearsal on the code that a pod would
# run.

# %% [markdown]
# `pip install ".[notebook,tfds]"` in a checkout; this notebook then runs in any folder.

# %%
import os

# It makes devices of the CPU only, and is read when JAX is first used: with an accelerator it changes nothing.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import re
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
from jax.sharding import Mesh

import aedr_jax as aedr
from aedr_jax.files import shipped

# %% [markdown]
# ## A TPU, or what there is
#
# On a TPU machine install JAX with `pip install ".[tpu]"`, on a GPU with `".[cuda12]"`. Nothing else changes.

# %%
try:
    devices = jax.local_devices(backend="tpu")
except RuntimeError:
    devices = jax.local_devices()
    print("no TPU here")
print(f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})")

# %% [markdown]
# ## A mesh
#
# `make_sharded` takes a function of one autoencoder and batches of images. The autoencoder is copied to every device, a
# batch is split; one that the devices do not divide is padded outside the compiled program, and cut back. Settings are
# closed over. Without `mesh=` it takes every local device.

# %%
paths = sorted(shipped("examples").glob("*/*.png"))
images = aedr.prepare([aedr.read_image(path) for path in paths])
ae = aedr.load_autoencoder("mini-kl4-a")
config = aedr.SignalConfig.tiles()


def measure(ae, images):
    return aedr.measure(ae, images, config=config)


mesh = Mesh(np.array(devices), ("images",))
sharded = aedr.make_sharded(measure, mesh=mesh)
everywhere = sharded.replicate(ae)  # once; calls then copy nothing
measured = sharded(everywhere, images)
print(measured.alignment.sharding)
print(f"{len(images)} images, {measured.alignment.addressable_shards[0].data.size} on each device")

# %% [markdown]
# ## The same, with no communication
#
# One device gives the same values up to the order of float32 sums. The compiled program has no collective in it.

# %%
alone = jax.jit(measure)(ae, images[:4])
print(f"largest difference of an alignment: {np.abs(measured.alignment[:4] - alone.alignment).max():.1e}")
program = sharded.jitted.lower(everywhere, (images,), {}).compile().as_text()
collectives = re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", program)
print(f"{len(program.splitlines()):,} lines of HLO, {len(collectives)} collectives")

# %% [markdown]
# ## A dataset
#
# `score_dataset` streams a source of any size into a Parquet folder over all devices, decodes in other processes, and
# the same call goes on where it was stopped. Folders, tars, tables, Hugging Face datasets and tensorflow-datasets are
# sources; `"tfds:NAME:SPLIT"` names a registered one. Here one is built on the spot. TFDS is read as bytes, with no
# TensorFlow.

# %%
import tensorflow_datasets as tfds


class Examples(tfds.core.GeneratorBasedBuilder):
    """The images that ship with aedr_jax."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "id": tfds.features.Text()}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for path in paths:
            name = f"{path.parent.name}/{path.name}"
            yield name, {"image": str(path), "id": name}


tfds.disable_progress_bar()
builder = Examples(data_dir="tensorflow_datasets", file_format="array_record")
builder.download_and_prepare()
data = builder.as_data_source(split="test", decoders={"image": tfds.decode.SkipDecoding()})

# %%
from aedr_jax.inputs.containers import from_tfds

source = from_tfds(data, name="examples", id_column="id")
models = {"mini-kl4-a": "mini-kl4-a"}
first = aedr.score_dataset(source, models, "scores", config=config, batch_size=len(images), workers=1)
again = aedr.score_dataset(source, models, "scores", config=config, batch_size=len(images), workers=1)
print(f"first: {first}\nagain: {again}")

# %% [markdown]
# Rows have the ids of the dataset, and every measured column. A foreign p-value is one call away.

# %%
rows = pq.read_table("scores").to_pylist()
standings = np.array([row["alignment"] / row["alignment_error"] for row in rows])
p_values = aedr.Null.shipped().p_value(standings)
for row, standing, p in sorted(zip(rows, standings, p_values, strict=True), key=lambda found: found[1]):
    print(f"{row['id']:28s} standing {standing:6.1f}  foreign p {float(p):.3f}")
print(f"parts: {len(list(Path('scores').glob('*.parquet')))}")

# %% [markdown]
# The first two images are the model's own, the next two come from a model that shares its encoder; the others stand
# where foreign images do. Several machines share the work with `shard="auto"` on a TPU pod, or `engine="ray"` on a
# cluster (`docs/large.md`).

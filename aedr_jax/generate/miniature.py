"""The miniature models as generators: a small latent flow for each, so that belonging images are made, not re-encoded.

A `LatentFlow` is trained by flow matching (`weights/train_sampler.py`) on the latents of a miniature autoencoder:
from noise x₀ and latents x₁, x_t = (1 − t) x₀ + t x₁, it predicts x₁ − x₀. Sampling integrates that field from t = 0
to 1. It is a convolutional U-Net without fixed positions, and so makes latents of any size. Real models are sampled
with their own pipelines (`pipelines.py`).

Reference: Lipman et al., Flow Matching for Generative Modeling, 2023.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics, conv, group_norm
from aedr_jax.autoencoders.checkpoints import shapes_of, to_flat_dict, with_values
from aedr_jax.autoencoders.convolutions import upsample_nearest
from aedr_jax.autoencoders.family import OneKey
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.autoencoders.registry import REGISTRY, local_folder
from aedr_jax.autoencoders.tensors import read_tensors
from aedr_jax.errors import AutoencoderError

__all__ = ["FlowConfig", "LatentFlow", "load_flow", "sample_images", "sample_latents", "save_flow"]

GROUPS = 8
TIME_WIDTH = 64
STEPS = 20
BATCH = 4  # one compiled program whatever the number of images, so that none depends on its neighbours
NUMERICS = Numerics()


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """The latents' channels with their mean and standard deviation, and the network's widths, finest level first."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    widths: tuple[int, ...] = (48, 64, 64)

    @property
    def channels(self) -> int:
        return len(self.mean)


class FlowBlock(nnx.Module):
    """norm, silu, conv, twice; the time scales and shifts the second norm."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.norm1 = group_norm(inputs, GROUPS, NUMERICS, rngs)
        self.conv1 = conv(inputs, outputs, 3, NUMERICS, rngs)
        self.time = nnx.Linear(TIME_WIDTH, 2 * outputs, rngs=rngs)
        self.norm2 = group_norm(outputs, GROUPS, NUMERICS, rngs)
        self.conv2 = conv(outputs, outputs, 3, NUMERICS, rngs)
        self.shortcut = conv(inputs, outputs, 1, NUMERICS, rngs) if inputs != outputs else None

    def __call__(self, x: Float[Array, "n h w c"], time: Float[Array, "n e"]) -> Float[Array, "n h w d"]:
        scale, shift = jnp.split(self.time(time)[:, None, None], 2, axis=-1)
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h) * (1 + scale) + shift))
        return h + (x if self.shortcut is None else self.shortcut(x))


class LatentFlow(nnx.Module):
    """The velocity of normalized latents: `flow(x, t)` with x [n, h, w, c] and t [n] in [0, 1]."""

    def __init__(self, config: FlowConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        widths = config.widths
        self.time1 = nnx.Linear(TIME_WIDTH, TIME_WIDTH, rngs=rngs)
        self.time2 = nnx.Linear(TIME_WIDTH, TIME_WIDTH, rngs=rngs)
        self.conv_in = conv(config.channels, widths[0], 3, NUMERICS, rngs)
        self.down = nnx.List([FlowBlock(width, width, rngs) for width in widths[:-1]])
        self.shrink = nnx.List(
            [nnx.Conv(a, b, (3, 3), strides=2, padding="SAME", rngs=rngs) for a, b in itertools.pairwise(widths)]
        )
        self.middle = nnx.List([FlowBlock(widths[-1], widths[-1], rngs) for _ in range(2)])
        self.up = nnx.List([FlowBlock(a + b, a, rngs) for a, b in zip(widths, widths[1:])])  # noqa: B905, RUF007
        self.norm_out = group_norm(widths[0], GROUPS, NUMERICS, rngs)
        self.conv_out = conv(widths[0], config.channels, 3, NUMERICS, rngs)

    def __call__(self, x: Float[Array, "n h w c"], t: Float[Array, "n"]) -> Float[Array, "n h w c"]:
        time = nnx.silu(self.time2(nnx.silu(self.time1(time_features(t)))))
        x = self.conv_in(x)
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            skips.append(block(x, time))
            x = shrink(skips[-1])
        for block in self.middle:
            x = block(x, time)
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            # An odd size was rounded up on its way down.
            x = upsample_nearest(x, 2)[:, : skip.shape[1], : skip.shape[2]]
            x = block(jnp.concatenate([skip, x], axis=-1), time)
        return self.conv_out(nnx.silu(self.norm_out(x)))


def time_features(t: Float[Array, "n"]) -> Float[Array, "n e"]:
    """Sines and cosines of t at frequencies from 1 to 1,000."""
    angles = t[:, None] * jnp.geomspace(1.0, 1000.0, TIME_WIDTH // 2, dtype=jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sample_latents(flow: LatentFlow, noise: Float[Array, "n h w c"], *, steps: int = STEPS) -> Float[Array, "n h w c"]:
    """Latents from standard normal noise, by `steps` steps of Heun's method."""

    def step(i: Array, x: Array) -> Array:
        t = jnp.full(x.shape[0], i / steps, jnp.float32)
        first = flow(x, t)
        second = flow(x + first / steps, t + 1 / steps)
        return x + (first + second) / (2 * steps)

    config = flow.config
    x = jax.lax.fori_loop(0, steps, step, noise)
    return x * jnp.asarray(config.std, jnp.float32) + jnp.asarray(config.mean, jnp.float32)


def sample_images(
    model: str, seeds: Sequence[int], *, size: tuple[int, int] | None = None, steps: int = STEPS
) -> np.ndarray:
    """Images of a miniature model: each belongs to its own seed, whatever else is asked for with it.

    Args:
      model: a miniature model's name.
      seeds: one for each image.
      size: height and width, multiples of the autoencoder's factor; None: the model's native size.
      steps: of the integration.

    Returns:
      uint8 [n, h, w, 3].

    Raises:
      AutoencoderError: for another model, or a size that it cannot make.
    """
    autoencoder, flow = _generator(model)
    side = REGISTRY[model].native_size
    assert side is not None  # of a miniature model it is known
    height, width = size or (side, side)
    factor = autoencoder.factor
    if min(height, width) < factor or height % factor or width % factor:
        raise AutoencoderError(f"size {width}x{height}: {model} makes images whose sides are multiples of {factor}")
    shape = (height // factor, width // factor, flow.config.channels)
    images = [np.zeros((0, height, width, 3), np.uint8)]
    for start in range(0, len(seeds), BATCH):
        chosen = list(seeds[start : start + BATCH])
        padded = chosen + [0] * (BATCH - len(chosen))
        noise = jnp.stack([jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in padded])
        images.append(np.asarray(_decoded_samples(autoencoder, flow, noise, steps=steps))[: len(chosen)])
    return np.concatenate(images)


@functools.partial(jax.jit, static_argnames="steps")
def _decoded_samples(autoencoder: Any, flow: LatentFlow, noise: Array, *, steps: int) -> Array:
    images = autoencoder.decode(sample_latents(flow, noise, steps=steps))
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)


@functools.lru_cache(maxsize=8)
def _generator(model: str) -> tuple[Any, LatentFlow]:
    return load_autoencoder(model), load_flow(model)


def save_flow(flow: LatentFlow, folder: Path) -> Path:
    """Write `sampler.json` and `sampler.safetensors` (float16); returns the latter."""
    from safetensors.numpy import save_file

    path = folder / "sampler.safetensors"
    save_file({name: value.astype(np.float16) for name, value in to_flat_dict(flow).items()}, path)
    (folder / "sampler.json").write_text(json.dumps(dataclasses.asdict(flow.config), indent=2) + "\n")
    return path


def load_flow(model: str) -> LatentFlow:
    """The latent flow of a miniature model.

    Raises:
      AutoencoderError: where the model has none, or its files do not fit each other.
    """
    folder = local_folder(model)
    path = folder / "sampler.safetensors" if folder else None
    if path is None or not path.is_file():
        raise AutoencoderError(f"{model}: no sampler beside its weights; it cannot generate")
    raw = json.loads((path.parent / "sampler.json").read_text())
    config = FlowConfig(**{name: tuple(value) for name, value in raw.items()})
    abstract = nnx.eval_shape(lambda: LatentFlow(config, OneKey()))
    tensors = read_tensors(path)
    if shapes_of(abstract) != {name: value.shape for name, value in tensors.items()}:
        raise AutoencoderError(f"{path}: its tensors are not those of the network that sampler.json describes")
    return with_values(abstract, tensors)

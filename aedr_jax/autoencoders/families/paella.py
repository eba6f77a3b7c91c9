"""`PaellaVQModel`: the autoencoder of Würstchen and Stable Cascade, 4 times smaller at 4 channels; images in [0, 1].

It has a codebook, which its pipelines pass by.

Reference: `diffusers.pipelines.wuerstchen.PaellaVQModel` 0.39.0.
"""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics, conv, fold, unfold
from aedr_jax.autoencoders.family import Architecture, CodebookNetwork, Family
from aedr_jax.autoencoders.grouped import DepthwiseConv
from aedr_jax.autoencoders.norms import BatchNorm, layer_norm
from aedr_jax.autoencoders.quantizer import Quantizer

__all__ = ["PAELLA", "PaellaArchitecture", "PaellaVQModel"]


@dataclasses.dataclass(frozen=True)
class PaellaArchitecture(Architecture):
    """The fields of a `PaellaVQModel`."""

    in_channels: int = 3
    out_channels: int = 3
    up_down_scale_factor: int = 2
    levels: int = 2
    bottleneck_blocks: int = 12
    embed_dim: int = 384
    latent_channels: int = 4
    num_vq_embeddings: int = 8192

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the levels, from high resolution to low."""
        return tuple(self.embed_dim // 2**i for i in reversed(range(self.levels)))

    @property
    def factor(self) -> int:
        return self.up_down_scale_factor * 2 ** (self.levels - 1)

    @property
    def label(self) -> str:
        return f"Paella, {self.latent_channels} channels"

    def problems(self) -> list[str]:
        problems = self.not_rgb("in_channels", "out_channels")
        if self.levels > 16 or not all(self.widths):
            problems.append(f"embed_dim {self.embed_dim} is too narrow for {self.levels} levels")
        return problems


class MixingBlock(nnx.Module):
    """Each channel with its neighbours, then each position by itself; six numbers shift and weigh the two steps."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        options = {"dtype": numerics.dtype, "precision": numerics.precision, "rngs": rngs}
        self.depthwise = DepthwiseConv(channels, 3, numerics, rngs, padding="edge")
        self.widen = nnx.Linear(channels, 4 * channels, **options)
        self.narrow = nnx.Linear(4 * channels, channels, **options)
        self.gammas = nnx.Param(jnp.zeros(6))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        mods = self.gammas[...].astype(x.dtype)
        h = layer_norm(x) * (1 + mods[0]) + mods[1]
        x = x + self.depthwise(h) * mods[2]
        h = layer_norm(x) * (1 + mods[3]) + mods[4]
        return x + self.narrow(jax.nn.gelu(self.widen(h), approximate=False)) * mods[5]


class Normalized(nnx.Module):
    """A 1×1 convolution to latents that the training's statistics bring to mean 0 and deviation 1."""

    def __init__(self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv = conv(inputs, outputs, 1, numerics, rngs, bias=False)
        self.norm = BatchNorm(outputs, numerics)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w z"]:
        return self.norm(self.conv(x))


class PaellaVQModel(CodebookNetwork):
    """Squares of pixels to channels, mixing blocks with halvings between them, and back."""

    architecture: PaellaArchitecture
    quantizes = False  # unlike `VQModel`, diffusers' class passes the codebook by unless told otherwise

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, widths, z = self.architecture, self.architecture.widths, self.architecture.latent_channels
        pixels = a.up_down_scale_factor**2
        self.in_block = conv(a.in_channels * pixels, widths[0], 1, numerics, rngs)
        down: list[nnx.Module] = []
        for i, width in enumerate(widths):
            if i > 0:
                down.append(conv(widths[i - 1], width, 4, numerics, rngs, stride=2, padding=1))
            down.append(MixingBlock(width, numerics, rngs))
        self.down_blocks = nnx.List([*down, Normalized(widths[-1], z, numerics, rngs)])
        self.quantizer = Quantizer(a.num_vq_embeddings, z, rngs)
        up: list[nnx.Module] = [conv(z, widths[-1], 1, numerics, rngs)]
        for i, width in enumerate(reversed(widths)):
            up += [MixingBlock(width, numerics, rngs) for _ in range(a.bottleneck_blocks if i == 0 else 1)]
            if i < a.levels - 1:
                options = {"dtype": numerics.dtype, "precision": numerics.precision, "rngs": rngs}
                up.append(nnx.ConvTranspose(width, widths[-2 - i], (4, 4), strides=2, padding="SAME", **options))
        self.up_blocks = nnx.List(up)
        self.out_block = conv(widths[0], a.out_channels * pixels, 1, numerics, rngs)

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        x = self.in_block(fold(x, self.architecture.up_down_scale_factor))
        for block in self.down_blocks:
            x = block(x)
        return x

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        x = z
        for block in self.up_blocks:
            x = block(x)
        return unfold(self.out_block(x), self.architecture.up_down_scale_factor)


def _turned(key: str, value: np.ndarray) -> np.ndarray:
    """PyTorch keeps a transposed convolution's kernel as that of the convolution it undoes."""
    return value.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] if re.search(r"^up_blocks\.\d+\.weight$", key) else value


PAELLA = Family(
    class_name="PaellaVQModel",
    architecture=PaellaArchitecture,
    network=PaellaVQModel,
    scaling_factor=0.3764,
    image_range=(0.0, 1.0),
    ignored_fields={"scale_factor": "of the diffusion model's latents; cancels in a reconstruction"},
    key_rules=(
        (r"^in_block\.1\.", "in_block."),
        (r"^out_block\.0\.", "out_block."),
        (r"^up_blocks\.0\.0\.", "up_blocks.0."),
        (r"^(down_blocks\.\d+)\.0\.", r"\1.conv."),
        (r"^(down_blocks\.\d+)\.1\.(?=\w+$)", r"\1.norm."),
        (r"\.depthwise\.1\.", ".depthwise."),
        (r"\.channelwise\.0\.", ".widen."),
        (r"\.channelwise\.2\.", ".narrow."),
        (r"^vquantizer\.embedding\.weight$", "quantizer.embedding.embedding"),
    ),
    adapt=_turned,
)

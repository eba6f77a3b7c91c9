"""`AutoencoderKLHunyuanImage`: the autoencoder of HunyuanImage 2.1, 32 times smaller at 64 channels.

Its blocks are `AutoencoderKL`'s, in one flat list; its resampling folds pixels into channels, with shortcuts that
average or repeat channels.

Reference: `diffusers.AutoencoderKLHunyuanImage` 0.39.0.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import (
    MidBlock,
    Numerics,
    ResnetBlock,
    conv,
    from_squares,
    group_norm,
    mean_of_runs,
    to_squares,
)
from aedr_jax.autoencoders.family import Architecture, Family, GaussianNetwork

__all__ = ["HUNYUAN_IMAGE", "AutoencoderKLHunyuanImage", "HunyuanImageArchitecture"]

GROUPS = 32


@dataclasses.dataclass(frozen=True)
class HunyuanImageArchitecture(Architecture):
    """The fields of a `diffusers.AutoencoderKLHunyuanImage`. It has no defaults; these are HunyuanImage 2.1's."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 64
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    layers_per_block: int = 2
    spatial_compression_ratio: int = 32

    @property
    def factor(self) -> int:
        return self.spatial_compression_ratio

    @property
    def label(self) -> str:
        return f"HunyuanImage, {self.latent_channels} channels"

    def problems(self) -> list[str]:
        widths, z = self.block_out_channels, self.latent_channels
        problems = self.not_rgb("in_channels", "out_channels")
        if 2 ** (len(widths) - 1) != self.spatial_compression_ratio:
            # Blocks that change the width without resampling add the wrong branch in diffusers, which raises.
            problems.append(
                f"spatial_compression_ratio = {self.spatial_compression_ratio}; expected a halving between any two of "
                f"the {len(widths)} blocks"
            )
        if any(width % GROUPS for width in widths):
            problems.append(f"block_out_channels {widths} are no multiples of {GROUPS}")
        elif any(4 * a % b or 4 * b % a for a, b in itertools.pairwise(widths)):
            problems.append(f"block_out_channels {widths}: shortcuts cannot share them out among 2×2 pixels")
        if widths[-1] % (2 * z):
            problems.append(f"the last of block_out_channels, {widths[-1]}, is no multiple of 2 × {z} latent channels")
        return problems


class FoldingDown(nnx.Module):
    """Half the size: 2×2 pixels become channels, in the order row, column, channel."""

    def __init__(self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv = conv(inputs, outputs // 4, 3, numerics, rngs)
        self.outputs = outputs

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww o"]:
        return _fold(self.conv(x)) + mean_of_runs(_fold(x), self.outputs)


class UnfoldingUp(nnx.Module):
    """Twice the size: channels become 2×2 pixels, in the same order."""

    def __init__(self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv = conv(inputs, 4 * outputs, 3, numerics, rngs)
        self.repeats = 4 * outputs // inputs

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww o"]:
        return _unfold(self.conv(x)) + _unfold(jnp.repeat(x, self.repeats, axis=-1))


def _fold(x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww d"]:
    squares = jnp.moveaxis(to_squares(x, 2), 3, -1)
    return squares.reshape(*squares.shape[:3], -1)


def _unfold(x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww d"]:
    return from_squares(jnp.moveaxis(x.reshape(*x.shape[:3], 2, 2, -1), -1, 3))


def _resnets(width: int, count: int, numerics: Numerics, rngs: nnx.Rngs) -> list[nnx.Module]:
    return [ResnetBlock(width, width, GROUPS, None, numerics, rngs) for _ in range(count)]


class Encoder(nnx.Module):
    """Image to features at 1/factor of the size."""

    def __init__(self, architecture: HunyuanImageArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, widths = architecture, architecture.block_out_channels
        self.outputs = 2 * a.latent_channels
        self.conv_in = conv(a.in_channels, widths[0], 3, numerics, rngs)
        blocks: list[nnx.Module] = []
        for i, width in enumerate(widths):
            blocks += _resnets(width, a.layers_per_block, numerics, rngs)
            blocks += [FoldingDown(width, after, numerics, rngs) for after in widths[i + 1 : i + 2]]
        self.down_blocks = nnx.List(blocks)
        self.mid_block = MidBlock(widths[-1], GROUPS, None, numerics, rngs, attention=True)
        self.norm_out = group_norm(widths[-1], GROUPS, numerics, rngs)
        self.conv_out = conv(widths[-1], self.outputs, 3, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(nnx.silu(self.norm_out(x))) + mean_of_runs(x, self.outputs)


class Decoder(nnx.Module):
    """Latents to an image."""

    def __init__(self, architecture: HunyuanImageArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, widths = architecture, architecture.block_out_channels[::-1]
        self.repeats = widths[0] // a.latent_channels
        self.conv_in = conv(a.latent_channels, widths[0], 3, numerics, rngs)
        self.mid_block = MidBlock(widths[0], GROUPS, None, numerics, rngs, attention=True)
        blocks: list[nnx.Module] = []
        for i, width in enumerate(widths):
            blocks += _resnets(width, a.layers_per_block + 1, numerics, rngs)
            blocks += [UnfoldingUp(width, after, numerics, rngs) for after in widths[i + 1 : i + 2]]
        self.up_blocks = nnx.List(blocks)
        self.norm_out = group_norm(widths[-1], GROUPS, numerics, rngs)
        self.conv_out = conv(widths[-1], a.out_channels, 3, numerics, rngs)

    def __call__(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        x = self.mid_block(self.conv_in(z) + jnp.repeat(z, self.repeats, axis=-1))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.norm_out(x)))


class AutoencoderKLHunyuanImage(GaussianNetwork):
    """Encoder and decoder."""

    architecture: HunyuanImageArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(self.architecture, numerics, rngs)
        self.decoder = Decoder(self.architecture, numerics, rngs)


HUNYUAN_IMAGE = Family(
    class_name="AutoencoderKLHunyuanImage",
    architecture=HunyuanImageArchitecture,
    network=AutoencoderKLHunyuanImage,
    fixed_fields={  # without, blocks change the width, which diffusers does not survive either
        "downsample_match_channel": (True,),
        "upsample_match_channel": (True,),
    },
    key_rules=((r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."), (r"(\.attentions\.\d+)\.proj\.", r"\1.to_out.")),
)

"""Encoder and decoder of blocks at halving sizes, as in diffusers' `vae.py`: what several families are made of.

References: `Encoder` and `Decoder` of diffusers 0.39.0.
"""

from __future__ import annotations

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import DownBlock, MidBlock, Numerics, UpBlock, apply_norm, conv, make_norm
from aedr_jax.autoencoders.family import Architecture

__all__ = ["BlockArchitecture", "Decoder", "Encoder"]

DOWN_BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # name -> has attention
UP_BLOCKS = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


@dataclasses.dataclass(frozen=True)
class BlockArchitecture(Architecture):
    """The fields that shape `Encoder` and `Decoder`."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Every block but the last halves the size."""
        return 2 ** (len(self.block_out_channels) - 1)

    def problems(self) -> list[str]:
        problems = [
            f"down_block_types: unknown block {name!r}" for name in self.down_block_types if name not in DOWN_BLOCKS
        ]
        problems += [f"up_block_types: unknown block {name!r}" for name in self.up_block_types if name not in UP_BLOCKS]
        problems += self.not_rgb("in_channels", "out_channels")
        if not len(self.down_block_types) == len(self.up_block_types) == len(self.block_out_channels):
            problems.append("down_block_types, up_block_types and block_out_channels have different lengths")
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            problems.append(f"block_out_channels {self.block_out_channels} are no multiples of norm_num_groups")
        return problems


class Encoder(nnx.Module):
    """Image to features at 1/factor of the size."""

    def __init__(self, architecture: BlockArchitecture, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, widths = architecture, architecture.block_out_channels
        last = len(widths) - 1
        self.conv_in = conv(a.in_channels, widths[0], 3, numerics, rngs)
        self.down_blocks = nnx.List(
            [
                DownBlock(
                    widths[max(i - 1, 0)],
                    widths[i],
                    a.layers_per_block,
                    a.norm_num_groups,
                    numerics,
                    rngs,
                    attention=DOWN_BLOCKS[name],
                    downsample=i < last,
                )
                for i, name in enumerate(a.down_block_types)
            ]
        )
        attention = a.mid_block_add_attention
        self.mid_block = MidBlock(widths[-1], a.norm_num_groups, None, numerics, rngs, attention=attention)
        self.conv_norm_out = make_norm(widths[-1], a.norm_num_groups, None, numerics, rngs)
        self.conv_out = conv(widths[-1], outputs, 3, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents to an image; with spatial norm, every norm reads the latents too."""

    def __init__(
        self, architecture: BlockArchitecture, numerics: Numerics, rngs: nnx.Rngs, *, spatial: bool = False
    ) -> None:
        a, widths = architecture, architecture.block_out_channels[::-1]
        last = len(widths) - 1
        groups = a.norm_num_groups
        latent_channels = a.latent_channels if spatial else None
        self.conv_in = conv(a.latent_channels, widths[0], 3, numerics, rngs)
        attention = a.mid_block_add_attention
        self.mid_block = MidBlock(widths[0], groups, latent_channels, numerics, rngs, attention=attention)
        self.up_blocks = nnx.List(
            [
                UpBlock(
                    widths[max(i - 1, 0)],
                    widths[i],
                    a.layers_per_block + 1,
                    groups,
                    latent_channels,
                    numerics,
                    rngs,
                    attention=UP_BLOCKS[name],
                    upsample=i < last,
                )
                for i, name in enumerate(a.up_block_types)
            ]
        )
        self.conv_norm_out = make_norm(widths[-1], groups, latent_channels, numerics, rngs)
        self.conv_out = conv(widths[-1], a.out_channels, 3, numerics, rngs)

    def __call__(self, z: Float[Array, "n hz wz z"], latents: Array | None = None) -> Float[Array, "n h w c"]:
        x = self.mid_block(self.conv_in(z), latents)
        for block in self.up_blocks:
            x = block(x, latents)
        return self.conv_out(nnx.silu(apply_norm(self.conv_norm_out, x, latents)))

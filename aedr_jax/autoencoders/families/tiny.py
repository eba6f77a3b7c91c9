"""`AutoencoderTiny`: the small autoencoders of previews (TAESD and its kin), of convolutions and ReLU alone.

Reference: `encode` and `decode` of `diffusers.AutoencoderTiny` 0.39.0. Its `forward` is another function: it rounds the
latents to 8 bits between the two.

The preview autoencoder of FLUX.2 (TAEF2) is that class with a group-normalised branch in the blocks at the latents'
size, through which each pixel depends on the whole image. diffusers has no field for it; here it is
`midblock_group_norm`. Reference for it: the variant "flux_2" of https://github.com/madebyollin/taesd, written over
diffusers' class in `weights/autoencoder_tiny.py`.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import GroupNorm, Numerics, conv
from aedr_jax.autoencoders.convolutions import upsample_nearest
from aedr_jax.autoencoders.family import Architecture, Family, Network

__all__ = ["TINY", "AutoencoderTiny", "TinyArchitecture"]

BRANCH_EXPANSION, BRANCH_GROUPS, BRANCH_EPSILON = 4, 4, 1e-5


@dataclasses.dataclass(frozen=True)
class TinyArchitecture(Architecture):
    """The fields of a `diffusers.AutoencoderTiny`, and `midblock_group_norm`."""

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: tuple[int, ...] = dataclasses.field(default=(1, 3, 3, 3), metadata={"least": 0})
    num_decoder_blocks: tuple[int, ...] = dataclasses.field(default=(3, 3, 3, 1), metadata={"least": 0})
    midblock_group_norm: bool = False

    @property
    def factor(self) -> int:
        """Every stage of the encoder but the first halves the size."""
        return 2 ** (len(self.num_encoder_blocks) - 1)

    @property
    def label(self) -> str:
        return f"tiny, {self.latent_channels} channels"

    def problems(self) -> list[str]:
        problems = self.not_rgb("in_channels", "out_channels")
        for part in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{part}_block_out_channels"), getattr(self, f"num_{part}_blocks")
            if len(widths) != len(blocks):
                problems.append(f"{part}_block_out_channels and num_{part}_blocks have different lengths")
            if len(set(widths)) > 1:
                # No layer of diffusers' class leads from one width to another: it is built, and fails when it is run.
                problems.append(f"{part}_block_out_channels {widths}: the stages must be of one width")
        enlarged = self.upsampling_scaling_factor ** (len(self.num_decoder_blocks) - 1)
        if enlarged != self.factor:
            problems.append(f"the decoder enlarges by {enlarged}, but the encoder shrinks by {self.factor}")
        return problems


class AutoencoderTiny(Network):
    """Encoder and decoder, each one sequence of layers; the decoder reads latents squeezed into ±3."""

    architecture: TinyArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.encoder = make_encoder(self.architecture, numerics, rngs)
        self.decoder = make_decoder(self.architecture, numerics, rngs)

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        return self.decoder(3 * jnp.tanh(z / 3))


def make_encoder(architecture: TinyArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> nnx.Sequential:
    """A convolution before each stage, which from the second on halves the size, and one after the last."""
    a, width = architecture, architecture.encoder_block_out_channels[0]
    last = len(a.num_encoder_blocks) - 1
    layers: list[nnx.Module] = []
    for i, blocks in enumerate(a.num_encoder_blocks):
        before = (a.in_channels, width) if i == 0 else (width, width)
        layers.append(_conv(*before, 3, numerics, rngs, stride=1 if i == 0 else 2, bias=i == 0))
        branch = a.midblock_group_norm and i == last
        layers += [TinyBlock(width, numerics, rngs, branch=branch) for _ in range(blocks)]
    return nnx.Sequential(*layers, _conv(width, a.latent_channels, 3, numerics, rngs))


def make_decoder(architecture: TinyArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> nnx.Sequential:
    """A convolution, and one after each stage, which but for the last enlarges first."""
    a, width = architecture, architecture.decoder_block_out_channels[0]
    last = len(a.num_decoder_blocks) - 1
    layers = [_conv(a.latent_channels, width, 3, numerics, rngs), nnx.relu]
    for i, blocks in enumerate(a.num_decoder_blocks):
        branch = a.midblock_group_norm and i == 0
        layers += [TinyBlock(width, numerics, rngs, branch=branch) for _ in range(blocks)]
        layers += [Upsample(a.upsampling_scaling_factor)] if i < last else []
        layers.append(_conv(width, width if i < last else a.out_channels, 3, numerics, rngs, bias=i == last))
    return nnx.Sequential(*layers)


class TinyBlock(nnx.Module):
    """Three convolutions plus the input, then ReLU.

    With a `branch` the input is x + pool(x) first: a 1×1 convolution to four times the width, a group norm, ReLU, and a
    1×1 convolution back.
    """

    def __init__(self, width: int, numerics: Numerics, rngs: nnx.Rngs, *, branch: bool) -> None:
        def inner() -> nnx.Conv:
            return _conv(width, width, 3, numerics, rngs)

        self.conv = nnx.Sequential(inner(), nnx.relu, inner(), nnx.relu, inner())
        wide = BRANCH_EXPANSION * width
        self.pool = (
            nnx.Sequential(
                _conv(width, wide, 1, numerics, rngs, bias=False),
                GroupNorm(wide, BRANCH_GROUPS, epsilon=BRANCH_EPSILON, dtype=numerics.dtype, rngs=rngs),
                nnx.relu,
                _conv(wide, width, 1, numerics, rngs, bias=False),
            )
            if branch
            else None
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        if self.pool is not None:
            x = x + self.pool(x)
        return nnx.relu(self.conv(x) + x)


class Upsample(nnx.Module):
    """Each pixel `times` × `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww c"]:
        return upsample_nearest(x, self.times)


def _conv(
    inputs: int, outputs: int, size: int, numerics: Numerics, rngs: nnx.Rngs, *, stride: int = 1, bias: bool = True
) -> nnx.Conv:
    """A square convolution, padded alike on all sides at stride 2 too."""
    return conv(inputs, outputs, size, numerics, rngs, stride=stride, padding=size // 2, bias=bias, rewritten=False)


TINY = Family(
    class_name="AutoencoderTiny",
    architecture=TinyArchitecture,
    network=AutoencoderTiny,
    image_range=(0.0, 1.0),
    fixed_fields={"act_fn": ("relu",), "upsample_fn": ("nearest",)},
    ignored_fields={
        "block_out_channels": "diffusers' copy of decoder_block_out_channels",
        "latent_magnitude": "of the 8 bits to which `forward` rounds latents; encode and decode do not",
        "latent_shift": "likewise",
    },
    key_rules=(
        (r"\.pool\.1\.weight$", ".pool.layers.1.scale"),
        (r"\.(conv|pool)\.(\d)\.", r".\1.layers.\2."),
    ),
)

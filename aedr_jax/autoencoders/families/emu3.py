"""`Emu3VQVAE`: the tokenizer of images and videos of Emu3, a VQGAN with spatial norms, on one image.

transformers' class encodes an image as a video of equal frames, as many as one frame of latents stands for, and keeps
the first of the frames that are decoded of it. Every convolution in time is causal and padded with zeros in front. So
where the encoder merges frames it sees copies of one after zeros, and that is rebuilt as it is. Everywhere else what is
kept has nothing but zeros before it: of a kernel the last slice alone acts, and what remains is a network of images.

As of Janus (`janus`), weights lie in `model.safetensors`, and of a whole Emu3 the part `vqmodel` is saved apart first
(docs/families.md). Images are in [-1, 1], as in the authors' code (github.com/baaivision/Emu3); transformers' image
processor would take CLIP's mean and deviation where a model's own files say nothing else.

Reference: `transformers.models.emu3.modeling_emu3.Emu3VQVAE` 5.24.0.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import SPATIAL_NORM_GROUPS, Numerics, apply_norm, conv
from aedr_jax.autoencoders.family import Architecture, CodebookNetwork, Family
from aedr_jax.autoencoders.norms import BatchNorm
from aedr_jax.autoencoders.quantizer import Quantizer
from aedr_jax.autoencoders.vae import BlockArchitecture, Decoder, Encoder

__all__ = ["EMU3", "Emu3Architecture", "Emu3VQVAE"]


class _Blocks(BlockArchitecture):
    label = "Emu3"


@dataclasses.dataclass(frozen=True)
class Emu3Architecture(Architecture):
    """The fields of an `Emu3VQVAEConfig` that shape the network."""

    codebook_size: int = 32768
    embed_dim: int = 4
    latent_channels: int = 4
    in_channels: int = 3
    out_channels: int = 3
    temporal_downsample_factor: int = 4
    base_channels: int = 256
    channel_multiplier: tuple[int, ...] = (1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = dataclasses.field(default=(3,), metadata={"least": 0, "empty": True})
    hidden_size: int = 1024

    @property
    def blocks(self) -> BlockArchitecture:
        """The same in diffusers' words."""
        attention = [level in self.attn_resolutions for level in range(len(self.channel_multiplier))]
        return _Blocks(
            down_block_types=tuple("AttnDownEncoderBlock2D" if has else "DownEncoderBlock2D" for has in attention),
            up_block_types=tuple("AttnUpDecoderBlock2D" if has else "UpDecoderBlock2D" for has in attention[::-1]),
            block_out_channels=tuple(self.base_channels * times for times in self.channel_multiplier),
            layers_per_block=self.num_res_blocks,
            latent_channels=self.latent_channels,
            norm_num_groups=SPATIAL_NORM_GROUPS,
        )

    @property
    def mergings(self) -> int:
        """How often two frames are merged into one."""
        return self.temporal_downsample_factor.bit_length() - 1

    @property
    def factor(self) -> int:
        return self.blocks.factor

    @property
    def label(self) -> str:
        return f"Emu3, {self.embed_dim} channels"

    def problems(self) -> list[str]:
        problems = self.not_rgb("in_channels", "out_channels")
        if self.channel_multiplier[0] != 1:
            problems.append(f"channel_multiplier {self.channel_multiplier} does not begin with 1")
        if self.base_channels % SPATIAL_NORM_GROUPS:
            problems.append(f"base_channels {self.base_channels}: norms need a multiple of {SPATIAL_NORM_GROUPS}")
        if self.embed_dim != self.latent_channels:  # layers in time are applied to both
            problems.append(f"embed_dim {self.embed_dim} is not latent_channels {self.latent_channels}")
        if self.temporal_downsample_factor != 2**self.mergings:
            problems.append(f"temporal_downsample_factor {self.temporal_downsample_factor} is no power of 2")
        widths = self.blocks.block_out_channels
        attended = {width for level, width in enumerate(widths) if level in self.attn_resolutions} | {widths[-1]}
        if attended != {self.hidden_size}:
            problems.append(f"hidden_size {self.hidden_size}, but attention is on {sorted(attended)} channels")
        return problems


class FrameBlock(nnx.Module):
    """norm, silu, conv, twice, plus the input: on one frame with nothing before it."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.norm1 = BatchNorm(channels, numerics)
        self.conv1 = conv(channels, channels, 3, numerics, rngs)
        self.norm2 = BatchNorm(channels, numerics)
        self.conv2 = conv(channels, channels, 3, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        return x + self.conv2(nnx.silu(self.norm2(h)))


def merging(channels: int, numerics: Numerics, rngs: nnx.Rngs) -> nnx.Conv:
    """Half as many frames, [n,t,h,w,c]; the first has two of zeros before it."""
    return nnx.Conv(
        channels,
        channels,
        (4, 3, 3),
        strides=(2, 1, 1),
        padding=((2, 0), (1, 1), (1, 1)),
        dtype=numerics.dtype,
        precision=numerics.precision,
        rngs=rngs,
    )


class FrameEncoder(Encoder):
    """An image to latents: `Encoder`, then equal frames of its features merged into one."""

    def __init__(self, architecture: Emu3Architecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, width = architecture, architecture.latent_channels
        super().__init__(a.blocks, width, numerics, rngs)
        self.frames = a.temporal_downsample_factor
        self.time_conv = nnx.List([merging(width, numerics, rngs) for _ in range(a.mergings)])
        self.time_res_stack = nnx.List([FrameBlock(width, numerics, rngs) for _ in range(a.num_res_blocks)])

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        video = jnp.repeat(super().__call__(x)[:, None], self.frames, axis=1)
        for merge in self.time_conv:
            video = nnx.silu(merge(video))
        frame = video[:, 0]
        for block in self.time_res_stack:
            frame = block(frame)
        return frame


class FrameDecoder(Decoder):
    """Latents to the first frame: layers in time, for what is decoded and for what the norms read, then `Decoder`.

    Blocks are kept from high resolution to low, as in the encoder, and run in reverse.
    """

    def __init__(self, architecture: Emu3Architecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, width = architecture, architecture.latent_channels
        super().__init__(a.blocks, numerics, rngs, spatial=True)
        self.up_blocks = nnx.List(list(self.up_blocks)[::-1])
        self.time_res_stack = nnx.List([FrameBlock(width, numerics, rngs) for _ in range(a.num_res_blocks)])
        self.time_conv = nnx.List([conv(width, width, 3, numerics, rngs) for _ in range(a.mergings)])

    def __call__(self, z: Float[Array, "n hz wz z"], latents: Array | None = None) -> Float[Array, "n h w c"]:
        assert latents is not None
        x, read = self._in_time(z), self._in_time(latents)
        x = self.mid_block(self.conv_in(x), read)
        for block in list(self.up_blocks)[::-1]:
            x = block(x, read)
        return self.conv_out(nnx.silu(apply_norm(self.conv_norm_out, x, read)))

    def _in_time(self, x: Float[Array, "n hz wz z"]) -> Float[Array, "n hz wz z"]:
        for block in self.time_res_stack:
            x = block(x)
        for first in self.time_conv:
            x = nnx.silu(first(x))
        return x


class Emu3VQVAE(CodebookNetwork):
    """Encoder, codebook and decoder, with a 1×1 convolution at either side of the latents."""

    architecture: Emu3Architecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a = self.architecture
        self.encoder = FrameEncoder(a, numerics, rngs)
        self.decoder = FrameDecoder(a, numerics, rngs)
        self.quantizer = Quantizer(a.codebook_size, a.embed_dim, rngs)
        self.quant_conv = conv(a.latent_channels, a.embed_dim, 1, numerics, rngs)
        self.post_quant_conv = conv(a.embed_dim, a.latent_channels, 1, numerics, rngs)

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        return self.quant_conv(self.encoder(x))

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        return self.decoder(self.post_quant_conv(z), z)


def last_slice(key: str, value: np.ndarray) -> np.ndarray:
    """What of a kernel in time acts on one frame with zeros before it; all of it where equal frames are merged."""
    return value if value.ndim < 5 or key.startswith("encoder.time_conv.") else value[:, :, -1]


EMU3 = Family(
    class_name="Emu3VQVAE",
    architecture=Emu3Architecture,
    network=Emu3VQVAE,
    fixed_fields={"double_latent": (False,), "num_attention_heads": (1,)},
    ignored_fields={"attention_dropout": "nothing is dropped when it is used"},
    key_rules=(
        (r"^encoder\.down_block\.down\.", "encoder.down_blocks."),
        (r"^decoder\.up_block\.up\.", "decoder.up_blocks."),
        (r"\.middle_block\.block_1\.", ".mid_block.resnets.0."),
        (r"\.middle_block\.block_2\.", ".mid_block.resnets.1."),
        (r"\.middle_block\.attn_1\.", ".mid_block.attn.0."),
        (r"\.middle_block\.attn_norm\.", ".mid_block.attn_norms.0."),
        (r"^(encoder\..*)\.attn_norms\.(\d+)\.", r"\1.attentions.\2.group_norm."),
        (r"^(decoder\..*)\.attn_norms\.(\d+)\.", r"\1.attentions.\2.spatial_norm."),
        (r"\.attn\.(\d+)\.([qkv])_proj\.", r".attentions.\1.to_\2."),
        (r"\.attn\.(\d+)\.out_proj\.", r".attentions.\1.to_out."),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.downsample\.conv\.", ".downsamplers.0.conv."),
        (r"\.upsample\.conv\.", ".upsamplers.0.conv."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
        (r"\.time_conv\.(\d+)\.conv\.conv\.", r".time_conv.\1."),
        (r"(\.conv[12]|quant_conv)\.conv\.", r"\1."),
        (r"^quantize\.embedding\.weight$", "quantizer.embedding.embedding"),
    ),
    adapt=last_slice,
)

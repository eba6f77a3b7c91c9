"""`JanusVQVAE`: the tokenizer of images of Janus, a VQGAN whose codebook entries are decoded at unit length.

Its class is one of transformers, whose `config.json` names it among `architectures`, and whose weights lie in
`model.safetensors`. Of a whole Janus model it is the part `vqmodel`, which is saved apart first (docs/families.md).

Reference: `transformers.models.janus.modeling_janus.JanusVQVAE` 5.24.0.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics, conv
from aedr_jax.autoencoders.family import Architecture, CodebookNetwork, Family
from aedr_jax.autoencoders.quantizer import Quantizer
from aedr_jax.autoencoders.vae import BlockArchitecture, Decoder, Encoder

__all__ = ["JANUS", "JanusArchitecture", "JanusVQVAE"]

GROUPS = 32  # of every norm
SHORTEST = 1e-12  # PyTorch's: what is divided by where an entry is shorter


class _Blocks(BlockArchitecture):
    label = "Janus"


@dataclasses.dataclass(frozen=True)
class JanusArchitecture(Architecture):
    """The fields of a `JanusVQVAEConfig` that shape the network."""

    in_channels: int = 3
    out_channels: int = 3
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    latent_channels: int = 256
    embed_dim: int = 8
    num_embeddings: int = 16384

    @property
    def blocks(self) -> BlockArchitecture:
        """The same in diffusers' words: attention stands in the blocks of the least size."""
        halvings = len(self.channel_multiplier) - 1
        return _Blocks(
            down_block_types=("DownEncoderBlock2D",) * halvings + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * halvings,
            block_out_channels=tuple(self.base_channels * times for times in self.channel_multiplier),
            layers_per_block=self.num_res_blocks,
            latent_channels=self.latent_channels,
            norm_num_groups=GROUPS,
        )

    @property
    def factor(self) -> int:
        return self.blocks.factor

    @property
    def label(self) -> str:
        return f"Janus, {self.embed_dim} channels"

    def problems(self) -> list[str]:
        problems = self.not_rgb("in_channels", "out_channels")
        if self.channel_multiplier[0] != 1:
            problems.append(f"channel_multiplier {self.channel_multiplier} does not begin with 1")
        if self.base_channels % GROUPS:
            problems.append(f"base_channels {self.base_channels}: norms need a multiple of {GROUPS}")
        return problems


class UnitQuantizer(Quantizer):
    """A codebook whose nearest entry is found as it is, and decoded at unit length."""

    def entries(self) -> Float[Array, "k d"]:
        codebook = super().entries()
        return codebook / jnp.maximum(jnp.linalg.norm(codebook, axis=-1, keepdims=True), SHORTEST)


class JanusVQVAE(CodebookNetwork):
    """Encoder, codebook and decoder, with a 1×1 convolution at either side of the latents."""

    architecture: JanusArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, blocks = self.architecture, self.architecture.blocks
        self.encoder = Encoder(blocks, a.latent_channels, numerics, rngs)
        self.decoder = Decoder(blocks, numerics, rngs)
        self.quantizer = UnitQuantizer(a.num_embeddings, a.embed_dim, rngs)
        self.quant_conv = conv(a.latent_channels, a.embed_dim, 1, numerics, rngs)
        self.post_quant_conv = conv(a.embed_dim, a.latent_channels, 1, numerics, rngs)

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        return self.quant_conv(self.encoder(x))

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        return self.decoder(self.post_quant_conv(z))


_ELSEWHERE = "of the language model beside it"
_OF_ALIGNER = ("depth", "projection_dim", "num_hidden_layers", "hidden_act", "image_token_embed_dim")

JANUS = Family(
    class_name="JanusVQVAE",
    architecture=JanusArchitecture,
    network=JanusVQVAE,
    fixed_fields={"double_latent": (False,)},
    ignored_fields={
        "num_patches": "the training size; the network is fully convolutional",
        "dropout": "nothing is dropped when it is used",
        "initializer_range": "of weights that were not trained yet",
        **dict.fromkeys(_OF_ALIGNER, _ELSEWHERE),  # the first is written by transformers' converter alone
    },
    key_rules=(
        (r"^(encoder)\.down\.", r"\1.down_blocks."),
        (r"^(decoder)\.up\.", r"\1.up_blocks."),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.attn\.(\d+)\.", r".attentions.\1."),
        (r"\.downsample\.conv\.", ".downsamplers.0.conv."),
        (r"\.upsample\.conv\.", ".upsamplers.0.conv."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out."),
        (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
        (r"^quantize\.embedding\.weight$", "quantizer.embedding.embedding"),
    ),
)

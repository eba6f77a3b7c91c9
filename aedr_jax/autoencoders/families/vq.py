"""`VQModel`: the autoencoder of VQ-Diffusion (group norm) and of Kandinsky 2.1 (MoVQ: spatial norm), with a codebook.

Reference: `diffusers.VQModel` 0.39.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import SPATIAL_NORM_GROUPS, Numerics, conv
from aedr_jax.autoencoders.family import CodebookNetwork, Family
from aedr_jax.autoencoders.quantizer import Quantizer
from aedr_jax.autoencoders.vae import BlockArchitecture, Decoder, Encoder

__all__ = ["VQ", "VQArchitecture", "VQModel"]


@dataclasses.dataclass(frozen=True)
class VQArchitecture(BlockArchitecture):
    """The fields of a `diffusers.VQModel`."""

    latent_channels: int = 3
    num_vq_embeddings: int = 256
    vq_embed_dim: int = 3
    norm_type: str = "group"

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> VQArchitecture:
        """Codes are as wide as latents unless said."""
        return cls(**{"vq_embed_dim": fields.get("latent_channels", cls.latent_channels), **fields})

    @property
    def spatial(self) -> bool:
        """Whether the decoder's norms read the latents."""
        return self.norm_type == "spatial"

    @property
    def label(self) -> str:
        return "MoVQ" if self.spatial else "VQ"

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.norm_type not in ("group", "spatial"):
            problems.append(f"norm_type = {self.norm_type!r}; expected 'group' or 'spatial'")
        elif self.spatial and any(width % SPATIAL_NORM_GROUPS for width in self.block_out_channels):
            problems.append(
                f"block_out_channels {self.block_out_channels}: spatial norm needs multiples of {SPATIAL_NORM_GROUPS}"
            )
        return problems


class VQModel(CodebookNetwork):
    """Encoder, codebook and decoder, with a 1×1 convolution at either side of the latents."""

    architecture: VQArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a = self.architecture
        self.encoder = Encoder(a, a.latent_channels, numerics, rngs)
        self.decoder = Decoder(a, numerics, rngs, spatial=a.spatial)
        self.quantizer = Quantizer(a.num_vq_embeddings, a.vq_embed_dim, rngs)
        self.quant_conv = conv(a.latent_channels, a.vq_embed_dim, 1, numerics, rngs)
        self.post_quant_conv = conv(a.vq_embed_dim, a.latent_channels, 1, numerics, rngs)

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        return self.quant_conv(self.encoder(x))

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        return self.decoder(self.post_quant_conv(z), z if self.architecture.spatial else None)


VQ = Family(
    class_name="VQModel",
    architecture=VQArchitecture,
    network=VQModel,
    scaling_factor=0.18215,
    fixed_fields={"act_fn": ("silu", "swish")},
    # A pipeline may hand over indices with force_not_quantize; what is decoded then are the codebook's entries.
    ignored_fields={"lookup_from_codebook": "decodes what quantize=True decodes"},
    key_rules=((r"^quantize\.embedding\.weight$", "quantizer.embedding.embedding"),),
)

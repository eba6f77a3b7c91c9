"""`AutoencoderKL`: the autoencoder of Stable Diffusion 1, 2, XL, 3.5 and of FLUX, with a Gaussian posterior.

Reference: `diffusers.AutoencoderKL` 0.39.0.
"""

from __future__ import annotations

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics, conv
from aedr_jax.autoencoders.family import Family, GaussianNetwork
from aedr_jax.autoencoders.vae import BlockArchitecture, Decoder, Encoder

__all__ = ["KL", "AutoencoderKL", "KLArchitecture"]


@dataclasses.dataclass(frozen=True)
class KLArchitecture(BlockArchitecture):
    """The fields of a `diffusers.AutoencoderKL`."""

    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    @property
    def label(self) -> str:
        return f"KL, {self.latent_channels} channels"


class AutoencoderKL(GaussianNetwork):
    """Encoder and decoder, and where the config says so a 1×1 convolution at either side of the latents."""

    architecture: KLArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, z = self.architecture, self.architecture.latent_channels
        self.encoder = Encoder(a, 2 * z, numerics, rngs)
        self.decoder = Decoder(a, numerics, rngs)
        self.quant_conv = conv(2 * z, 2 * z, 1, numerics, rngs) if a.use_quant_conv else None
        self.post_quant_conv = conv(z, z, 1, numerics, rngs) if a.use_post_quant_conv else None

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        moments = self.encoder(x)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))


KL = Family(
    class_name="AutoencoderKL",
    architecture=KLArchitecture,
    network=AutoencoderKL,
    scaling_factor=0.18215,
    fixed_fields={"act_fn": ("silu", "swish")},
)

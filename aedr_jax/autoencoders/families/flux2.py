"""`AutoencoderKLFlux2`: an `AutoencoderKL` of 32 channels whose decoder may have widths of its own.

Reference: `diffusers.AutoencoderKLFlux2` 0.39.0.
"""

from __future__ import annotations

import dataclasses

from flax import nnx

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.families.kl import AutoencoderKL, KLArchitecture
from aedr_jax.autoencoders.family import Family
from aedr_jax.autoencoders.vae import Decoder

__all__ = ["FLUX2", "AutoencoderKLFlux2", "Flux2Architecture"]


@dataclasses.dataclass(frozen=True)
class Flux2Architecture(KLArchitecture):
    """The fields of a `diffusers.AutoencoderKLFlux2`."""

    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 32
    decoder_block_out_channels: tuple[int, ...] | None = None

    @property
    def decoder(self) -> Flux2Architecture:
        """The architecture whose decoder it has."""
        widths = self.decoder_block_out_channels or self.block_out_channels
        return dataclasses.replace(self, block_out_channels=widths, decoder_block_out_channels=None)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.decoder_block_out_channels is not None:
            problems += [f"decoder: {problem}" for problem in self.decoder.problems() if problem not in problems]
        return problems


class AutoencoderKLFlux2(AutoencoderKL):
    """As `AutoencoderKL`; the 2×2 folding of latents and their batch norm are the pipeline's."""

    architecture: Flux2Architecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        super().make_layers(numerics, rngs)
        self.decoder = Decoder(self.architecture.decoder, numerics, rngs)


PIPELINE = "only pipelines fold and normalize latents"
FLUX2 = Family(
    class_name="AutoencoderKLFlux2",
    architecture=Flux2Architecture,
    network=AutoencoderKLFlux2,
    fixed_fields={"act_fn": ("silu", "swish")},
    ignored_fields=dict.fromkeys(("batch_norm_eps", "batch_norm_momentum", "patch_size"), PIPELINE),
    ignored_keys=((r"^bn\.", PIPELINE),),
)

"""`AutoencoderKL` and `VQModel` in Flax NNX, and the protocol that every autoencoder of this package meets.

Images are float32 NHWC in [-1, 1], reconstructions are not clipped, latents are `[n, h/f, w/f, c]`. The modules are
pytrees: they go through `jit`, `vmap`, `grad`, `shard_map` and `pmap` as arguments. What is static in them is the
architecture, the dtype, the precision and whether to quantize, so that models of one architecture share one compiled
program; scaling factors are arrays, and names, paths and hashes are not kept at all.

References: `diffusers.AutoencoderKL` and `diffusers.VQModel` 0.39.0.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import DownBlock, MidBlock, Numerics, UpBlock, apply_norm, conv, make_norm
from aedr_jax.autoencoders.config import DOWN_BLOCKS, UP_BLOCKS, AutoencoderConfig, KLArchitecture, VQArchitecture
from aedr_jax.autoencoders.quantizer import Quantizer
from aedr_jax.errors import AutoencoderError
from aedr_jax.images.arrays import check_floats

__all__ = ["Autoencoder", "AutoencoderKL", "VQModel", "build", "is_per_image", "normal_like"]


@runtime_checkable
class Autoencoder(Protocol):
    """What the rest of the package needs of an autoencoder. Where it has a codebook it also has `quantize(latents)`."""

    @property
    def factor(self) -> int:
        """Image size over latent size."""

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents: the posterior's mode, or with a key (or one key an image) a sample of it."""

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images, not clipped; `quantize` None: as the model generates."""


def is_per_image(key: Array) -> bool:
    """Whether this is one key for each image rather than a single key; new-style or legacy keys."""
    return key.ndim == (1 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 2)


def normal_like(key: Array, x: Float[Array, "n *rest"]) -> Float[Array, "n *rest"]:
    """Standard normal noise in the shape of `x`: from one key for the whole batch, or from one key for each image.

    Raises:
      ValueError: when there are several keys, but not one for each image.
    """
    if not is_per_image(key):
        return jax.random.normal(key, x.shape, x.dtype)
    if key.shape[0] != x.shape[0]:
        raise ValueError(f"{key.shape[0]} keys for {x.shape[0]} images; give one key, or one for each image")
    return jax.vmap(lambda k, v: jax.random.normal(k, v.shape, v.dtype))(key, x)


class Encoder(nnx.Module):
    """Image to features at 1/factor of the size."""

    def __init__(
        self, architecture: KLArchitecture | VQArchitecture, outputs: int, numerics: Numerics, rngs: nnx.Rngs
    ) -> None:
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

    def __init__(self, architecture: KLArchitecture | VQArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, widths = architecture, architecture.block_out_channels[::-1]
        last = len(widths) - 1
        groups = a.norm_num_groups
        spatial = isinstance(a, VQArchitecture) and a.norm_type == "spatial"
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


class AutoencoderKL(nnx.Module):
    """The autoencoder of Stable Diffusion 1, 2, XL, 3.5 and of FLUX: a diagonal Gaussian posterior."""

    def __init__(self, config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a = config.architecture
        assert isinstance(a, KLArchitecture)
        self.architecture, self.numerics = a, numerics
        self.scaling_factor = nnx.Variable(jnp.asarray(config.scaling_factor, jnp.float32))
        self.encoder = Encoder(a, 2 * a.latent_channels, numerics, rngs)
        self.decoder = Decoder(a, numerics, rngs)
        z = a.latent_channels
        self.quant_conv = conv(2 * z, 2 * z, 1, numerics, rngs) if a.use_quant_conv else None
        self.post_quant_conv = conv(z, z, 1, numerics, rngs) if a.use_post_quant_conv else None

    @property
    def factor(self) -> int:
        return self.architecture.factor

    def posterior(self, images: Float[Array, "n h w 3"]) -> tuple[Float[Array, "n hz wz c"], Float[Array, "n hz wz c"]]:
        """Mean and standard deviation of the latents' posterior."""
        check_floats(images, "images")
        moments = self.encoder(images.astype(self.numerics.dtype))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents: the posterior's mode, or with a key (or one key an image) a sample."""
        mean, deviation = self.posterior(images)
        return mean if key is None else mean + deviation * normal_like(key, mean)

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images in float32, not clipped.

        Raises:
          ValueError: on `quantize=True`; there is no codebook.
        """
        if quantize:
            raise ValueError("this AutoencoderKL has no codebook: quantize must be None or False")
        check_floats(latents, "latents")
        z = latents.astype(self.numerics.dtype)
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        return self.decoder(z).astype(jnp.float32)


class VQModel(nnx.Module):
    """The autoencoder of VQ-Diffusion (group norm) and of Kandinsky 2.1 (MoVQ: spatial norm)."""

    def __init__(
        self, config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs, *, quantize_on_decode: bool = True
    ) -> None:
        a = config.architecture
        assert isinstance(a, VQArchitecture)
        self.architecture, self.numerics, self.quantize_on_decode = a, numerics, quantize_on_decode
        self.scaling_factor = nnx.Variable(jnp.asarray(config.scaling_factor, jnp.float32))
        self.encoder = Encoder(a, a.latent_channels, numerics, rngs)
        self.decoder = Decoder(a, numerics, rngs)
        self.quantizer = Quantizer(a.num_vq_embeddings, a.vq_embed_dim, rngs)
        self.quant_conv = conv(a.latent_channels, a.vq_embed_dim, 1, numerics, rngs)
        self.post_quant_conv = conv(a.vq_embed_dim, a.latent_channels, 1, numerics, rngs)

    @property
    def factor(self) -> int:
        return self.architecture.factor

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents before quantization. The encoder is deterministic: a key changes nothing."""
        check_floats(images, "images")
        return self.quant_conv(self.encoder(images.astype(self.numerics.dtype)))

    def quantize(self, latents: Float[Array, "n hz wz c"]) -> Float[Array, "n hz wz c"]:
        """The nearest codebook entries (gradients pass straight through)."""
        return self.quantizer(latents)

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images in float32, not clipped. `quantize` None: as the model generates (its registry entry)."""
        quantize = self.quantize_on_decode if quantize is None else quantize
        check_floats(latents, "latents")
        z = latents.astype(self.numerics.dtype)
        if quantize:
            z = self.quantizer(z)
        spatial = self.architecture.norm_type == "spatial"
        return self.decoder(self.post_quant_conv(z), z if spatial else None).astype(jnp.float32)


def build(
    config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs, *, quantize: bool | None = None
) -> AutoencoderKL | VQModel:
    """An autoencoder with fresh random weights.

    Raises:
      AutoencoderError: on `quantize=True` for a model without a codebook.
    """
    if isinstance(config.architecture, VQArchitecture):
        return VQModel(config, numerics, rngs, quantize_on_decode=quantize is not False)
    if quantize:
        raise AutoencoderError("quantize=True, but an AutoencoderKL has no codebook")
    return AutoencoderKL(config, numerics, rngs)

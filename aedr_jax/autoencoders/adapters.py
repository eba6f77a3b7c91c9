"""Autoencoders from elsewhere: any pair of functions, or a `FlaxAutoencoderKL` of diffusers up to 0.39."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.models import normal_like
from aedr_jax.errors import AutoencoderError, FactorWarning
from aedr_jax.images.arrays import check_floats
from aedr_jax.images.tiles import tile_of

__all__ = ["FunctionAutoencoder", "from_flax_diffusers", "from_functions"]

COARSEST = 64  # networks with skips or windows inside take multiples of so many pixels alone, or of half as many


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FunctionAutoencoder:
    """An autoencoder made of functions `(params, x) -> y`; `params` and `scaling_factor` are its leaves."""

    params: Any
    scaling_factor: Any
    encoder: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    decoder: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    sampler: Callable[..., Array] | None = dataclasses.field(metadata={"static": True})
    quantizer: Callable[..., Array] | None = dataclasses.field(metadata={"static": True})
    quantize_on_decode: bool = dataclasses.field(metadata={"static": True})
    factor: int = dataclasses.field(metadata={"static": True})

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents: what `encode` gives, or with a key what `sample` gives.

        Raises:
          AutoencoderError: with a key, where no `sample` was given and there is no codebook either.
          Exception: what the function raises, with a note on the sizes that it is asked for.

        Warns:
          FactorWarning: on latents that show another factor.
        """
        check_floats(images, "images")
        mode = key is None or (self.sampler is None and self.quantizer is not None)
        encode = self.encoder if mode else self.sampler
        if encode is None:
            raise AutoencoderError("this autoencoder cannot sample its posterior: give from_functions sample=")
        try:
            latents = encode(self.params, images, *([] if mode else [key]))
        except Exception as error:
            if any(side % COARSEST for side in images.shape[1:3]):
                error.add_note(_on_sizes(images, self.factor))
            raise
        _check_factor(latents, images, self.factor)
        return latents

    @property
    def quantize(self) -> Callable[[Array], Array]:
        """`quantize(latents)`; an AttributeError where there is no codebook, so that `hasattr` tells."""
        if self.quantizer is None:
            raise AttributeError("this autoencoder has no codebook: give from_functions quantize=")
        quantizer = self.quantizer
        return lambda latents: quantizer(self.params, latents)

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images, not clipped; latents are quantized first where asked, by default where the model does so.

        Raises:
          AutoencoderError: where `decode` gives something else.
        """
        if self.quantize_on_decode if quantize is None else quantize:
            latents = self.quantize(latents)
        decoded = self.decoder(self.params, latents)
        if not (hasattr(decoded, "dtype") and jnp.issubdtype(decoded.dtype, jnp.floating)) or (
            decoded.ndim != 4 or decoded.shape[-1] != 3
        ):
            given = f"{decoded.dtype} {list(decoded.shape)}" if hasattr(decoded, "dtype") else type(decoded).__name__
            raise AutoencoderError(f"decode gave {given}; expected floating point [n,h,w,3], images in [-1, 1]")
        return decoded


def _check_factor(latents: Any, images: Float[Array, "n h w 3"], factor: int) -> None:
    """Warn of a single array with four axes whose cells are squares of another number of pixels.

    Tokens, channels first and other pytrees say nothing, nor does padding, nor one cell for a whole image.
    """
    if getattr(latents, "ndim", 0) != 4:
        return
    (height, width), (rows, columns) = images.shape[1:3], latents.shape[1:3]
    if rows * columns < 2 or height % rows or height * columns != width * rows or height // rows == factor:
        return
    if latents.shape[2:] == (height // factor, width // factor):  # [n,c,hz,wz], with c as many as hz would have
        return
    warnings.warn(
        f"encode gave latents {list(latents.shape)} of images of {height}×{width}, which show a factor of "
        f"{height // rows}, not of {factor}: give from_functions factor={height // rows}, unless the decoder's grid is "
        f"of {factor} pixels all the same (latents in patches of several cells, say)",
        FactorWarning,
        stacklevel=3,
    )


def _on_sizes(images: Float[Array, "n h w 3"], factor: int) -> str:
    """What to do where `encode` takes multiples of some number of pixels alone."""
    height, width = images.shape[1:3]
    half = COARSEST // 2
    return (
        f"aedr_jax: encode was asked for {height}×{width} pixels. Beside whole images it is asked for windows of "
        f"AlignmentConfig's tile less the factor. If it takes multiples of {half} alone, measure with SignalConfig("
        f"alignment=AlignmentConfig(tile={tile_of(half, factor)})); of {COARSEST} alone, with "
        f"tile={tile_of(COARSEST, factor)}. Setup(multiple={COARSEST}) crops whole images to a multiple."
    )


def from_functions(
    encode: Callable[[Any, Array], Array],
    decode: Callable[[Any, Array], Array],
    params: Any = None,
    *,
    quantize: Callable[[Any, Array], Array] | None = None,
    quantize_on_decode: bool | None = None,
    sample: Callable[[Any, Array, Array], Array] | None = None,
    factor: int = 8,
    scaling_factor: float = 1.0,
) -> FunctionAutoencoder:
    """An autoencoder from your own functions, for every function of this package.

    JAX traces the functions even where nothing is jitted, since tiles are looked at in a loop: what is not written in
    JAX is called by `jax.pure_callback`. (On a CPU such a program takes one device, and nothing of this package
    runs beside it: callbacks of two at once can wait for JAX's own threads for ever, jax-ml/jax#24255.) The
    functions are asked for more sizes than the images', above all for windows of 120 pixels (a tile of
    `AlignmentConfig` less the factor; less in images below 128 pixels). Where `encode` takes multiples of 32 alone
    at a factor of 8, `AlignmentConfig(tile=104)` has windows of 96; of 64 alone, `tile=72` such of 64: what it
    raises gets a note with the numbers for its factor.

    An autoencoder that commutes with mirroring and turning (interpolation, averages, cosines) has own images that are
    its own when turned as well: turned copies take no part then (`signal.alignment`).

    Args:
      encode: `encode(params, images)`, float32 [n,h,w,3] in [-1, 1] to latents [n,h/factor,w/factor,c] (the mode), or
        whatever pytree `decode` takes.
      decode: `decode(params, latents)`, to images [n,h,w,3] in [-1, 1], floating point, not clipped. Neither has a
        `shard_map` or `pmap` of its own where files are judged: `make_sharded` maps over the devices already.
      params: a pytree of weights. Pass weights here rather than close over them: `jit` then shares one program between
        models, and `weights_hash` tells models apart. (It does not tell functions apart: two of equal params are one
        family for `attribute` where their measurements are equal to the last bit, and for `api.attribute` never.)
      quantize: `quantize(params, latents)`, the nearest codebook entries, for a model that has a codebook.
      quantize_on_decode: whether `decode` is to be fed quantized latents; None: yes where `quantize` is given.
      sample: `sample(params, images, key)`, a posterior sample; needed for the "official" preset only.
      factor: image size over latent size: the spacing of the decoder's grid, which no other number stands in for.
        Of latents [n,hz,wz,c] that show another one a `FactorWarning` tells.
      scaling_factor: what the diffusion model multiplies latents with.

    Raises:
      AutoencoderError: on `quantize_on_decode=True` without `quantize`, on what are no functions, and on another factor
        than 1, 2, 3, ...

    >>> encode = lambda params, x: params * x[:, ::8, ::8]
    >>> decode = lambda params, z: z.repeat(8, axis=1).repeat(8, axis=2)
    >>> ae = aedr.from_functions(encode, decode, params=jnp.float32(0.8))
    >>> latents = ae.encode(jnp.zeros((1, 32, 32, 3)))
    >>> latents.shape, ae.decode(latents).shape
    ((1, 4, 4, 3), (1, 32, 32, 3))
    """
    for name, function in (("encode", encode), ("decode", decode)):
        if not callable(function):
            raise AutoencoderError(f"{name}: {type(function).__name__}; expected a function of params and an array")
    if not isinstance(factor, int | np.integer) or factor < 1:
        raise AutoencoderError(f"factor {factor!r}: expected a whole number of pixels, 1 or more")
    if quantize_on_decode and quantize is None:
        raise AutoencoderError("quantize_on_decode=True needs quantize=")
    on_decode = quantize is not None if quantize_on_decode is None else quantize_on_decode
    return FunctionAutoencoder(
        params, jnp.asarray(scaling_factor, jnp.float32), encode, decode, sample, quantize, on_decode, factor
    )


def from_flax_diffusers(model: Any, params: Any) -> FunctionAutoencoder:
    """An autoencoder from a `FlaxAutoencoderKL` of diffusers 0.39 or older.

    Its group norms compute the variance as E[x²] − E[x]² (Linen's fast variance). So it agrees with this package's own
    `AutoencoderKL` to about 1e-3 of the largest value rather than 1e-4.

    Args:
      model: the `FlaxAutoencoderKL` module.
      params: its parameters, as `from_pretrained` returns them.

    >>> from diffusers import FlaxAutoencoderKL
    >>> model = FlaxAutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    >>> ae = aedr.from_flax_diffusers(model, model.init_weights(jax.random.key(0)))
    >>> ae.encode(jnp.zeros((1, 8, 8, 3))).shape
    (1, 8, 8, 4)
    """

    def apply(params: Any, x: Array, method: Callable[..., Any], **options: Any) -> Any:
        return model.apply({"params": params}, x, method=method, **options)

    def posterior(params: Any, images: Array) -> Any:
        return apply(params, images.transpose(0, 3, 1, 2), model.encode).latent_dist  # NCHW in, NHWC latents out

    def encode(params: Any, images: Array) -> Array:
        return posterior(params, images).mode()

    def sample(params: Any, images: Array, key: Array) -> Array:
        distribution = posterior(params, images)
        return distribution.mean + distribution.std * normal_like(key, distribution.mean)

    def decode(params: Any, latents: Array) -> Array:
        # Channels last is what its decoder takes: it turns whatever does not end in latent_channels, and NCHW latents
        # as wide as they have channels would stay unturned.
        decoded = apply(params, latents, model.decode).sample
        return decoded.transpose(0, 2, 3, 1).astype(jnp.float32)

    return from_functions(
        encode,
        decode,
        params,
        sample=sample,
        factor=2 ** (len(model.block_out_channels) - 1),
        scaling_factor=model.scaling_factor,
    )

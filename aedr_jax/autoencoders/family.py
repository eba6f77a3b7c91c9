"""What a family of autoencoders is: an architecture read from `config.json`, a network, and how checkpoints fill it.

A family is one `Family` record in the table of `aedr_jax.autoencoders.families`; configs, checkpoints, loading and the
tables of a study read all they need from it. Its network inherits from one of three classes here, by what is between
encoder and decoder: nothing (`Network`), a Gaussian to sample (`GaussianNetwork`) or a codebook (`CodebookNetwork`).

Networks are pytrees: they go through `jit`, `vmap`, `grad`, `shard_map` and `pmap` as arguments. What is static in them
is the architecture, the numerics, the range of images and whether to quantize, so that models of one architecture share
one compiled program; scaling factors are arrays, and names, paths and hashes are not kept at all.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.models import normal_like
from aedr_jax.autoencoders.quantizer import Quantizer
from aedr_jax.errors import AutoencoderError
from aedr_jax.images.arrays import check_floats

__all__ = [
    "Architecture",
    "AutoencoderConfig",
    "CodebookNetwork",
    "Family",
    "GaussianNetwork",
    "Network",
    "OneKey",
    "build",
    "build_abstract",
]

IMAGE_RANGE = (-1.0, 1.0)  # of every image in this package, whatever a network was trained on


@dataclasses.dataclass(frozen=True)
class Architecture(abc.ABC):
    """The fields of a config that shape the network. Hashable: it is part of the key under which a program is compiled.

    Each field of a subclass is a field of `config.json`, with diffusers' default. Its annotation says which values are
    taken: `bool`, `int`, `float`, `str`, `tuple[..., ...]` of these, or a union; null is the default. Integers are
    positive and lists hold something, unless the field's metadata says otherwise: `{"least": 0}`, `{"empty": True}`.
    """

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Architecture:
        """The architecture of the fields that a config gives; where one default depends on another, it is set here."""
        return cls(**fields)

    @property
    @abc.abstractmethod
    def factor(self) -> int:
        """Image size over latent size."""

    @property
    def image_channels(self) -> int:
        """4: RGB and alpha, which is fed as opaque and not looked at."""
        return 3

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """The row or column of a study's tables that its models belong to."""

    def problems(self) -> list[str]:
        """What cannot be rebuilt although each field alone is well, one sentence each."""
        return []

    def not_rgb(self, *names: str) -> list[str]:
        """The problems of these fields, which are to be the three channels of an image."""
        numbers = {name: getattr(self, name) for name in names}
        return [f"{name} = {number}; images have 3 channels here" for name, number in numbers.items() if number != 3]


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """A family's architecture and the numbers that travel with the weights."""

    family: Family
    architecture: Architecture
    scaling_factor: float
    image_range: tuple[float, float]


class Network(nnx.Module):
    """An autoencoder of a family. A subclass makes its layers, and where its encoder and decoder are not all, says how
    they are applied."""

    architecture: Architecture
    encoder: Callable[..., Any]
    decoder: Callable[..., Any]

    def __init__(
        self, config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs, *, quantize: bool | None = None
    ) -> None:
        if quantize and not isinstance(self, CodebookNetwork):
            raise AutoencoderError(f"quantize=True, but an {config.family.class_name} has no codebook")
        self.architecture, self.numerics = config.architecture, numerics
        self.image_range = config.image_range
        self.scaling_factor = nnx.Variable(jnp.asarray(config.scaling_factor, jnp.float32))
        self.make_layers(numerics, rngs)

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        """Sets `encoder`, `decoder` and whatever stands beside them, of `self.architecture`."""
        raise NotImplementedError

    @property
    def factor(self) -> int:
        return self.architecture.factor

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        """Latents (a `GaussianNetwork`: their mean and log variance, side by side) of images in the network's range."""
        return self.encoder(x)

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        """Images in the network's range, of latents in its dtype."""
        return self.decoder(z)

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents. The encoder is deterministic: a key changes nothing."""
        return self.apply_encoder(self._from_images(images))

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images in float32, not clipped.

        Raises:
          ValueError: on `quantize=True`; there is no codebook.
        """
        if quantize:
            raise ValueError(f"this {type(self).__name__} has no codebook: quantize must be None or False")
        return self._to_images(self.apply_decoder(self._from_latents(latents)))

    def _from_images(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w c"]:
        check_floats(images, "images")
        if missing := self.architecture.image_channels - 3:
            images = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, missing)), constant_values=IMAGE_RANGE[1])
        return _rescale(images, IMAGE_RANGE, self.image_range).astype(self.numerics.dtype)

    def _from_latents(self, latents: Float[Array, "n hz wz c"]) -> Float[Array, "n hz wz c"]:
        check_floats(latents, "latents")
        return latents.astype(self.numerics.dtype)

    def _to_images(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w 3"]:
        return _rescale(x[..., :3].astype(jnp.float32), self.image_range, IMAGE_RANGE)


class GaussianNetwork(Network):
    """The latents' posterior is a Gaussian with a diagonal covariance: its mode, or samples of it."""

    def posterior(self, images: Float[Array, "n h w 3"]) -> tuple[Float[Array, "n hz wz c"], Float[Array, "n hz wz c"]]:
        """Mean and standard deviation of the latents' posterior."""
        mean, log_variance = jnp.split(self.apply_encoder(self._from_images(images)), 2, axis=-1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))

    def encode(self, images: Float[Array, "n h w 3"], key: Array | None = None) -> Float[Array, "n hz wz c"]:
        """Latents: the posterior's mode, or with a key (or one key an image) a sample."""
        mean, deviation = self.posterior(images)
        return mean if key is None else mean + deviation * normal_like(key, mean)


class CodebookNetwork(Network):
    """Latents have a nearest codebook entry, which is what is decoded where the model generates so.

    A subclass makes a `quantizer` too.
    """

    quantizer: Quantizer
    quantizes: ClassVar[bool] = True  # unless said otherwise, as diffusers' class does

    def __init__(
        self, config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs, *, quantize: bool | None = None
    ) -> None:
        super().__init__(config, numerics, rngs, quantize=quantize)
        self.quantize_on_decode = self.quantizes if quantize is None else quantize

    def quantize(self, latents: Float[Array, "n hz wz c"]) -> Float[Array, "n hz wz c"]:
        """The nearest codebook entries (gradients pass straight through)."""
        return self.quantizer(latents)

    def decode(self, latents: Float[Array, "n hz wz c"], *, quantize: bool | None = None) -> Float[Array, "n h w 3"]:
        """Images in float32, not clipped. `quantize` None: as the model generates (its registry entry)."""
        z = self._from_latents(latents)
        if self.quantize_on_decode if quantize is None else quantize:
            z = self.quantizer(z)
        return self._to_images(self.apply_decoder(z))


def _unchanged(key: str, value: np.ndarray) -> np.ndarray:
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """One class of diffusers or of transformers.

    Attributes:
      class_name: `_class_name` in `config.json`; of transformers the only one of `architectures` there.
      architecture: its fields; a frozen dataclass.
      network: built as `network(config, numerics, rngs, quantize=...)`.
      scaling_factor: diffusers' default of it.
      image_range: what the network was trained on; encode and decode convert from and to [-1, 1].
      fixed_fields: fields that are taken with some values only -> those values.
      ignored_fields: further fields that change no reconstruction -> why; see also `config.IGNORED_FIELDS`.
      key_rules: (pattern, replacement), from checkpoint keys to module paths; applied in order and before
        `checkpoints.KEY_RULES`, which suffice where modules are named as in diffusers. A path itself must not change.
      ignored_keys: (pattern, why) of further tensors that no reconstruction looks at.
      adapt: `adapt(key, value)`, applied to each tensor of a diffusers file whose key is not its path, in PyTorch's
        layout; for tensors that are cut or summed, such as kernels of videos. A ValueError says what is wrong with one.
    """

    class_name: str
    architecture: type[Architecture]
    network: type[Network]
    scaling_factor: float = 1.0
    image_range: tuple[float, float] = IMAGE_RANGE
    fixed_fields: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    ignored_fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key_rules: tuple[tuple[str, str], ...] = ()
    ignored_keys: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[str, np.ndarray], np.ndarray] = _unchanged


def build(config: AutoencoderConfig, numerics: Numerics, rngs: nnx.Rngs, *, quantize: bool | None = None) -> Network:
    """An autoencoder with fresh random weights.

    Args:
      config: what `parse_config` read.
      numerics: dtype and precision to compute in.
      rngs: of the weights.
      quantize: whether `decode` goes through the codebook; None: as diffusers does.

    Raises:
      AutoencoderError: on `quantize=True` for a model without a codebook.
    """
    return config.family.network(config, numerics, rngs, quantize=quantize)


@functools.lru_cache(maxsize=16)
def build_abstract(config: AutoencoderConfig, numerics: Numerics, quantize: bool | None = None) -> Network:
    """`build` without values, only to be read: models of one architecture share what was traced."""
    return nnx.eval_shape(lambda: build(config, numerics, OneKey(), quantize=quantize))


class OneKey(nnx.Rngs):
    """The same key for all weights, where only their shapes are wanted.

    `nnx.Rngs` counts its keys, and each count that is traced costs a walk over everything traced before (Flax asks the
    tracer for a sharding, and JAX looks for where it came from to say that there is none): to build a network would
    take time with the square of its layers.
    """

    def params(self) -> Array:
        """The key, however often it is asked for."""
        return jax.random.key(0)


def _rescale(x: Array, source: tuple[float, float], target: tuple[float, float]) -> Array:
    """From one range of values to another, linearly; nothing at all where they are equal."""
    if source == target:
        return x
    return (x - source[0]) * ((target[1] - target[0]) / (source[1] - source[0])) + target[0]

"""From images to what decides, the alignment; and the paper's losses, ratio, homogeneity and signal.

Scale of every signal: small means that the image belongs to the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from aedr_jax.autoencoders.models import Autoencoder, check_autoencoder
from aedr_jax.errors import ArgumentError
from aedr_jax.images.arrays import check_gray, check_homogeneity, check_images
from aedr_jax.images.tiles import AlignmentConfig
from aedr_jax.signal import losses, texture
from aedr_jax.signal.alignment import VERSION, Alignment, align
from aedr_jax.signal.reconstruction import split_keys, to_display

__all__ = ["PRESETS", "Measurement", "Passes", "SignalConfig", "Values", "loss_ratio", "measure", "times_texture"]

LATENTS = ("mode", "sample")
OFFICIAL_SEED = 1


@dataclasses.dataclass(frozen=True)
class SignalConfig:
    """How an image is measured and scored. The default is the project's own; `paper` and `official` are the authors'.

    Attributes:
      latents: "mode" makes a score a function of the image alone; "sample" draws from the posterior.
      clip: whether the first reconstruction is clipped to [-1, 1] before the second pass.
      round8: whether it is also rounded to 8 bit.
      kind: the kind of the homogeneity (`texture.KINDS`).
      gamma: the power of the homogeneity in the signal ratio · H^gamma; 0 switches it off.
      loss: a function (a, b) -> [n] of two batches in [-1, 1], small where they are alike. None: the alignment alone is
        measured, which is what decides; nothing is computed of the image as a whole, and all other columns are NaN.
      loss_dtype: what the loss is computed in: None for float32, "model" for the autoencoder's own dtype.
      decimals: round losses and homogeneity to that many decimals (losses, homogeneity), as the authors' files do.
      as_authors: whether, where files are read and models loaded, sizes, dtypes and quantization are those that the
        authors' code has for each model (`registry.Entry`).
      alignment: settings of the alignment, which then decides; None: it is not measured, and the signal decides.

    Raises:
      ValueError: on another `latents`, `kind` or `loss_dtype`, and where neither a loss nor an alignment is asked for.

    >>> aedr.SignalConfig.paper().clip, aedr.SignalConfig.paper().name, aedr.SignalConfig(gamma=0.5).name
    (False, 'paper', 'custom')
    """

    latents: str = "mode"
    clip: bool = True
    round8: bool = False
    kind: str = "inverse_difference"
    gamma: float = 1.0
    loss: Callable[[Array, Array], Array] | None = losses.mse
    loss_dtype: str | None = None
    decimals: tuple[int, int] | None = None
    as_authors: bool = False
    alignment: AlignmentConfig | None = dataclasses.field(default_factory=AlignmentConfig)

    def __post_init__(self) -> None:
        if self.latents not in LATENTS:
            raise ValueError(f"latents {self.latents!r}: expected one of {', '.join(LATENTS)}")
        if self.kind not in texture.KINDS:
            raise ValueError(f"kind {self.kind!r}: expected one of {', '.join(texture.KINDS)}")
        if self.loss_dtype not in (None, "model"):
            raise ValueError(f"loss_dtype {self.loss_dtype!r}: expected None or 'model'")
        if not (self.loss is None or callable(self.loss)):
            raise ValueError(f"loss {self.loss!r}: expected a function (a, b) -> [n], such as aedr.mse, or None")
        if not isinstance(self.alignment, AlignmentConfig | None):
            raise ValueError(f"alignment {self.alignment!r}: expected an AlignmentConfig or None")
        if self.loss is None and self.alignment is None:
            raise ValueError("neither a loss nor an alignment: nothing would be measured")

    @classmethod
    def tiles(cls) -> SignalConfig:
        """What verdicts need and no more: the alignment, on tiles, whatever the size of the image."""
        return cls(loss=None)

    @classmethod
    def paper(cls) -> SignalConfig:
        """The method as the paper writes it: posterior mode, no clipping, inverse difference."""
        return cls(clip=False, alignment=None)

    @classmethod
    def official(cls) -> SignalConfig:
        """The method as the authors' code runs it: posterior sample, no clipping, inverse difference moment, loss in
        the model's dtype, losses to 8 and homogeneity to 6 decimals; sizes, dtypes and quantization are theirs too."""
        return cls(
            latents="sample",
            clip=False,
            kind="inverse_difference_moment",
            loss_dtype="model",
            decimals=(8, 6),
            as_authors=True,
            alignment=None,
        )

    @classmethod
    def preset(cls, name: str) -> SignalConfig:
        """A preset by name: "default", "tiles", "paper" or "official".

        Raises:
          ValueError: on another name.
        """
        if name not in PRESETS:
            raise ValueError(f"preset {name!r}: expected one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @property
    def name(self) -> str:
        """Of the preset that these settings are, or "custom"."""
        return next((name for name, config in PRESETS.items() if config == self), "custom")

    def describe(self) -> dict[str, Any]:
        """The settings as JSON values; the loss by its name, the alignment with the version of what it comes to."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.loss is not None:
            package, *inside = self.loss.__module__.split(".")
            module = package if package == "aedr_jax" else ".".join([package, *inside])  # our own by their public names
            values["loss"] = f"{module}.{getattr(self.loss, '__qualname__', repr(self.loss))}"
        if self.alignment is not None:
            values["alignment"] = {"version": VERSION, **dataclasses.asdict(self.alignment)}
        return _as_json(values)


PRESETS: Mapping[str, SignalConfig] = MappingProxyType(
    {
        "default": SignalConfig(),
        "tiles": SignalConfig.tiles(),
        "paper": SignalConfig.paper(),
        "official": SignalConfig.official(),
    }
)

Values = Float[Array | np.ndarray, " n"]


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    return list(map(_as_json, value)) if isinstance(value, tuple) else value


class Measurement(NamedTuple):
    """What one model's autoencoder says of each image; float [n] each, NaN where undefined or not asked for.

    It is a pytree of named columns, which `jax.tree.map` slices and joins. Rows of scores and their schema have a
    column for each. The property of `Passes` with a column's name computes it.

    Attributes:
      first_loss: L1 = loss(r1, x), between the first reconstruction and the image.
      second_loss: L2 = loss(r2, r1), between the second reconstruction and the first.
      ratio: t = L1 / L2; NaN where L2 is 0.
      homogeneity: H, of the image's grey levels.
      signal: t · H^gamma, which decides in the presets of the paper.
      latent_error: mean squared distance of the image's latents to their codebook entries; NaN without a codebook.
      alignment: how the image stands on the decoder's grid (`signal.alignment`): about 0 for foreign images, far below
        for the decoder's own; NaN where the settings do not ask for it, or nothing can be said.
      alignment_error: its standard error, from the image itself; infinite where nothing can be said.

    >>> aedr.Measurement.from_losses(np.array([2e-3]), np.array([1e-3]), np.array([0.5])).signal
    Array([1.], dtype=float32)
    """

    first_loss: Values
    second_loss: Values
    ratio: Values
    homogeneity: Values
    signal: Values
    latent_error: Values
    alignment: Values
    alignment_error: Values

    @property
    def standing(self) -> Values:
        """alignment / alignment_error: one scale for all models, on which foreign images are told (`decision.null`)."""
        return self.alignment / self.alignment_error

    def take(self, chosen: Any) -> Measurement:
        """Some of the images, by indices, a slice or a mask; on the host, in numpy's float64."""
        return Measurement(*(np.asarray(column, np.float64)[chosen] for column in self))

    @classmethod
    def of_alignment(cls, alignment: Values, error: Values) -> Measurement:
        """A measurement of alignments alone; all else is NaN. Of NumPy arrays it is NumPy's."""
        nothing = alignment * math.nan
        return cls(**dict.fromkeys(cls._fields, nothing) | {"alignment": alignment, "alignment_error": error})

    @classmethod
    def from_losses(
        cls,
        first_loss: Values,
        second_loss: Values,
        homogeneity: Values,
        *,
        gamma: float = 1.0,
        **others: Values | None,
    ) -> Measurement:
        """A measurement from losses and homogeneities that are known, such as published ones.

        Args:
          first_loss, second_loss, homogeneity: [n] each.
          gamma: the power of the homogeneity in the signal.
          others: further columns by name; those not given are NaN.
        """
        first_loss, second_loss, homogeneity = map(jnp.asarray, (first_loss, second_loss, homogeneity))
        ratio = loss_ratio(first_loss, second_loss)
        known = {name: column for name, column in others.items() if column is not None}
        known |= {"first_loss": first_loss, "second_loss": second_loss, "homogeneity": homogeneity}
        known |= {"ratio": ratio, "signal": times_texture(ratio, homogeneity, gamma)}
        nothing = jnp.full_like(first_loss, jnp.nan)
        return cls(**dict.fromkeys(cls._fields, nothing) | known)


def loss_ratio(first_loss: Float[Array, " n"], second_loss: Float[Array, " n"]) -> Float[Array, " n"]:
    """L1 / L2; NaN where L2 is 0, with finite gradients everywhere else."""
    defined = second_loss > 0
    # The inner where keeps the gradient finite: d(a/b) at b = 0 would be NaN even where it is not selected.
    return jnp.where(defined, first_loss / jnp.where(defined, second_loss, 1.0), jnp.nan)


def times_texture(scores: Float[Array, " n"], homogeneity: Float[Array, " n"], gamma: float) -> Float[Array, " n"]:
    """score · H^gamma; without H where gamma is 0."""
    return scores * homogeneity**gamma if gamma else scores


class Passes:
    """A batch and its passes through an autoencoder, each made when a value first asks for it, and once.

    Args are those of `measure`.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        images: Float[Array, "n h w 3"],
        config: SignalConfig,
        *,
        gray: Integer[Array | np.ndarray, "n hg wg"] | None = None,
        homogeneity: Values | None = None,
        key: Array | None = None,
    ) -> None:
        self.autoencoder, self.images, self.config = autoencoder, images, config
        self._gray, self._homogeneity = gray, homogeneity
        self._keys: tuple[Array | None, Array | None] = (None, None)
        if config.latents == "sample":
            self._keys = split_keys(jax.random.key(OFFICIAL_SEED) if key is None else key)

    @cached_property
    def latents(self) -> Float[Array, "n hz wz c"]:
        """Of the images."""
        return self.autoencoder.encode(self.images, self._keys[0])

    @cached_property
    def first(self) -> Float[Array, "n h w 3"]:
        """The first reconstruction, as it goes into the second pass."""
        decoded = self.autoencoder.decode(self.latents)
        return to_display(decoded, clip=self.config.clip, round8=self.config.round8)

    @cached_property
    def second(self) -> Float[Array, "n h w 3"]:
        """The second reconstruction, as decoded."""
        return self.autoencoder.decode(self.autoencoder.encode(self.first, self._keys[1]))

    @cached_property
    def first_loss(self) -> Float[Array, " n"]:
        return self._loss(self.first, self.images)

    @cached_property
    def second_loss(self) -> Float[Array, " n"]:
        return self._loss(self.second, self.first)

    @cached_property
    def ratio(self) -> Float[Array, " n"]:
        return loss_ratio(self.first_loss, self.second_loss)

    @cached_property
    def homogeneity(self) -> Float[Array, " n"]:
        if self._homogeneity is None:
            gray = texture.gray_levels(jax.lax.stop_gradient(self.images)) if self._gray is None else self._gray
            found = texture.homogeneity(gray, kind=self.config.kind)
        else:
            found = jnp.asarray(self._homogeneity)
        return found if self.config.decimals is None else jnp.round(found, self.config.decimals[1])

    @cached_property
    def signal(self) -> Float[Array, " n"]:
        return times_texture(self.ratio, self.homogeneity, self.config.gamma)

    @cached_property
    def latent_error(self) -> Float[Array, " n"]:
        quantize = getattr(self.autoencoder, "quantize", None)
        if quantize is None:
            return jnp.full(len(self.images), jnp.nan)
        entries = jax.lax.stop_gradient(quantize(self.latents))  # straight-through, it would have no gradient
        pairs = zip(jax.tree.leaves(entries), jax.tree.leaves(self.latents), strict=True)
        squared = [jnp.square(a - b).astype(jnp.float32) for a, b in pairs]
        total = sum(jnp.sum(x, axis=tuple(range(1, x.ndim))) for x in squared)  # functions' latents may be a pytree
        return jnp.asarray(total / sum(math.prod(x.shape[1:]) for x in squared))

    @cached_property
    def alignment(self) -> Float[Array, " n"]:
        return self._aligned.alignment

    @cached_property
    def alignment_error(self) -> Float[Array, " n"]:
        error = self._aligned.error
        return error if self.config.alignment is None else jnp.where(jnp.isnan(error), jnp.inf, error)

    @cached_property
    def _aligned(self) -> Alignment:
        if self.config.alignment is None:
            nothing = jnp.full(len(self.images), jnp.nan)
            return Alignment(nothing, nothing, jnp.zeros_like(nothing, int))
        return align(self.autoencoder, self.images, config=self.config.alignment)

    def _loss(self, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"]) -> Float[Array, " n"]:
        assert self.config.loss is not None  # such settings ask for alignments alone (`measure`)
        # The network's own output dtype is that of its latents; images come back in float32.
        dtype = jax.tree.leaves(self.latents)[0].dtype if self.config.loss_dtype == "model" else jnp.float32
        loss = self.config.loss(a.astype(dtype), b.astype(dtype)).astype(jnp.float32)
        return loss if self.config.decimals is None else jnp.round(loss, self.config.decimals[0])


def measure(
    autoencoder: Autoencoder,
    images: Float[Array | np.ndarray, "n h w 3"],
    *,
    gray: Integer[Array | np.ndarray, "n hg wg"] | None = None,
    homogeneity: Values | None = None,
    config: SignalConfig = SignalConfig(),
    key: Array | None = None,
) -> Measurement:
    """Measure the alignment, by which `attribute` decides, and the paper's losses, ratio, homogeneity and signal.

    With r1 = D(E(x)) and r2 = D(E(r1)): L1 = loss(r1, x), L2 = loss(r2, r1), t = L1 / L2, and the signal is
    t · H^gamma. It is small where the image belongs to the model.

    The function is pure and un-jitted: wrap it in `jax.jit`, `make_sharded` or `jax.pmap` with `config` closed over.

    Args:
      autoencoder: the candidate model's.
      images: float32 in [-1, 1], as `prepare` makes them of pixels; h and w multiples of the autoencoder's factor.
      gray: grey levels of the same images for the homogeneity, in their original size (-1 is padding); None: they are
        computed from `images`, as if these were saved to PNG.
      homogeneity: known homogeneities; `gray` is then ignored.
      config: what to measure.
      key: for `latents="sample"`: a key, or one key an image (so that an image's noise does not depend on its
        batch); None: seed 1, as the authors have it.

    Raises:
      ArgumentError: on images that are not float32 or float64 [n,h,w,3], on sides that are not multiples of the factor
        or are under four latents and 32 pixels, and on grey values that are not integers. Where values are known
        (outside of `jit`, at the cost of waiting for the device): on images outside [-1, 1] or with NaN, grey values
        outside 0..255, and homogeneities outside [0, 1].

    Warns:
      RangeWarning: on known values that look like [0, 1] (`arrays.check_images`).

    Source: AEDR, arXiv 2507.18988, Eqs. 1 to 5.

    >>> encode = lambda params, x: 0.8 * x[:, ::8, ::8]
    >>> decode = lambda params, z: z.repeat(8, axis=1).repeat(8, axis=2)
    >>> ae = aedr.from_functions(encode, decode)
    >>> measured = aedr.measure(ae, jnp.full((1, 32, 32, 3), 0.5))  # L1 = .1², L2 = .08², H = 1
    >>> measured.ratio.round(2), measured.signal.round(2)
    (Array([1.56], dtype=float32), Array([1.56], dtype=float32))
    """
    if not isinstance(config, SignalConfig):
        raise ArgumentError(f"config: {config!r}; expected a SignalConfig, such as SignalConfig.paper()")
    check_autoencoder(autoencoder)
    check_images(images, autoencoder.factor)
    if homogeneity is not None:
        check_homogeneity(homogeneity, images=images)
    elif gray is not None:
        check_gray(gray, images=images)
    images = jnp.asarray(images, jnp.float32)
    passes = Passes(autoencoder, images, config, gray=gray, homogeneity=homogeneity, key=key)
    if config.loss is None:
        return Measurement.of_alignment(passes.alignment, passes.alignment_error)
    return Measurement(*(getattr(passes, name) for name in Measurement._fields))

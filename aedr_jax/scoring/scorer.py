"""Score files: decode, size, measure with each candidate model, one row for each image and model."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from aedr_jax.autoencoders.checkpoints import encoder_key, weights_hash
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.autoencoders.models import check_autoencoder
from aedr_jax.autoencoders.names import name_models
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import SourceError
from aedr_jax.images.arrays import prepare
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.images.processing import Processing
from aedr_jax.images.tiles import Tiling
from aedr_jax.inputs.decoding import (
    CENTRE_GRID,
    MAX_RESIZED_PIXELS,
    MAX_SCORED_PIXELS,
    Decoded,
    Decoder,
    Refused,
)
from aedr_jax.inputs.sources import Item
from aedr_jax.inputs.workers import decode_all
from aedr_jax.scoring.engine import Batch, Engine
from aedr_jax.scoring.rows import Row, of_numbers
from aedr_jax.scoring.sharding import Sharded, make_sharded
from aedr_jax.signal import texture
from aedr_jax.signal.alignment import align_together
from aedr_jax.signal.measurement import Measurement, SignalConfig, measure
from aedr_jax.signal.protocol import Identity, Protocol

__all__ = ["Candidate", "Scorer", "load_candidate"]

GRAY_BUCKET = 256  # grey images are padded to multiples of this, small ones of a quarter: few programs for many sizes


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model to score with; without hashes, where its functions close over their weights."""

    name: str
    autoencoder: Any
    weights_hash: str | None
    official_size: int | None = None
    rounded_hash: str | None = None

    @property
    def identity(self) -> Identity:
        """What of it can move a score."""
        known = Identity.of(self.autoencoder, name=self.name, weights=self.weights_hash)
        return dataclasses.replace(known, rounded_hash=self.rounded_hash)


def load_candidate(
    model: Any,
    *,
    name: str | None = None,
    config: SignalConfig = SignalConfig(),
    dtype: str | None = None,
    precision: str = "highest",
    quantize: bool | None = None,
) -> Candidate:
    """Load a model as the settings want it.

    Args:
      model: as for `load_autoencoder`, or `NAME=SOURCE`; or an autoencoder, such as one of `from_functions`, which is
        taken as it is and has to be named.
      name: what rows call it; None: as `name_models` says, and then `model` alone.
      config: with `as_authors`, dtype and quantization are by default those of the authors' code.
      dtype: None: float32, or the authors'.
      precision: of products.
      quantize: None: as the model generates, or as the authors have it: wherever there is a codebook.
    """
    if name is None:
        ((name, model),) = name_models([model]).items()
    if not isinstance(model, str | os.PathLike):
        check_autoencoder(model)
        given = Identity.of(model)
        return Candidate(name, model, given.weights_hash, rounded_hash=given.rounded_hash)
    entry = REGISTRY.get(os.fspath(model)) if config.as_authors else None
    if entry and dtype is None:
        dtype = entry.official_dtype
    if entry and entry.quantize is not None and quantize is None:
        quantize = True
    autoencoder = load_autoencoder(model, dtype=dtype or "float32", precision=precision, quantize=quantize)
    exact, rounded = (weights_hash(autoencoder, rounded=rounded) for rounded in (False, True))
    return Candidate(name, autoencoder, exact, entry.official_size if entry else None, rounded)


class Scorer:
    """Candidates and settings, and the engine that measures with them: images in, rows out.

    Args:
      candidates: the models.
      config: what is measured.
      batch_size: images a call (`Engine`).
      multiple: crop to a multiple of this many pixels; None: for each model to its own factor, so that its rows do
        not depend on the other candidates. A coarser one, such as 64, needs fewer programs for many sizes.
      processing: what is done to each image before it is measured, so that a calibration knows images with that past.
      most_pixels: of an image with more, the middle is measured, and its row's size rule says so; where sizes are the
        authors', which resize whole images, it is an error row. None: 2^20, or 2^24 where sizes are the authors'.
      most_decoded: an image with more is an error row.

    Raises:
      SourceError: without a model, on two of one name, a `multiple` that is none of the factors', a `batch_size` below
        1, and caps that contradict.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        config: SignalConfig = SignalConfig(),
        batch_size: int | None = None,
        multiple: int | None = None,
        processing: Processing = Processing("none"),
        most_pixels: int | None = None,
        most_decoded: int = MAX_PIXELS,
    ) -> None:
        names = [candidate.name for candidate in candidates]
        if not names:
            raise SourceError("no model to score with")
        for what, number in (("batch_size", batch_size), ("multiple", multiple)):
            if number is not None and number < 1:
                raise SourceError(f"{what} {number}: expected 1 or more")
        if len(set(names)) < len(names):
            raise SourceError(f"two models of one name: {', '.join(names)}")
        factor = math.lcm(*(c.autoencoder.factor for c in candidates))
        if multiple is not None and multiple % factor:
            raise SourceError(f"{multiple} is no multiple of the autoencoders' factor, {factor}")
        self.config, self.processing, self.multiple = config, processing, multiple or factor
        self._asked = multiple
        most_pixels = _most_pixels(config, self.multiple, most_pixels, most_decoded)
        # Where alignments alone are measured the decoder cuts their tiles, of which few sizes need few programs.
        tiled = config.alignment if config.loss is None else None
        wanted = [(self._fit(c), Tiling(tiled, c.autoencoder.factor) if tiled else None) for c in candidates]
        fits = tuple(dict.fromkeys(wanted))
        sizes = tuple(size for size, _ in fits)
        official, crops = (sizes, ()) if config.as_authors else ((), sizes)
        tilings = tuple(tiling for _, tiling in fits if tiling)
        self.decoder = Decoder(
            self.multiple, official, str(processing), most_pixels, most_decoded, crops=crops, tilings=tilings
        )
        self._fit_of = [fits.index(fit) for fit in wanted]
        together = _Together.of(candidates, wanted, shared_encoders=tiled is not None)
        self._place = together.place
        self.engine = Engine(
            _program(config, tuple(jax.local_devices())),
            [tuple(candidates[i].autoencoder for i in group) for group in together.groups],
            batch_size=batch_size,
            fit_of=[self._fit_of[group[0]] for group in together.groups],
            extra=lambda photo: () if tiled else _homogeneity(_padded(photo.gray), kind=config.kind),
        )
        self.candidates = tuple(
            dataclasses.replace(candidate, autoencoder=self.engine.autoencoders[group][member])
            for candidate, (group, member) in zip(candidates, self._place, strict=True)
        )
        self._protocols = [self.protocol(candidate) for candidate in self.candidates]

    def _fit(self, candidate: Candidate) -> Any:
        """How images are sized for a candidate, as the decoder takes it: the multiple of the crop, or (multiple, size)
        of the authors' resizing."""
        factor = candidate.autoencoder.factor
        return (factor, candidate.official_size) if self.config.as_authors else self._asked or factor

    def protocol(self, candidate: Candidate) -> Protocol:
        """All that a candidate's scores depend on, beside the images."""
        rule = f"official{candidate.official_size or ''}" if self.config.as_authors else f"crop{self._fit(candidate)}"
        return Protocol(
            candidate.identity,
            settings=self.config.describe(),
            size_rule=rule,
            processing=str(self.processing),
        )

    def score(
        self, items: Iterable[Item], *, on_progress: Callable[[int], None] = lambda done: None, workers: int = 1
    ) -> Iterator[Row]:
        """Rows of every item and model, as batches of one size fill up. An image that cannot be read gives an error row
        for each model. Items are decoded by other processes, which have a limit of time and memory for each.

        Args:
          items: what to score; gone through in another thread.
          on_progress: called with the number of images done since the last call.
          workers: how many such processes; 0: decode here.
        """
        with closing(decode_all(self.decoder, items, workers=workers)) as decoded:
            for rows in self.score_decoded(decoded):
                yield from rows
                on_progress(len(rows) // len(self.candidates))

    def score_decoded(self, stream: Iterable[Decoded | Refused]) -> Iterator[list[Row]]:
        """Rows of images that were decoded elsewhere by `decoder`, batch by batch: the rows of an image with every
        model come together."""
        for batch in self.engine(stream):
            if isinstance(batch, Refused):
                yield [self._row(batch, model, error=batch.error) for model in range(len(self.candidates))]
            else:
                yield [
                    self._measured_row(photo, model, of_numbers(column[i] for column in batch.columns[group][member]))
                    for model, (group, member) in enumerate(self._place)
                    for i, photo in enumerate(batch.photos)
                ]

    def _measured_row(self, photo: Decoded, model: int, measured: Measurement) -> Row:
        used_height, used_width = photo.used[self._fit_of[model]]
        error = self._not_finite(photo, model, measured)
        return self._row(
            photo,
            model,
            cut=self.decoder.cut(photo.width, photo.height),
            sha256=photo.sha256,
            width=photo.width,
            height=photo.height,
            format=photo.format,
            jpeg_quality=photo.quality,
            used_width=used_width,
            used_height=used_height,
            measured=measured,
            status="error" if error else "ok",
            error=error,
        )

    def _not_finite(self, photo: Decoded, model: int, measured: Measurement) -> str:
        """Which pass through the network overflowed, or "". (A ratio over a second loss of 0 is no error.)"""
        tiled = self.config.loss is None
        passes = {"first": measured.first_loss, "second": measured.second_loss}
        for order, value in ({"tiles'": measured.alignment_error} if tiled else passes).items():
            if math.isnan(value) or (not tiled and math.isinf(value)):
                dtype = self._protocols[model].identity.dtype or "float32"
                remedy = "measure in float32 (--dtype float32)"
                if dtype == "float32":
                    remedy = "its weights are broken, or too large for float32; convert or download the model anew"
                name = self.candidates[model].name
                return f"{photo.path}: {name}: the {order} pass is not finite in {dtype}; {remedy}"
        return ""

    def _row(self, image: Decoded | Refused, model: int, *, cut: str = "", **known: Any) -> Row:
        protocol = self._protocols[model]
        identity = protocol.identity
        return Row(
            id=image.id,
            path=str(image.path),
            size_rule=f"{protocol.size_rule}{cut}",
            model=self.candidates[model].name,
            weights_hash=identity.weights_hash or "",
            rounded_hash=identity.rounded_hash or "",
            preset=self.config.name,
            dtype=identity.dtype or "",
            precision=identity.precision or "",
            quantize=identity.quantize,
            **known,
        )


def _most_pixels(config: SignalConfig, multiple: int, most_pixels: int | None, most_decoded: int) -> int:
    """The cap on what is measured, as asked for or by default.

    Raises:
      SourceError: where it leaves no room for one square of the grid, or is above the cap on what is decoded.
    """
    if most_pixels is None:
        most_pixels = min(MAX_RESIZED_PIXELS if config.as_authors else MAX_SCORED_PIXELS, most_decoded)
    least = math.lcm(CENTRE_GRID, multiple) ** 2
    if not least <= most_pixels <= most_decoded:
        raise SourceError(
            f"at most {most_pixels} pixels are to be measured and {most_decoded} decoded: expected at least "
            f"{least}, and no more than are decoded"
        )
    return most_pixels


@functools.lru_cache(maxsize=16)
def _program(config: SignalConfig, devices: tuple[Any, ...]) -> Sharded:
    """What a scorer's engine runs; scorers of equal settings compile it once."""

    def measured(autoencoders: tuple[Any, ...], batch: Batch) -> tuple[Measurement, ...]:
        options: dict[str, Any] = {"homogeneity": batch.extra, "config": config, "key": batch.keys}
        return tuple(measure(autoencoder, batch.images, **options) for autoencoder in autoencoders)

    def aligned(autoencoders: tuple[Any, ...], batch: Batch) -> tuple[Measurement, ...]:
        """What `measure` gives, of images that come as their tiles."""
        assert config.alignment is not None
        flat = jnp.asarray(prepare(batch.pixels.reshape(-1, *batch.pixels.shape[2:])))
        found = align_together(autoencoders, flat.reshape(batch.pixels.shape), config=config.alignment)
        return tuple(Measurement.of_alignment(one.alignment, one.error) for one in found)

    return make_sharded(aligned if config.loss is None else measured)


@functools.partial(jax.jit, static_argnames="kind")
def _homogeneity(gray: Int[Array | np.ndarray, "1 h w"], *, kind: str) -> Float[Array, ""]:
    return texture.homogeneity(gray, kind=kind)[0]


class _Together(NamedTuple):
    """Which candidates are computed together: what is equal once, and what shares an encoder in one program.

    Attributes:
      groups: numbers of candidates, no two of one group equal.
      place: for each candidate its group and its number in it.
    """

    groups: list[list[int]]
    place: list[tuple[int, int]]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], fits: Sequence[Any], *, shared_encoders: bool) -> _Together:
        models: dict[Any, tuple[int, int]] = {}
        encoders: dict[Any, int] = {}
        kinds = [(type(candidate.autoencoder), fit) for candidate, fit in zip(candidates, fits, strict=True)]
        found = cls([], [])
        for i, (candidate, fit) in enumerate(zip(candidates, fits, strict=True)):
            leaves, structure = jax.tree.flatten(candidate.autoencoder)
            used = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), fit
            # Functions that close over their weights have no hash, and other autoencoders no encoder that is known.
            model = candidate.weights_hash or id(candidate.autoencoder), used
            # Hashing a large encoder takes seconds, and one of its kind has nobody to share with.
            alike = shared_encoders and kinds.count(kinds[i]) > 1
            encoder = (encoder_key(candidate.autoencoder) if alike else None) or i, fit
            if model not in models:
                group = encoders.setdefault(encoder, len(found.groups))
                if group == len(found.groups):
                    found.groups.append([])
                models[model] = group, len(found.groups[group])
                found.groups[group].append(i)
            found.place.append(models[model])
        return found


def _padded(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape
    pad = [(0, -side % (GRAY_BUCKET if side > GRAY_BUCKET else GRAY_BUCKET // 4)) for side in (height, width)]
    return np.pad(gray.astype(np.int16), pad, constant_values=-1)[None]

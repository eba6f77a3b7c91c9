"""Score files: decode, size, measure with each candidate model, one row for each image and model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.autoencoders.names import name_models
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import SourceError
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.images.processing import Processing
from aedr_jax.inputs.decoding import CENTRE_GRID, MAX_SCORED_PIXELS, Decoded, Decoder, Refused
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.sharding import make_sharded
from aedr_jax.signal import texture
from aedr_jax.signal.measurement import OFFICIAL_SEED, Measurement, SignalConfig, measure
from aedr_jax.signal.protocol import Identity, Protocol

__all__ = ["SCHEMA_VERSION", "Candidate", "Row", "Scorer", "grouped", "load_candidate", "rows_to_measurement"]

SCHEMA_VERSION = 2
MEASURED = ("first_loss", "second_loss", "ratio", "homogeneity", "signal")  # of a Measurement, kept in a row
GRAY_BUCKET = 256  # grey images are padded to multiples of this, small ones of a quarter: few programs for many sizes
MOST_WAITING = 1 << 28  # bytes of pixels that wait until their batch is full


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image scored by one model; numbers are 0 or NaN and texts empty where the image could not be read.

    `status` is "ok" or "error"; an error row with a `sha256` is of an image that was read, on which the model is
    not finite.
    """

    id: str
    path: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    jpeg_quality: int = 0  # that a JPEG was last saved at; 0 for other formats
    used_width: int = 0
    used_height: int = 0
    size_rule: str
    model: str
    weights_hash: str
    preset: str
    dtype: str
    precision: str
    quantize: bool | None
    first_loss: float = math.nan
    second_loss: float = math.nan
    ratio: float = math.nan
    homogeneity: float = math.nan
    signal: float = math.nan
    status: str = "error"
    error: str = ""
    schema_version: int = SCHEMA_VERSION


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model to score with."""

    name: str
    autoencoder: Any
    weights_hash: str
    official_size: int | None = None

    @property
    def identity(self) -> Identity:
        """What of it can move a score."""
        return Identity.of(self.autoencoder, name=self.name, weights=self.weights_hash)


def load_candidate(
    model: str,
    *,
    name: str | None = None,
    preset: str = "default",
    dtype: str | None = None,
    precision: str = "highest",
    quantize: bool | None = None,
) -> Candidate:
    """Load a model as a preset wants it.

    Args:
      model: as for `load_autoencoder`, or `NAME=SOURCE`.
      name: what rows call it; None: as `name_models` says, and then `model` alone.
      preset: "official" takes the dtype and the quantization that the authors' code has.
      dtype: None: float32, or the authors' dtype in the preset "official".
      precision: of products.
      quantize: None: as the model generates, or in the preset "official" wherever there is a codebook.
    """
    if name is None:
        ((name, model),) = name_models([model]).items()
    entry = REGISTRY.get(model)
    official = entry if preset == "official" else None
    if official and dtype is None:
        dtype = official.official_dtype
    if official and quantize is None and entry is not None and entry.quantize is not None:
        quantize = True
    autoencoder = load_autoencoder(model, dtype=dtype or "float32", precision=precision, quantize=quantize)
    return Candidate(name, autoencoder, weights_hash(autoencoder), official.official_size if official else None)


class Scorer:
    """Candidates, settings and the programs compiled for them.

    Args:
      candidates: the models.
      preset: the name of a `SignalConfig` preset, or settings of one's own.
      batch_size: images a call; None: one a device on CPU, eight a device elsewhere. A batch is always filled up to
        this size, so that an image's score does not depend on its company.
      multiple: crop to a multiple of this many pixels; None: the autoencoder's factor. A coarser one, such as 64,
        needs fewer programs for a folder of many sizes.
      processing: what is done to each image before it is measured, so that a calibration knows images with that past.
      most_pixels: of an image with more, the middle is measured, and its row's size rule says so; such images are an
        error row in the preset "official".
      most_decoded: an image with more is an error row.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        preset: str | SignalConfig = "default",
        batch_size: int | None = None,
        multiple: int | None = None,
        processing: Processing = Processing("none"),
        most_pixels: int = MAX_SCORED_PIXELS,
        most_decoded: int = MAX_PIXELS,
    ) -> None:
        names = [candidate.name for candidate in candidates]
        if len(set(names)) < len(names):
            raise SourceError(f"two models of one name: {', '.join(names)}")
        self.processing = processing
        self.config = SignalConfig.preset(preset) if isinstance(preset, str) else preset
        self.preset = preset if isinstance(preset, str) else preset.name
        self._measure = make_sharded(self._measure_batch)
        self._weights = [self._measure.replicate(candidate.autoencoder) for candidate in candidates]
        self.candidates = tuple(
            dataclasses.replace(candidate, autoencoder=weights.whole())
            for candidate, weights in zip(candidates, self._weights, strict=True)
        )
        per_device = 1 if jax.default_backend() == "cpu" else 8
        self.batch_size = batch_size or per_device * jax.local_device_count()
        factor = math.lcm(*(c.autoencoder.factor for c in candidates))
        if multiple is not None and multiple % factor:
            raise SourceError(f"{multiple} is no multiple of the autoencoders' factor, {factor}")
        self.multiple = multiple or factor
        fits = tuple(dict.fromkeys((c.autoencoder.factor, c.official_size) for c in candidates))
        official = self.preset == "official"
        self.size_rule = "official" if official else f"crop{self.multiple}"
        least = math.lcm(CENTRE_GRID, self.multiple) ** 2
        if not least <= most_pixels <= most_decoded:
            raise SourceError(
                f"at most {most_pixels} pixels are to be measured and {most_decoded} decoded: expected at least "
                f"{least}, and no more than are decoded"
            )
        self.decoder = Decoder(self.multiple, fits if official else (), str(processing), most_pixels, most_decoded)
        self._fit_of = [fits.index((c.autoencoder.factor, c.official_size)) if official else 0 for c in candidates]
        self._homogeneity = jax.jit(lambda gray: texture.homogeneity(gray, kind=self.config.kind)[0])

    def protocol(self, candidate: Candidate) -> Protocol:
        """All that a candidate's scores depend on, beside the images."""
        size = candidate.official_size if self.size_rule == "official" else None
        return Protocol(
            candidate.identity,
            settings=self.config.describe(),
            size_rule=f"{self.size_rule}{size or ''}",
            processing=str(self.processing),
        )

    def score(self, items: Iterable[Item], *, on_progress: Callable[[int], None] = lambda done: None) -> Iterator[Row]:
        """Rows of every item and model, as batches of one size fill up. An image that cannot be read gives an error row
        for each model. Items are decoded in this process.

        Args:
          items: what to score.
          on_progress: called with the number of images done since the last call.
        """
        for rows in self.score_decoded(map(self.decoder, items)):
            yield from rows
            on_progress(len(rows) // len(self.candidates))

    def score_decoded(self, stream: Iterable[Decoded | Refused]) -> Iterator[list[Row]]:
        """Rows of images that were decoded elsewhere by `decoder`, batch by batch: the rows of an image with every
        model come together. A batch is fetched from the devices after the next has been sent to them."""
        launched: tuple[Sequence[Decoded], list[Measurement]] | None = None
        for group in grouped(stream, self.batch_size):
            if isinstance(group, Refused):
                yield [self._row(group, candidate, error=group.error) for candidate in self.candidates]
                continue
            following = (group, self._launch(group))
            if launched:
                yield self._fetch(*launched)
            launched = following
        if launched:
            yield self._fetch(*launched)

    def _launch(self, photos: Sequence[Decoded]) -> list[Measurement]:
        """What each candidate says of a batch, still being computed."""
        homogeneity = [self._homogeneity(_padded(photo.gray)) for photo in photos]
        homogeneities = jnp.stack(homogeneity + homogeneity[-1:] * (self.batch_size - len(photos)))
        seeds = _filled(np.array([int(photo.sha256[:8], 16) for photo in photos], np.uint32), self.batch_size)
        stacks = [
            _filled(np.stack(images), self.batch_size) for images in zip(*(p.images for p in photos), strict=True)
        ]
        return [
            self._measure(weights, stacks[fit], homogeneities, seeds)
            for weights, fit in zip(self._weights, self._fit_of, strict=True)
        ]

    def _fetch(self, photos: Sequence[Decoded], measured: Sequence[Measurement]) -> list[Row]:
        rows = []
        for candidate, fit, found in zip(self.candidates, self._fit_of, measured, strict=True):
            columns = {name: np.asarray(getattr(found, name), np.float64).tolist() for name in MEASURED}
            for i, photo in enumerate(photos):
                used_height, used_width = photo.images[fit].shape[:2]
                numbers = {name: values[i] for name, values in columns.items()}
                error = self._not_finite(photo, candidate, numbers)
                rows.append(
                    self._row(
                        photo,
                        candidate,
                        sha256=photo.sha256,
                        width=photo.width,
                        height=photo.height,
                        format=photo.format,
                        jpeg_quality=photo.quality,
                        used_width=used_width,
                        used_height=used_height,
                        status="error" if error else "ok",
                        error=error,
                        **numbers,
                    )
                )
        return rows

    def _not_finite(self, photo: Decoded, candidate: Candidate, numbers: Mapping[str, float]) -> str:
        """Which pass through the network overflowed, or "". (A ratio over a second loss of 0 is no error.)"""
        for order in ("first", "second"):
            if not math.isfinite(numbers[f"{order}_loss"]):
                dtype = jnp.dtype(candidate.autoencoder.numerics.dtype).name
                remedy = "measure in float32 (--dtype float32)"
                if dtype == "float32":
                    remedy = "its weights are broken, or too large for float32; convert or download the model anew"
                return f"{photo.path}: {candidate.name}: the {order} pass is not finite in {dtype}; {remedy}"
        return ""

    def _measure_batch(self, autoencoder: Any, images: Any, homogeneity: Any, seeds: Any) -> Measurement:
        # Noise keyed by the file's content: the same image gets the same score in any folder, order or batch.
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(OFFICIAL_SEED), seed))(seeds)
        images = images.astype(jnp.float32) / 127.5 - 1.0
        return measure(autoencoder, images, homogeneity=homogeneity, config=self.config, key=keys)

    def _row(self, image: Decoded | Refused, candidate: Candidate, **known: Any) -> Row:
        protocol = self.protocol(candidate)
        identity = protocol.identity
        return Row(
            id=image.id,
            path=str(image.path),
            size_rule=f"{protocol.size_rule}{self.decoder.cut(image.width, image.height)}"
            if isinstance(image, Decoded)
            else str(protocol.size_rule),
            model=candidate.name,
            weights_hash=candidate.weights_hash,
            preset=self.preset,
            dtype=str(identity.dtype),
            precision=str(identity.precision),
            quantize=identity.quantize,
            **known,
        )


def grouped(
    stream: Iterable[Decoded | Refused], size: int, *, most_bytes: int = MOST_WAITING
) -> Iterator[list[Decoded] | Refused]:
    """Batches of images of one shape, full ones as they fill up; what was refused passes through at once.

    Images that wait for company are kept within `most_bytes`: above it the batch that was begun first goes out as it
    is. The rest goes out at the end.
    """
    waiting: dict[Any, list[Decoded]] = {}
    held = 0
    for image in stream:
        if isinstance(image, Refused):
            yield image
            continue
        group = waiting.setdefault(image.shapes, [])
        group.append(image)
        held += image.nbytes
        if len(group) < size and held <= most_bytes:
            continue
        chosen = image.shapes if len(group) == size else next(iter(waiting))
        group = waiting.pop(chosen)
        held -= sum(photo.nbytes for photo in group)
        yield group
    yield from (waiting[shapes] for shapes in sorted(waiting))


def rows_to_measurement(rows: Sequence[Row]) -> Measurement:
    """The measurement that rows of one model hold, in their order."""
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in MEASURED}
    return Measurement(**columns, latent_error=np.full(len(rows), np.nan))


def _padded(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape
    pad = [(0, -side % (GRAY_BUCKET if side > GRAY_BUCKET else GRAY_BUCKET // 4)) for side in (height, width)]
    return np.pad(gray.astype(np.int16), pad, constant_values=-1)[None]


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])

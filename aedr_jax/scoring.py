"""Score files: decode, size, measure with each candidate model, one row for each image and model."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aedr_jax import texture
from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import ImageError, SourceError
from aedr_jax.images import MIN_SIDE, Photo, fit_crop, fit_official, read_photo, read_size
from aedr_jax.processing import Processing
from aedr_jax.sharding import make_sharded
from aedr_jax.signal import OFFICIAL_SEED, Measurement, SignalConfig, measure
from aedr_jax.sources import Item

__all__ = ["SCHEMA_VERSION", "Candidate", "Row", "Scorer", "load_candidate", "rows_to_measurement"]

SCHEMA_VERSION = 1
MEASURED = ("first_loss", "second_loss", "ratio", "homogeneity", "signal")  # of a Measurement, kept in a row
GRAY_BUCKET = 256  # grey images are padded to multiples of this: few programs for many sizes
MAX_SCORED_PIXELS = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image scored by one model; numbers are 0 or NaN and texts empty where the image could not be read."""

    id: str
    path: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
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


def load_candidate(
    model: str,
    *,
    preset: str = "default",
    dtype: str | None = None,
    precision: str = "highest",
    quantize: bool | None = None,
) -> Candidate:
    """Load a model as a preset wants it.

    Args:
      model: as for `load_autoencoder`; a folder is named after its last part.
      preset: "official" takes the dtype and the quantization that the authors' code has.
      dtype: None: float32, or the authors' dtype in the preset "official".
      precision: of products.
      quantize: None: as the model generates, or in the preset "official" wherever there is a codebook.
    """
    entry = REGISTRY.get(model)
    official = entry if preset == "official" else None
    if official and dtype is None:
        dtype = official.official_dtype
    if official and quantize is None and entry is not None and entry.quantize is not None:
        quantize = True
    autoencoder = load_autoencoder(model, dtype=dtype or "float32", precision=precision, quantize=quantize)
    name = model if entry else Path(model).name
    return Candidate(name, autoencoder, weights_hash(autoencoder), official.official_size if official else None)


class Scorer:
    """Candidates, settings and the programs compiled for them.

    Args:
      candidates: the models.
      preset: the name of a `SignalConfig` preset.
      batch_size: images a call; None: one a device on CPU, eight a device elsewhere. A batch is always filled up to
        this size, so that an image's score does not depend on its company.
      multiple: crop to a multiple of this many pixels; None: the autoencoder's factor. A coarser one, such as 64,
        needs fewer programs for a folder of many sizes.
      processing: what is done to each image before it is measured, so that a calibration knows images with that past.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        preset: str = "default",
        batch_size: int | None = None,
        multiple: int | None = None,
        processing: Processing = Processing("none"),
    ) -> None:
        names = [candidate.name for candidate in candidates]
        if len(set(names)) < len(names):
            raise SourceError(f"two models of one name: {', '.join(names)}")
        self.processing = processing
        self.preset, self.config = preset, SignalConfig.preset(preset)
        self._measure = make_sharded(self._measure_batch)
        self.candidates = tuple(
            dataclasses.replace(c, autoencoder=self._measure.replicate(c.autoencoder)) for c in candidates
        )
        per_device = 1 if jax.default_backend() == "cpu" else 8
        self.batch_size = batch_size or per_device * jax.local_device_count()
        factor = math.lcm(*(c.autoencoder.factor for c in candidates))
        if multiple is not None and multiple % factor:
            raise SourceError(f"{multiple} is no multiple of the autoencoders' factor, {factor}")
        self.multiple = multiple or factor
        self.size_rule = "official" if preset == "official" else f"crop{self.multiple}"
        self._homogeneity = jax.jit(lambda gray: texture.homogeneity(gray, kind=self.config.kind)[0])

    def score(self, items: Sequence[Item], *, on_progress: Callable[[int], None] = lambda done: None) -> Iterator[Row]:
        """Rows of every item and model, size by size. An image that cannot be read gives an error row for each model.

        Args:
          items: what to score.
          on_progress: called with the number of images done since the last call.
        """
        groups: dict[tuple[int, int], list[Item]] = defaultdict(list)
        for item in items:
            try:
                width, height = read_size(item.path)
                groups[self._bucket(width, height, item)].append(item)
            except ImageError as error:
                yield from self._error_rows(item, str(error))
                on_progress(1)
        for _, group in sorted(groups.items()):
            for start in range(0, len(group), self.batch_size):
                yield from self._score_batch(group[start : start + self.batch_size])
                on_progress(len(group[start : start + self.batch_size]))

    def _bucket(self, width: int, height: int, item: Item) -> tuple[int, int]:
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"{item.path}: {width}×{height}; the shorter side must be at least {MIN_SIDE} pixels")
        if width * height > MAX_SCORED_PIXELS:
            raise ImageError(f"{item.path}: {width}×{height} is above {MAX_SCORED_PIXELS} pixels; crop it first")
        if self.preset == "official":  # resizing may round up, and ignores EXIF: group by the size as stored
            return width, height
        used = (width - width % self.multiple, height - height % self.multiple)
        if min(used) < MIN_SIDE:
            raise ImageError(
                f"{item.path}: {width}×{height} leaves {used[0]}×{used[1]} of a multiple of {self.multiple}"
            )
        return used

    def _score_batch(self, items: Sequence[Item]) -> Iterator[Row]:
        # Within a group sizes agree, unless a file changed meanwhile or (official) EXIF turned it.
        by_shape: dict[tuple[int, ...], list[tuple[Item, Photo]]] = defaultdict(list)
        for item in items:
            try:
                photo = self._processed(read_photo(item.path, orient=self.preset != "official"), item)
            except ImageError as error:
                yield from self._error_rows(item, str(error))
                continue
            kept = photo.image if self.preset == "official" else fit_crop(photo.image, self.multiple)
            by_shape[kept.shape].append((item, photo))
        for _, group in sorted(by_shape.items()):
            yield from self._measure_photos(*zip(*group, strict=True))

    def _processed(self, photo: Photo, item: Item) -> Photo:
        if self.processing.kind == "none":
            return photo
        image = self.processing.apply(photo.image, seed=int(photo.sha256[:8], 16))
        if min(image.shape[:2]) < MIN_SIDE:
            raise ImageError(f"{item.path}: {self.processing} leaves {image.shape[1]}×{image.shape[0]} pixels")
        gray = texture.gray_levels(jnp.asarray(image[None], jnp.float32) / 127.5 - 1)[0]
        return photo._replace(image=image, gray=np.asarray(gray).astype(np.uint8))

    def _measure_photos(self, items: Sequence[Item], photos: Sequence[Photo]) -> Iterator[Row]:
        homogeneities = np.array([float(self._homogeneity(_padded(photo.gray))) for photo in photos], np.float32)
        seeds = np.array([int(photo.sha256[:8], 16) for photo in photos], np.uint32)
        for candidate in self.candidates:
            images = np.stack([self._fit(photo, candidate) for photo in photos])
            batch = [_filled(x, self.batch_size) for x in (images, homogeneities, seeds)]
            measured = self._measure(candidate.autoencoder, *batch)
            columns = {name: np.asarray(getattr(measured, name), np.float64).tolist() for name in MEASURED}
            for i, (item, photo) in enumerate(zip(items, photos, strict=True)):
                yield dataclasses.replace(
                    self._row(item, candidate),
                    sha256=photo.sha256,
                    width=photo.image.shape[1],
                    height=photo.image.shape[0],
                    format=photo.format,
                    used_width=images.shape[2],
                    used_height=images.shape[1],
                    status="ok",
                    **{name: values[i] for name, values in columns.items()},
                )

    def _fit(self, photo: Photo, candidate: Candidate) -> np.ndarray:
        if self.preset == "official":
            return fit_official(photo.image, candidate.autoencoder.factor, candidate.official_size)
        return fit_crop(photo.image, self.multiple)

    def _measure_batch(self, autoencoder: Any, images: Any, homogeneity: Any, seeds: Any) -> Measurement:
        # Noise keyed by the file's content: the same image gets the same score in any folder, order or batch.
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(OFFICIAL_SEED), seed))(seeds)
        images = images.astype(jnp.float32) / 127.5 - 1.0
        return measure(autoencoder, images, homogeneity=homogeneity, config=self.config, key=keys)

    def _row(self, item: Item, candidate: Candidate, error: str = "") -> Row:
        """What is known of a row before the image is measured."""
        numerics = candidate.autoencoder.numerics
        return Row(
            id=item.id,
            path=str(item.path),
            size_rule=self.size_rule,
            model=candidate.name,
            weights_hash=candidate.weights_hash,
            preset=self.preset,
            dtype=jnp.dtype(numerics.dtype).name,
            precision=numerics.precision or "default",
            quantize=getattr(candidate.autoencoder, "quantize_on_decode", None),
            error=error,
        )

    def _error_rows(self, item: Item, message: str) -> Iterator[Row]:
        return (self._row(item, candidate, message) for candidate in self.candidates)


def rows_to_measurement(rows: Sequence[Row]) -> Measurement:
    """The measurement that rows of one model hold, in their order."""
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in MEASURED}
    return Measurement(**columns, latent_error=np.full(len(rows), np.nan))


def _padded(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape
    pad = (0, -height % GRAY_BUCKET), (0, -width % GRAY_BUCKET)
    return np.pad(gray.astype(np.int16), pad, constant_values=-1)[None]


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])

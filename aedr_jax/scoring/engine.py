"""The engine: decoded images in, columns out. `score`, `attribute`, `evaluate` and the studies all run on it.

Images of one shape are put together in batches of one size, each batch is sent to the devices with every model, and
fetched after the next has been sent, or where a CPU computes several at once, after so many. What is computed is a
per-image function; what becomes of its columns (rows, a table, verdicts) is the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

from aedr_jax.errors import ImageError
from aedr_jax.images.arrays import prepare
from aedr_jax.inputs.decoding import Decoded, Refused
from aedr_jax.interruption import deferred
from aedr_jax.scoring.sharding import Sharded, make_sharded
from aedr_jax.signal.measurement import OFFICIAL_SEED

__all__ = ["Batch", "Columns", "Engine", "Measured", "grouped"]

MOST_WAITING = 1 << 28  # bytes of pixels that wait until their batch is full
MOST_AT_ONCE = 1 << 20  # pixels of batches that are computed at once: they take no more memory than one large image

# A per-image pytree of arrays [n]: a `Measurement`, or whatever else a per-image function returns.
Columns = Any


class Batch(NamedTuple):
    """What a per-image function sees of n images.

    Attributes:
      pixels: uint8 [n,h,w,3], or with a decoder's `tilings` [n,tiles,t,t,3].
      seeds: uint32 [n], of each image's content.
      extra: a pytree of arrays [n, ...] that the caller computed of the decoded images (homogeneities, grey levels).
    """

    pixels: UInt8[Array | np.ndarray, "n *tiles h w 3"]
    seeds: UInt32[Array | np.ndarray, " n"]
    extra: Any

    @property
    def images(self) -> Float[Array, "n h w 3"]:
        """The pixels in [-1, 1], of what is not cut into tiles."""
        return jnp.asarray(prepare(self.pixels))

    @property
    def keys(self) -> Array:
        """A key for each image, of its content alone: the same noise in any folder, order or batch."""
        return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(OFFICIAL_SEED), seed))(self.seeds)


class Measured(NamedTuple):
    """A batch of images, and for each model the columns of these images, numpy float64."""

    photos: Sequence[Decoded]
    columns: tuple[Columns, ...]

    def images(self, model: int = 0) -> Iterator[tuple[Decoded, Columns]]:
        """Each image, and what a model's columns have for it."""
        for i, photo in enumerate(self.photos):
            yield photo, jax.tree.map(lambda column, i=i: column[i], self.columns[model])


class Engine:
    """A per-image function of several models, compiled once for each shape and spread over the local devices.

    Args:
      fn: `(autoencoder, Batch) -> columns`, jit-able; what it says of an image does not depend on the others. Or what
        `make_sharded` made of it: engines that share a program compile it once.
      autoencoders: the models', or any pytrees that `fn` takes in their place.
      batch_size: images a call. A batch is always filled up to this size, so that an image's columns do not depend on
        its company; None: one a device on CPU, eight a device elsewhere.
      fit_of: for each model, which of a decoded image's `images` it sees; None: the first.
      extra: what else the function needs of an image, a pytree of arrays, computed of each just once.
    """

    def __init__(
        self,
        fn: Callable[[Any, Batch], Columns] | Sharded,
        autoencoders: Sequence[Any],
        *,
        batch_size: int | None = None,
        fit_of: Sequence[int] | None = None,
        extra: Callable[[Decoded], Any] = lambda photo: (),
    ) -> None:
        self._program = fn if isinstance(fn, Sharded) else make_sharded(fn)
        self._weights = [self._program.replicate(autoencoder) for autoencoder in autoencoders]
        per_device = 1 if jax.default_backend() == "cpu" else 8
        self.batch_size = batch_size or per_device * jax.local_device_count()
        self._fit_of = fit_of or [0] * len(autoencoders)
        self._extra = extra

    @property
    def autoencoders(self) -> list[Any]:
        """The models', as they lie on the devices."""
        return [weights.whole() for weights in self._weights]

    def __call__(self, stream: Iterable[Decoded | Refused]) -> Iterator[Measured | Refused]:
        """Columns batch by batch, as batches of one shape fill up; what was refused passes through at once."""
        launched: deque[tuple[Sequence[Decoded], list[Columns]]] = deque()
        for group in grouped(stream, self.batch_size):
            if isinstance(group, Refused):
                yield group
                continue
            with deferred():
                launched.append((group, self._launch(group)))
                done = [_fetch(*launched.popleft()) for _ in range(len(launched) - self._at_once(group))]
            yield from done
        while launched:
            with deferred():
                last = _fetch(*launched.popleft())
            yield last

    def measured(self, stream: Iterable[Decoded | Refused]) -> Iterator[Measured]:
        """The same, where no image may be missing.

        Raises:
          ImageError: on the first that was refused.
        """
        for batch in self(stream):
            if isinstance(batch, Refused):
                raise ImageError(batch.error)
            yield batch

    def batch(self, photos: Sequence[Decoded], fit: int = 0) -> Batch:
        """The batch that these images are, filled up with the last."""
        return self._batches(photos, [fit])[fit]

    def _batches(self, photos: Sequence[Decoded], fits: Iterable[int]) -> dict[int, Batch]:
        def filled(values: Iterable[Any]) -> list[Any]:
            *others, last = values
            return [*others, *[last] * (self.batch_size - len(others))]

        seeds = np.array(filled(photo.seed for photo in photos), np.uint32)
        extra = jax.tree.map(_stacked, *filled(self._extra(photo) for photo in photos))
        return {fit: Batch(np.stack(filled(photo.images[fit] for photo in photos)), seeds, extra) for fit in fits}

    def _at_once(self, photos: Sequence[Decoded]) -> int:
        """How many programs of such batches run at once."""
        pixels = self.batch_size * max(image.size // image.shape[-1] for image in photos[0].images)
        return max(1, min(self._program.lanes, MOST_AT_ONCE // pixels))

    def _launch(self, photos: Sequence[Decoded]) -> list[Columns]:
        """What each model's columns will be, still being computed; computed, where a model's program calls Python."""
        batches = self._batches(photos, set(self._fit_of))
        arguments = [(w, batches[fit]) for w, fit in zip(self._weights, self._fit_of, strict=True)]
        if any(self._program.calls_back(*one) for one in arguments):
            return [jax.block_until_ready(self._program(*one)) for one in arguments]
        at_once = self._at_once(photos)
        return [self._program.beside(at_once, *one) for one in arguments]


def _stacked(*values: Any) -> Any:
    return (jnp if isinstance(values[0], jax.Array) else np).stack(values)  # nothing on a device is waited for


def _fetch(photos: Sequence[Decoded], launched: Sequence[Columns]) -> Measured:
    def host(column: Any) -> np.ndarray:
        return np.asarray(column, np.float64)[: len(photos)]

    return Measured(photos, tuple(jax.tree.map(host, columns) for columns in launched))


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

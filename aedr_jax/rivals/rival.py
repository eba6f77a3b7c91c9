"""What a rival says of itself: one record, which stands in its own file beside its score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float, UInt8

__all__ = ["Limits", "Resize", "Rival"]

# (images of any size, the model's name) -> what the autoencoder is given, float32 [n,s,s,3] in [-1, 1]; on the host.
Resize = Callable[[Sequence[UInt8[np.ndarray, "_ _ 3"]], str], Float[np.ndarray, "n s s 3"]]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a dear rival goes in a comparison.

    Attributes:
      count: images of each source; None: all.
      steps: of its descent; None: it has none.
      models: the candidates that it is asked about; None: all.
    """

    count: int | None = None
    steps: int | None = None
    models: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rival:
    """A signal of somebody else's; everything that the comparison, its tables and the command line know of it.

    Attributes:
      name: of its methods' names the first part.
      score: `(autoencoder, images [n,h,w,3], **options) -> [n]`, pure; small means that an image belongs.
      passes: about how many passes through a network an image costs; where it descends, each step of it.
      takes: what `score` is given by name beside the images: "gray" (grey levels [n,h,w]), "key" (one key an image),
        "clamp" (whether the model's images are clamped).
      distance: whether `score` takes a `distance` of two batches; there is a method for each distance at hand.
      layer: of LPIPS, where that is the distance; None: the sum of all.
      limits: unless told otherwise; None: every image of every model. Where they have steps, `score` takes `steps`.
      first_models: of so many models the command line asks unless told otherwise; None: of all.
      published_steps: of the descent in its authors' experiments.
      unclamped: models whose decoded images are not clamped, by its authors' code.
      resized: by the end of a method's name, what its authors' code does to images first. Such a method is asked for
        by name only, since it looks at other pixels than the others.
      resized_note: what the tables say where it was not asked for.
      threshold: `(scores of belonging images) -> threshold` by its own test, which has no alpha to pick; None: that of
        the density estimate, as everywhere.
    """

    name: str
    score: Callable[..., Float[Array, " n"]]
    passes: int
    takes: tuple[str, ...] = ()
    distance: bool = False
    layer: int | None = None
    limits: Limits | None = None
    first_models: int | None = None
    published_steps: int | None = None
    unclamped: tuple[str, ...] = ()
    resized: Mapping[str, Resize] = dataclasses.field(default_factory=dict)
    resized_note: str = ""
    threshold: Callable[[object], float] | None = None

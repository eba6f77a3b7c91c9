"""Every method of the comparison by its name: AEDR's presets and losses, and the rivals with each distance at hand.

`RIVALS` is the one place where a rival is registered: methods, their options on the command line, the rows and notes of
the tables all follow from it and from the record in the rival's own file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from aedr_jax.rivals.aeroblade import AEROBLADE
from aedr_jax.rivals.did import DID
from aedr_jax.rivals.latenttracer import LATENTTRACER
from aedr_jax.rivals.rdd import RDD
from aedr_jax.rivals.rival import Limits, Resize, Rival
from aedr_jax.rivals.ronan import RONAN
from aedr_jax.signal import losses, texture
from aedr_jax.signal.measurement import SignalConfig, measure
from aedr_jax.signal.perceptual import Lpips, lpips

__all__ = [
    "DEFAULT",
    "NO_LIMITS",
    "PAPER",
    "PERCEPTUAL",
    "RIVALS",
    "Method",
    "Scored",
    "make_methods",
    "rival_of",
    "times_homogeneity",
]

RIVALS: Mapping[str, Rival] = MappingProxyType(
    {rival.name: rival for rival in (AEROBLADE, RDD, DID, LATENTTRACER, RONAN)}
)

PAPER, DEFAULT = "aedr", "aedr-default"
PERCEPTUAL = "lpips"  # the distance that needs weights
PASSES = 4  # two through the encoder, two through the decoder
PASSES_OF_VIEWS = 12  # likewise, of a tile as it is, moved three times and turned twice
NO_LIMITS: Mapping[str, Limits] = MappingProxyType({})
Distance = Callable[[Array, Array], Array]


class Scored(NamedTuple):
    """What a method says of a batch; [n] each. A rival has only its score."""

    score: Array
    first_loss: Array | None = None
    second_loss: Array | None = None
    homogeneity: Array | None = None
    alignment: Array | None = None
    alignment_error: Array | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to score images; small means that the image belongs.

    Attributes:
      score: `(autoencoder, images [n,h,w,3] in [-1, 1], gray [n,h,w], keys [n], clamp) -> Scored`, jit-able with
        `clamp` closed over.
      passes: about how many passes through a network an image costs; progress counts them.
      count: at most so many images of each source; None: all.
      models: for these alone; None: for all.
      unclamped: the models for which `clamp` is False.
      resize: what is done to images first, by the model's name; None: nothing.
      settings: what else a score depends on, for the name of its file.
    """

    score: Callable[..., Scored]
    passes: int = PASSES
    count: int | None = None
    models: tuple[str, ...] | None = None
    unclamped: tuple[str, ...] = ()
    resize: Resize | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_methods(limits: Mapping[str, Limits] = NO_LIMITS, perceptual: Lpips | None = None) -> dict[str, Method]:
    """Every method by name: AEDR's presets, its other losses, and the rivals with each distance at hand.

    Args:
      limits: of dear rivals, by name; where there are none, the rival's own.
      perceptual: weights of LPIPS; without them the methods that need it are absent, and nothing stands in for it.
    """
    paper = SignalConfig.paper()
    methods = {
        PAPER: _ours(paper),
        "aedr-official": _ours(SignalConfig.official()),
        DEFAULT: _ours(SignalConfig()),
        "aedr-mae": _ours(dataclasses.replace(paper, loss=losses.mae)),
        "aedr-ssim": _ours(dataclasses.replace(paper, loss=_dissimilarity)),
    }
    distances: dict[str, Callable[[Rival], Distance]] = {"mse": lambda _: losses.mse, "ssim": lambda _: _dissimilarity}
    if perceptual is not None:
        loss = functools.partial(lpips, perceptual, layer=None)
        methods[f"aedr-{PERCEPTUAL}"] = _ours(dataclasses.replace(paper, loss=loss))
        distances[PERCEPTUAL] = lambda rival: functools.partial(lpips, perceptual, layer=rival.layer)
    for name, distance_of in distances.items():
        for rival in RIVALS.values():
            if rival.distance:
                options = {"distance": distance_of(rival)}
                methods[f"{rival.name}-{name}"] = _method(rival, limits.get(rival.name, rival.limits), options)
    for rival in RIVALS.values():
        if not rival.distance:
            method = _method(rival, limits.get(rival.name, rival.limits))
            methods[rival.name] = method
            for ending, resize in rival.resized.items():
                methods[f"{rival.name}-{ending}"] = dataclasses.replace(method, resize=resize)
    if perceptual is not None:
        weights = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(perceptual)))
        for name in [name for name in methods if name.endswith(f"-{PERCEPTUAL}")]:
            settings = {**methods[name].settings, "weights": weights.hexdigest()}
            methods[name] = dataclasses.replace(methods[name], settings=settings)
    return methods


def rival_of(method: str) -> Rival | None:
    """The rival that a method's name begins with; None: AEDR's own, or unknown here."""
    return RIVALS.get(method) or RIVALS.get(method.rpartition("-")[0])


def _ours(config: SignalConfig) -> Method:
    """The signal, or where settings have an alignment the standing: 0, as of a foreign image, where nothing can be said
    (an infinite error). NaN where the model is not finite."""

    def score(autoencoder: Any, images: Array, gray: Array, keys: Array, clamp: bool) -> Scored:
        key = keys if config.latents == "sample" else None
        found = measure(autoencoder, images, gray=gray, config=config, key=key)
        silent = jnp.isinf(found.alignment_error) & jnp.isfinite(found.first_loss)
        standing = jnp.where(silent, 0.0, found.standing)
        decides = found.signal if config.alignment is None else standing
        others = found.first_loss, found.second_loss, found.homogeneity, found.alignment, found.alignment_error
        return Scored(*map(jnp.asarray, (decides, *others)))

    passes = PASSES if config.alignment is None else PASSES + PASSES_OF_VIEWS
    return Method(score, passes, settings=config.describe())


def _method(rival: Rival, limits: Limits | None, options: Mapping[str, Any] = MappingProxyType({})) -> Method:
    limits = limits or Limits()
    settings = {} if limits.steps is None else {"steps": limits.steps}

    def score(autoencoder: Any, images: Array, gray: Array, keys: Array, clamp: bool) -> Scored:
        given = {"gray": gray, "key": keys, "clamp": clamp}
        chosen = {name: given[name] for name in rival.takes}
        return Scored(rival.score(autoencoder, images, **options, **settings, **chosen))

    passes = rival.passes * (limits.steps or 1)
    return Method(score, passes, limits.count, limits.models, rival.unclamped, settings=settings)


def _dissimilarity(a: Array, b: Array) -> Array:
    return 1.0 - losses.ssim(a, b)


def times_homogeneity(
    scores: Float[Array, " n"],
    images: Float[Array, "n h w 3"],
    *,
    gray: Integer[Array, "n hg wg"] | None = None,
    kind: str = "inverse_difference",
    gamma: float = 1.0,
) -> Float[Array, " n"]:
    """A rival's scores with AEDR's correction for texture: score · H^gamma.

    Args:
      scores: of any method, small where an image belongs.
      images: the images that were scored, float32 in [-1, 1].
      gray: their grey levels in their original size; None: computed from `images`, as if saved to PNG.
      kind: of the homogeneity (`texture.KINDS`).
      gamma: its power.
    """
    return scores * texture.homogeneity(texture.gray_levels(images) if gray is None else gray, kind=kind) ** gamma

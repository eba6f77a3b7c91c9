"""Every method of the comparison by its name: AEDR's presets and losses, and the rivals with each distance at hand."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from aedr_jax.rivals import aeroblade_score, did_score, latenttracer_score, rdd_score, ronan_score
from aedr_jax.signal import losses
from aedr_jax.signal.measurement import SignalConfig, measure
from aedr_jax.signal.perceptual import Lpips, lpips

__all__ = ["UNCLAMPED", "Limits", "Method", "Scored", "make_methods"]

UNCLAMPED = ("kandinsky2.1",)  # by LatentTracer's code


class Scored(NamedTuple):
    """What a method says of a batch; [n] each. A rival has only its score."""

    score: Array
    first_loss: Array | None = None
    second_loss: Array | None = None
    homogeneity: Array | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to score images; small means that the image belongs.

    Attributes:
      score: `(model name, autoencoder, images [n,h,w,3] in [-1, 1], gray [n,h,w], keys [n]) -> Scored`, jit-able.
      passes: about how many passes through a network an image costs; progress counts them.
      count: at most so many images of each source; None: all.
      models: for these alone; None: for all.
      official_size: whether images are brought to LatentTracer's sizes first.
      settings: what else a score depends on, for the name of its file.
    """

    score: Callable[..., Scored]
    passes: int = 4
    count: int | None = None
    models: tuple[str, ...] | None = None
    official_size: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far the dear methods go: images of each source, steps of descent, and for RONAN models (None: all)."""

    latenttracer_count: int | None = 20
    latenttracer_steps: int = 100
    ronan_count: int | None = 10
    ronan_steps: int = 300
    ronan_models: tuple[str, ...] | None = None


def make_methods(limits: Limits = Limits(), perceptual: Lpips | None = None) -> dict[str, Method]:
    """Every method by name: AEDR's presets, its other losses, and the rivals with each distance at hand.

    Args:
      limits: of LatentTracer and RONAN.
      perceptual: weights of LPIPS; without them the methods that need it are absent, and nothing stands in for it.
    """

    def dissimilarity(a: Array, b: Array) -> Array:
        return 1.0 - losses.ssim(a, b)

    def aedr(config: SignalConfig) -> Method:
        def score(_: str, autoencoder: Any, images: Array, gray: Array, keys: Array) -> Scored:
            key = keys if config.latents == "sample" else None
            found = measure(autoencoder, images, gray=gray, config=config, key=key)
            return Scored(*map(jnp.asarray, (found.signal, found.first_loss, found.second_loss, found.homogeneity)))

        return Method(score, settings=config.describe())

    def rival(function: Callable[..., Array], passes: int, **options: Any) -> Method:
        return Method(lambda _, ae, images, gray, keys: Scored(function(ae, images, **options)), passes)

    def latenttracer(official_size: bool) -> Method:
        steps = limits.latenttracer_steps

        def score(model: str, autoencoder: Any, images: Array, gray: Array, keys: Array) -> Scored:
            return Scored(latenttracer_score(autoencoder, images, steps=steps, clamp=model not in UNCLAMPED))

        settings = {"steps": steps}
        return Method(score, 3 * steps, limits.latenttracer_count, official_size=official_size, settings=settings)

    def ronan(_: str, autoencoder: Any, images: Array, gray: Array, keys: Array) -> Scored:
        return Scored(ronan_score(autoencoder, images, gray=gray, steps=limits.ronan_steps, key=keys))

    def second_layer(a: Array, b: Array) -> Array:
        assert perceptual is not None
        return lpips(perceptual, a, b, layer=2)

    def whole(a: Array, b: Array) -> Array:
        assert perceptual is not None
        return lpips(perceptual, a, b)

    distances: dict[str, tuple[Callable[[Array, Array], Array], ...]] = {
        "mse": (losses.mse, losses.mse),
        "ssim": (dissimilarity, dissimilarity),
    }
    paper = SignalConfig.paper()
    methods = {
        "aedr": aedr(paper),
        "aedr-official": aedr(SignalConfig.official()),
        "aedr-default": aedr(SignalConfig()),
        "aedr-mae": aedr(dataclasses.replace(paper, loss=losses.mae)),
        "aedr-ssim": aedr(dataclasses.replace(paper, loss=dissimilarity)),
    }
    if perceptual is not None:
        methods["aedr-lpips"] = aedr(dataclasses.replace(paper, loss=whole))
        distances["lpips"] = (second_layer, whole)
    for name, (of_aeroblade, of_rdd) in distances.items():
        methods[f"aeroblade-{name}"] = rival(aeroblade_score, 2, distance=of_aeroblade)
        methods[f"rdd-{name}"] = rival(rdd_score, 8, distance=of_rdd)
    methods["did-ae"] = rival(did_score, 4)
    methods["latenttracer"], methods["latenttracer-512"] = latenttracer(False), latenttracer(True)
    settings = {"steps": limits.ronan_steps}
    methods["ronan"] = Method(ronan, 3 * limits.ronan_steps, limits.ronan_count, limits.ronan_models, settings=settings)
    if perceptual is not None:
        weights = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(perceptual)))
        for name in [name for name in methods if name.endswith("-lpips")]:
            known = {**methods[name].settings, "weights": weights.hexdigest()}
            methods[name] = dataclasses.replace(methods[name], settings=known)
    return methods

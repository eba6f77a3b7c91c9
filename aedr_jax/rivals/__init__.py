"""The rivals: other signals of the same question, each one float score an image.

Small means that the image belongs to the autoencoder, so that `calibrate(scores, method="latenttracer")` and
`attribute` take any of them. Like everything else they are pure and un-jitted, and every image is scored by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Array, Float, Integer

from aedr_jax.rivals.aeroblade import aeroblade_score
from aedr_jax.rivals.did import did_score
from aedr_jax.rivals.latenttracer import latenttracer_losses, latenttracer_score, official_inputs
from aedr_jax.rivals.rdd import rdd_score
from aedr_jax.rivals.ronan import entropy_2d, grubbs_threshold, ronan_losses, ronan_score
from aedr_jax.signal import texture

__all__ = [
    "BASELINES",
    "aeroblade_score",
    "did_score",
    "entropy_2d",
    "grubbs_threshold",
    "latenttracer_losses",
    "latenttracer_score",
    "official_inputs",
    "rdd_score",
    "ronan_losses",
    "ronan_score",
    "times_homogeneity",
]

# Each is called (autoencoder, images, **options of its own) -> scores [n]; aeroblade and rdd need a `distance`.
BASELINES: Mapping[str, Callable[..., Float[Array, " n"]]] = MappingProxyType(
    {
        "aeroblade": aeroblade_score,
        "latenttracer": latenttracer_score,
        "ronan": ronan_score,
        "rdd": rdd_score,
        "did-ae": did_score,
    }
)


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

"""The rivals: other signals of the same question, each one float score an image.

Small means that the image belongs to the autoencoder, so that `calibrate(scores, method="latenttracer")` and
`attribute` take any of them. Like everything else they are pure and un-jitted, and every image is scored by itself.
`RIVALS` holds a record of each by its name, `RIVALS[name].score(autoencoder, images, **options)` its scores [n].
"""

from __future__ import annotations

from aedr_jax.rivals.aeroblade import aeroblade_score
from aedr_jax.rivals.did import did_score
from aedr_jax.rivals.latenttracer import latenttracer_losses, latenttracer_score, official_inputs
from aedr_jax.rivals.rdd import rdd_score
from aedr_jax.rivals.registry import RIVALS, times_homogeneity
from aedr_jax.rivals.rival import Limits, Rival
from aedr_jax.rivals.ronan import entropy_2d, grubbs_threshold, ronan_losses, ronan_score

__all__ = [
    "RIVALS",
    "Limits",
    "Rival",
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

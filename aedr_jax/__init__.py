"""Which generative model made this image? AEDR (AAAI 2026) in JAX, with Flax autoencoders.

Arrays are NHWC; images are float32 in [-1, 1] unless a name says otherwise; one score for each image; small means
that the image belongs to the model. Functions are pure and un-jitted. Importing this package starts no device and no
network: every name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "aedr_jax.images.arrays": ("prepare",),
    "aedr_jax.decision.attribution": ("Attribution", "attribute"),
    "aedr_jax.autoencoders.adapters": ("from_flax_diffusers", "from_functions"),
    "aedr_jax.autoencoders.checkpoints": ("weights_hash",),
    "aedr_jax.autoencoders.loading": ("load_autoencoder",),
    "aedr_jax.autoencoders.registry": ("list_models",),
    "aedr_jax.decision.calibration": ("Calibration", "calibrate"),
    "aedr_jax.scoring.dataset": ("score_dataset",),
    "aedr_jax.errors": (
        "AedrError",
        "ArgumentError",
        "AutoencoderError",
        "BaselineError",
        "CalibrationError",
        "CalibrationWarning",
        "GenerationError",
        "ImageError",
        "RangeWarning",
        "RunError",
        "SourceError",
    ),
    "aedr_jax.images.codec": ("read_gray", "read_image"),
    "aedr_jax.signal.losses": ("mae", "mse", "psnr", "ssim"),
    "aedr_jax.signal.perceptual": ("Lpips", "load_lpips", "lpips"),
    "aedr_jax.signal.reconstruction": ("DoubleReconstruction", "double_reconstruct"),
    "aedr_jax.scoring.sharding": ("make_sharded",),
    "aedr_jax.signal.measurement": ("Measurement", "SignalConfig", "measure"),
    "aedr_jax.decision.statistic": ("Statistic", "fit_statistic"),
    "aedr_jax.signal.texture": ("cooccurrence_matrix", "homogeneity"),
    "aedr_jax.decision.threshold": ("kde_cdf", "kde_quantile", "kde_threshold"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__", "api"])

if TYPE_CHECKING:
    from aedr_jax import api as api
    from aedr_jax.autoencoders.adapters import from_flax_diffusers as from_flax_diffusers
    from aedr_jax.autoencoders.adapters import from_functions as from_functions
    from aedr_jax.autoencoders.checkpoints import weights_hash as weights_hash
    from aedr_jax.autoencoders.loading import load_autoencoder as load_autoencoder
    from aedr_jax.autoencoders.registry import list_models as list_models
    from aedr_jax.decision.attribution import Attribution as Attribution
    from aedr_jax.decision.attribution import attribute as attribute
    from aedr_jax.decision.calibration import Calibration as Calibration
    from aedr_jax.decision.calibration import calibrate as calibrate
    from aedr_jax.decision.statistic import Statistic as Statistic
    from aedr_jax.decision.statistic import fit_statistic as fit_statistic
    from aedr_jax.decision.threshold import kde_cdf as kde_cdf
    from aedr_jax.decision.threshold import kde_quantile as kde_quantile
    from aedr_jax.decision.threshold import kde_threshold as kde_threshold
    from aedr_jax.errors import AedrError as AedrError
    from aedr_jax.errors import ArgumentError as ArgumentError
    from aedr_jax.errors import AutoencoderError as AutoencoderError
    from aedr_jax.errors import BaselineError as BaselineError
    from aedr_jax.errors import CalibrationError as CalibrationError
    from aedr_jax.errors import CalibrationWarning as CalibrationWarning
    from aedr_jax.errors import GenerationError as GenerationError
    from aedr_jax.errors import ImageError as ImageError
    from aedr_jax.errors import RangeWarning as RangeWarning
    from aedr_jax.errors import RunError as RunError
    from aedr_jax.errors import SourceError as SourceError
    from aedr_jax.images.arrays import prepare as prepare
    from aedr_jax.images.codec import read_gray as read_gray
    from aedr_jax.images.codec import read_image as read_image
    from aedr_jax.scoring.dataset import score_dataset as score_dataset
    from aedr_jax.scoring.sharding import make_sharded as make_sharded
    from aedr_jax.signal.losses import mae as mae
    from aedr_jax.signal.losses import mse as mse
    from aedr_jax.signal.losses import psnr as psnr
    from aedr_jax.signal.losses import ssim as ssim
    from aedr_jax.signal.measurement import Measurement as Measurement
    from aedr_jax.signal.measurement import SignalConfig as SignalConfig
    from aedr_jax.signal.measurement import measure as measure
    from aedr_jax.signal.perceptual import Lpips as Lpips
    from aedr_jax.signal.perceptual import load_lpips as load_lpips
    from aedr_jax.signal.perceptual import lpips as lpips
    from aedr_jax.signal.reconstruction import DoubleReconstruction as DoubleReconstruction
    from aedr_jax.signal.reconstruction import double_reconstruct as double_reconstruct
    from aedr_jax.signal.texture import cooccurrence_matrix as cooccurrence_matrix
    from aedr_jax.signal.texture import homogeneity as homogeneity


def __getattr__(name: str) -> Any:
    if name == "api":
        return importlib.import_module("aedr_jax.api")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

# Every public name and where it lies, once: `lazy_loader` reads this file when the package is imported, type checkers
# read it in place of `__init__.py`.

from . import api as api
from .autoencoders.adapters import from_flax_diffusers as from_flax_diffusers
from .autoencoders.adapters import from_functions as from_functions
from .autoencoders.checkpoints import weights_hash as weights_hash
from .autoencoders.loading import load_autoencoder as load_autoencoder
from .autoencoders.registry import list_models as list_models
from .decision.attribution import Attribution as Attribution
from .decision.attribution import attribute as attribute
from .decision.calibration import Calibration as Calibration
from .decision.calibration import calibrate as calibrate
from .decision.null import Null as Null
from .decision.threshold import kde_cdf as kde_cdf
from .decision.threshold import kde_quantile as kde_quantile
from .decision.threshold import kde_threshold as kde_threshold
from .errors import AedrError as AedrError
from .errors import ArgumentError as ArgumentError
from .errors import AutoencoderError as AutoencoderError
from .errors import BaselineError as BaselineError
from .errors import CalibrationError as CalibrationError
from .errors import CalibrationWarning as CalibrationWarning
from .errors import CheckpointWarning as CheckpointWarning
from .errors import FactorWarning as FactorWarning
from .errors import GenerationError as GenerationError
from .errors import ImageError as ImageError
from .errors import RangeWarning as RangeWarning
from .errors import RunError as RunError
from .errors import SourceError as SourceError
from .images.arrays import prepare as prepare
from .images.codec import read_gray as read_gray
from .images.codec import read_image as read_image
from .images.tiles import AlignmentConfig as AlignmentConfig
from .scoring.dataset import score_dataset as score_dataset
from .scoring.sharding import make_sharded as make_sharded
from .signal.alignment import alignment_map as alignment_map
from .signal.losses import mae as mae
from .signal.losses import mse as mse
from .signal.losses import psnr as psnr
from .signal.losses import ssim as ssim
from .signal.measurement import Measurement as Measurement
from .signal.measurement import SignalConfig as SignalConfig
from .signal.measurement import measure as measure
from .signal.perceptual import Lpips as Lpips
from .signal.perceptual import load_lpips as load_lpips
from .signal.perceptual import lpips as lpips
from .signal.protocol import Identity as Identity
from .signal.protocol import Protocol as Protocol
from .signal.reconstruction import DoubleReconstruction as DoubleReconstruction
from .signal.reconstruction import double_reconstruct as double_reconstruct
from .signal.texture import cooccurrence_matrix as cooccurrence_matrix
from .signal.texture import homogeneity as homogeneity

__version__: str

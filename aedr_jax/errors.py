"""The exceptions of the package. Each message names the file or field at fault and what to do about it."""

__all__ = [
    "AedrError",
    "ArgumentError",
    "AutoencoderError",
    "BaselineError",
    "CalibrationError",
    "CalibrationWarning",
    "CheckpointWarning",
    "GenerationError",
    "ImageError",
    "RangeWarning",
    "RunError",
    "SourceError",
]


class AedrError(ValueError):
    """Anything that this package refuses."""


class ArgumentError(AedrError):
    """An argument that cannot be right: the message says what was given, what is expected, and how to get there."""


class ImageError(AedrError):
    """An image file cannot be read as a photograph: the message names the file and the reason."""


class AutoencoderError(AedrError):
    """A config, a checkpoint or a download does not describe an autoencoder that this package can rebuild."""


class BaselineError(AedrError):
    """A rival method or a learned distance cannot run: its weights, a setting, or the extra that it needs."""


class CalibrationError(AedrError):
    """Signals cannot be calibrated, or a calibration does not fit what it is used on."""


class CalibrationWarning(UserWarning):
    """A calibration that was made, from fewer images than it takes to mean much."""


class CheckpointWarning(UserWarning):
    """Weights that were loaded, where others are preferred that cannot be reached."""


class GenerationError(AedrError):
    """A model cannot make images as asked: a setting, its pipeline, or the extra that runs it."""


class RangeWarning(UserWarning):
    """Images whose values look like another range than [-1, 1]."""


class RunError(AedrError):
    """A run that could not do all it was asked to; what it finished is kept, and the same call goes on from there."""


class SourceError(AedrError):
    """Inputs that name no image, or an output that cannot be written."""

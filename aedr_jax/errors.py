"""The exceptions of the package. Each message names the file or field at fault and what to do about it."""

__all__ = [
    "AedrError",
    "ArgumentError",
    "AutoencoderError",
    "BaselineError",
    "CalibrationError",
    "CalibrationWarning",
    "CheckpointWarning",
    "FactorWarning",
    "GenerationError",
    "ImageError",
    "RangeWarning",
    "RunError",
    "SourceError",
]


class AedrError(ValueError):
    """The base of every error that this package raises on purpose; a `ValueError`.

    >>> issubclass(aedr.ImageError, aedr.AedrError), issubclass(aedr.AedrError, ValueError)
    (True, True)
    """


class ArgumentError(AedrError):
    """An argument cannot be right. The message says what was given, what is expected, and how to get there.

    >>> aedr.prepare(np.zeros((4, 4, 3)))
    Traceback (most recent call last):
    aedr_jax.errors.ArgumentError: pixels: float64 [4,4,3]; expected uint8 [h,w,3] or [n,h,w,3]
    """


class ImageError(AedrError):
    """An image file cannot be read. The message names the file and the reason.

    >>> aedr.read_image("missing.png")
    Traceback (most recent call last):
    aedr_jax.errors.ImageError: missing.png: no such file
    """


class AutoencoderError(AedrError):
    """A config, a checkpoint or a download does not describe an autoencoder that this package can rebuild.

    >>> aedr.load_autoencoder("mini-vq", dtype="float8")
    Traceback (most recent call last):
    aedr_jax.errors.AutoencoderError: dtype 'float8': expected one of float32, bfloat16, float16
    """


class BaselineError(AedrError):
    """A rival method or a learned distance cannot run. Its weights, a setting, or an extra is missing or wrong.

    >>> aedr.load_lpips("vgg", backbone="vgg16.safetensors", linear="vgg.safetensors")
    Traceback (most recent call last):
    aedr_jax.errors.BaselineError: vgg16.safetensors: ...
    """


class CalibrationError(AedrError):
    """Scores cannot be calibrated, or a calibration does not fit what it is used on.

    >>> aedr.kde_threshold([1.0, 1.1])
    Traceback (most recent call last):
    aedr_jax.errors.CalibrationError: signals: 2 given; a density needs at least 5, and 20 to mean much
    """


class CalibrationWarning(UserWarning):
    """A calibration was made, but from few images, from images far from the rest, or with weights that have no hash.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     calibration = aedr.calibrate(np.linspace(1.0, 1.2, 10), method="mine")
    >>> [warning.category.__name__ for warning in told]
    ['CalibrationWarning']
    """


class CheckpointWarning(UserWarning):
    """Weights were loaded, but others are preferred and cannot be reached: half precision in place of float32, offline.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", aedr.CheckpointWarning)  # refuse the second choice
    ...     ae = aedr.load_autoencoder("mini-vq")
    """


class FactorWarning(UserWarning):
    """The latents of an autoencoder show another factor than it was given, by which its copies are moved.

    >>> import warnings
    >>> ae = aedr.from_functions(lambda params, x: x[:, ::4, ::4], lambda params, z: z.repeat(4, 1).repeat(4, 2))
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     latents = ae.encode(jnp.zeros((1, 64, 64, 3)))
    >>> str(told[0].message).split(":")[0]
    'encode gave latents [1, 16, 16, 3] of images of 64×64, which show a factor of 4, not of 8'
    """


class GenerationError(AedrError):
    """A model cannot make images as asked. A setting, its pipeline, or the extra that runs it is at fault.

    >>> from aedr_jax.generate.pipelines import choose_settings
    >>> choose_settings("mini-vq", size=100)
    Traceback (most recent call last):
    aedr_jax.errors.GenerationError: size 100: mini-vq makes images whose side is a multiple of 8
    """


class RangeWarning(UserWarning):
    """The values of images look like another range than [-1, 1].

    >>> import warnings
    >>> ae = aedr.from_functions(lambda params, x: x, lambda params, z: z, factor=1)
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     passes = aedr.double_reconstruct(ae, np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 4, 4, 3))
    >>> print(told[0].message)
    images: values from 0 to 1 look like [0, 1]; [-1, 1] is expected (2 * images - 1)
    """


class RunError(AedrError):
    """A run could not do all it was asked to. What it finished is kept, and the same call goes on from there.

    >>> import pathlib
    >>> size = pathlib.Path("shard.tar").write_bytes(b"no archive")
    >>> from aedr_jax.inputs.containers import open_source
    >>> list(open_source(["shard.tar"]))
    Traceback (most recent call last):
    aedr_jax.errors.RunError: could not be read to the end: shard.tar: no archive, ...
    """


class SourceError(AedrError):
    """Inputs name no image, a call asks for what cannot be done, or an output cannot be written.

    >>> aedr.score_dataset("nowhere", {"mini-vq": "mini-vq"}, "scores")
    Traceback (most recent call last):
    aedr_jax.errors.SourceError: nowhere: ...
    """

"""What is easily mistaken in a notebook: the error says what was given, and what is expected."""

from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import aedr_jax as aedr

api = aedr.api
IMAGES = np.zeros((1, 64, 64, 3), np.float32)
OWN = np.linspace(1.0, 1.2, 40)
SCORES = {"a": np.array([1.1])}


@pytest.fixture(autouse=True)
def as_a_user_has_it(tmp_path, monkeypatch):
    """Without the type checks of the test suite, which would refuse first; and with an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def encode(params, x):
    return x[:, ::8, ::8]


def decode(params, z):
    return z.repeat(8, axis=1).repeat(8, axis=2)


AE = aedr.from_functions(encode, decode)
CALIBRATION = aedr.calibrate(OWN, method="mine")
SIGNAL = aedr.SignalConfig.paper()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: aedr.read_image(None), aedr.ImageError, "path: NoneType; expected the name of one image file"),
        (lambda: aedr.read_image(["a.png"]), aedr.ImageError, "path: list; expected"),
        (lambda: aedr.read_gray(IMAGES), aedr.ImageError, "path: ndarray; expected"),
        (
            lambda: aedr.measure("mini-vq", IMAGES),
            aedr.ArgumentError,
            "autoencoder: 'mini-vq'; expected what load_auto",
        ),
        (lambda: aedr.measure(IMAGES, AE), aedr.ArgumentError, "autoencoder: ndarray; expected what load_auto"),
        (lambda: aedr.measure({"a": AE}, IMAGES), aedr.ArgumentError, "autoencoder: dict; expected what load_auto"),
        (lambda: aedr.double_reconstruct(None, IMAGES), aedr.ArgumentError, "autoencoder: NoneType"),
        (lambda: aedr.alignment_map("mini-vq", IMAGES), aedr.ArgumentError, "autoencoder: 'mini-vq'"),
        (lambda: aedr.double_reconstruct(AE, IMAGES, key=1), aedr.ArgumentError, r"key: 1; .* jax\.random\.key\(1\)"),
        (lambda: aedr.attribute({"a": ["x"]}), aedr.CalibrationError, "a: measured values of type <U1; expected"),
        (lambda: aedr.attribute(SCORES, {"a": "a.json"}), aedr.CalibrationError, "calibration: str; expected"),
        (lambda: aedr.attribute(SCORES, {"a": None}), aedr.CalibrationError, "calibration: NoneType; expected"),
        (lambda: aedr.attribute(SCORES, {"a": [0.5]}), aedr.CalibrationError, "calibration: float; expected"),
        (
            lambda: aedr.attribute(SCORES, false_names="0.05"),
            aedr.CalibrationError,
            "false names '0.05': expected a share",
        ),
        (lambda: aedr.calibrate(None), aedr.CalibrationError, "scores: expected a vector"),
        (lambda: aedr.calibrate("own"), aedr.CalibrationError, r"scores: str; expected numbers \[n\]"),
        (lambda: aedr.calibrate(SCORES), aedr.CalibrationError, r"scores: dict; expected numbers \[n\]"),
        (lambda: aedr.calibrate(OWN, validation="x"), aedr.CalibrationError, "validation: str; expected numbers"),
        (lambda: aedr.calibrate(OWN, alpha="0.05"), aedr.CalibrationError, "alpha '0.05': expected a share"),
        (lambda: aedr.calibrate(OWN, autoencoder="mini-vq"), aedr.ArgumentError, "autoencoder: 'mini-vq'"),
        (lambda: aedr.kde_threshold("x"), aedr.CalibrationError, "signals: str; expected numbers"),
        (lambda: aedr.load_autoencoder(None), aedr.AutoencoderError, "model: NoneType; expected a registry name"),
        (lambda: aedr.load_autoencoder(["mini-vq"]), aedr.AutoencoderError, "model: list; expected a registry name"),
        (
            lambda: aedr.from_functions(AE, decode),
            aedr.AutoencoderError,
            "encode: FunctionAutoencoder; expected a func",
        ),
        (lambda: aedr.from_functions(encode, None), aedr.AutoencoderError, "decode: NoneType; expected a function"),
        (
            lambda: aedr.from_functions(encode, decode, factor="8"),
            aedr.AutoencoderError,
            "factor '8': expected a whole",
        ),
        (lambda: aedr.from_functions(encode, decode, factor=0), aedr.AutoencoderError, "factor 0: expected a whole"),
        (lambda: aedr.SignalConfig(loss="lpips"), ValueError, "loss 'lpips': expected a function"),
        (lambda: aedr.SignalConfig(alignment=True), ValueError, "alignment True: expected an AlignmentConfig"),
        (
            lambda: aedr.score_dataset(None, {"a": AE}, "o"),
            aedr.SourceError,
            "inputs: NoneType; expected names of fold",
        ),
        (lambda: aedr.score_dataset(IMAGES, {"a": AE}, "o"), aedr.SourceError, "inputs: ndarray; .* for aedr.measure"),
        (lambda: aedr.score_dataset("a.png", {"a": None}, "o"), aedr.ArgumentError, "autoencoder: NoneType"),
        (lambda: aedr.score_dataset("a.png", {"a": AE}, "o", shard=1), aedr.SourceError, "shard 1: expected"),
        (
            lambda: aedr.score_dataset("a.png", {"a": AE}, "o", config="paper"),
            aedr.SourceError,
            "config 'paper': expec",
        ),
        (lambda: api.attribute([], models=["mini-vq"]), aedr.SourceError, "no input: an empty list"),
        (lambda: api.attribute("a.png", models=AE), aedr.AutoencoderError, "model: FunctionAutoencoder; .* by a name"),
        (
            lambda: api.attribute("a.png", models=[AE]),
            aedr.AutoencoderError,
            "model: FunctionAutoencoder; .* by a name",
        ),
        (
            lambda: api.attribute("a.png", calibrations=CALIBRATION),
            aedr.CalibrationError,
            "calibrations: Calibration; ex",
        ),
        (lambda: api.attribute("a.png", setup=SIGNAL), aedr.SourceError, "setup: SignalConfig; expected a Setup"),
        (lambda: api.score("a.png", "mini-vq", setup="paper"), aedr.SourceError, "setup: str; expected a Setup"),
        (lambda: api.score("a.png", None), aedr.AutoencoderError, "model: NoneType; expected"),
        (lambda: api.calibrate("a.png", AE), aedr.AutoencoderError, "model: FunctionAutoencoder; expected"),
        (lambda: api.calibrate("a.png", "mini-vq", setup=SIGNAL), aedr.SourceError, "setup: SignalConfig; expected"),
        (lambda: api.Setup("paper"), aedr.SourceError, "config 'paper': expected a SignalConfig"),
    ],
)
def test_it_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_name_stands_for_a_list_of_one():
    """A string was gone through letter by letter."""
    with pytest.raises(aedr.CalibrationError, match="calibration of mini-vq: does not say which sizes"):
        api.attribute("a.png", models="mini-vq", calibrations={"mini-vq": CALIBRATION})
    with pytest.raises(aedr.SourceError, match="no folder real in it"):
        api.evaluate(".", "out", "mini-vq", plots=False)
    assert api.open_source("a.png").count() == 1
    with pytest.raises(aedr.AutoencoderError, match="nowhere: no such folder"):
        api.score("a.png", Path("nowhere"))

"""Calibrations: what they hold, what they refuse, and that JSON gives back what was saved."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.stats
from conftest import tiny_autoencoder

import aedr_jax as aedr


@pytest.fixture
def signals(rng):
    return rng.lognormal(0, 0.1, 60)


def test_threshold_scores_and_p_values(signals):
    calibration = aedr.calibrate(signals, alpha=0.1)
    assert calibration.threshold == aedr.kde_threshold(signals, alpha=0.1)
    assert calibration.scores == tuple(sorted(signals))
    x = np.array([0.5, 1.0, calibration.threshold, 3.0, np.nan], np.float32)
    reference = scipy.stats.gaussian_kde(signals)
    expected = [reference.integrate_box_1d(v, np.inf) for v in x[:4]]
    found = jax.jit(calibration.p_value)(x)
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    np.testing.assert_allclose(found[2], 0.1, rtol=1e-4)
    assert np.isnan(found[4])


def test_p_values_far_out_do_not_vanish(signals):
    calibration = aedr.calibrate(signals)
    far = float(max(signals)) + 3 * signals.std()
    p = float(calibration.p_value(np.array([far], np.float32))[0])
    assert p == pytest.approx(scipy.stats.gaussian_kde(signals).integrate_box_1d(far, np.inf), rel=1e-3)
    assert 0 < p < 1e-12


def test_score_takes_measurements_and_plain_scores(signals):
    calibration = aedr.calibrate(signals)
    measured = aedr.Measurement.from_losses(signals, np.ones(60), np.ones(60))
    np.testing.assert_allclose(calibration.score(measured), signals, rtol=1e-6)
    np.testing.assert_allclose(calibration.score(signals.astype(np.float32)), signals, rtol=1e-6)
    assert aedr.calibrate(measured).threshold == pytest.approx(aedr.calibrate(signals).threshold, rel=1e-6)


def test_grid_rule(signals):
    assert aedr.calibrate(signals, rule="grid").threshold == aedr.kde_threshold(signals, method="grid")


def test_json_round_trip(signals, tmp_path):
    ae = tiny_autoencoder("vq")
    made = aedr.calibrate(signals, autoencoder=ae, model="m", source="folder/m", images_hash="ab", size_rule="crop8")
    made.save(tmp_path / "deep" / "m.json")
    loaded = aedr.Calibration.load(tmp_path / "deep" / "m.json")
    assert loaded == made
    assert made.provenance.weights_hash == aedr.weights_hash(ae)
    assert (made.provenance.dtype, made.provenance.precision, made.provenance.quantize) == ("float32", "highest", True)
    assert {"aedr-jax", "jax", "flax", "numpy"} <= set(made.provenance.versions)
    assert made.config == aedr.SignalConfig().describe()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.json"]


def test_functions_without_parameters_have_no_hash(signals):
    ae = aedr.from_functions(lambda p, x: x, lambda p, z: z)
    assert aedr.calibrate(signals, autoencoder=ae).provenance.weights_hash is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="other"), "not a calibration"),
        (lambda v: v.pop("threshold"), "threshold"),
        (lambda v: v.update(extra=1), "extra"),
        (lambda v: v.update(scores=v["scores"][:3]), "3 given"),
        (lambda v: v["scores"].__setitem__(0, float("nan")), "NaN"),
        (lambda v: v.update(threshold=float("inf")), "no finite number"),
        (lambda v: v.update(scores="many"), "wrong type"),
        (lambda v: v["provenance"].update(colour="red"), "colour"),
    ],
)
def test_damaged_files(signals, tmp_path, change, message):
    path = tmp_path / "m.json"
    aedr.calibrate(signals).save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(aedr.CalibrationError, match=message) as error:
        aedr.Calibration.load(path)
    assert str(path) in str(error.value)


def test_unreadable_files(tmp_path):
    for content in (b"{", b"\xff\xfe", b"[]"):
        (tmp_path / "m.json").write_bytes(content)
        with pytest.raises(aedr.CalibrationError, match=r"m\.json"):
            aedr.Calibration.load(tmp_path / "m.json")
    with pytest.raises(aedr.CalibrationError, match=r"none\.json"):
        aedr.Calibration.load(tmp_path / "none.json")


def test_use_on_other_weights_or_settings_is_refused(signals):
    ae = tiny_autoencoder("functions")
    calibration = aedr.calibrate(signals, autoencoder=ae)
    calibration.check_against(aedr.weights_hash(ae), aedr.SignalConfig())
    with pytest.raises(aedr.CalibrationError, match="weights"):
        calibration.check_against(aedr.weights_hash(tiny_autoencoder("functions", seed=1)), aedr.SignalConfig())
    with pytest.raises(aedr.CalibrationError, match=r"'clip': \(True, False\)"):
        calibration.check_against(None, aedr.SignalConfig.paper())
    rival = dataclasses.replace(calibration, method="ronan", config={})
    rival.check_against(None, aedr.SignalConfig.paper())

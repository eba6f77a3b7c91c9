"""A calibration of the signal speaks of images like its own: others are "not assessable" by sizes and values."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aedr_jax as aedr
from aedr_jax.decision.domain import REACH, STRETCH, Domain
from aedr_jax.scoring.rows import Row, of_numbers
from aedr_jax.scoring.verdicts import verdict_rows

PAPER = aedr.SignalConfig.paper()
IDENTITY = {"dtype": "float32", "precision": "highest", "quantize": None}


def identity(model):
    return {**IDENTITY, "weights_hash": {"m": "0", "small": "1", "large": "2"}[model] * 64}


def belonging(n=60, seed=0):
    """Losses near a fixed point, over a decade of second losses."""
    rng = np.random.default_rng(seed)
    second = np.exp(rng.uniform(-7, -5, n))
    return aedr.Measurement.from_losses(second * np.exp(rng.normal(0.2, 0.1, n)), second, rng.uniform(0.7, 0.9, n))


def calibrated(model="m", sides=128, measured=None):
    measured = belonging() if measured is None else measured
    sizes = np.full((len(measured.ratio), 2), sides)
    made = aedr.calibrate(measured, model=model, size_rule="crop8", sizes=sizes, config=PAPER)
    known = dataclasses.replace(made.protocol.identity, **identity(model))
    return dataclasses.replace(made, protocol=dataclasses.replace(made.protocol, identity=known))


def image(first, second, homogeneity, *, model="m", height=128, width=128, preset="paper", **changed):
    known = {**identity(model), "size_rule": "crop8", **changed}
    return Row(
        id="i",
        path="i.png",
        format="PNG",
        width=width,
        height=height,
        used_width=width,
        used_height=height,
        model=model,
        preset=preset,
        status="ok",
        measured=of_numbers(c[0] for c in aedr.Measurement.from_losses(*np.array([[first], [second], [homogeneity]]))),
        **known,
    )


OWN, FOREIGN = (0.003, 0.0025, 0.8), (0.08, 0.0025, 0.8)  # first loss, second loss, homogeneity


@pytest.mark.parametrize(
    ("values", "size", "verdict", "reason"),
    [
        (OWN, (128, 128), "m", ""),
        (FOREIGN, (128, 128), "none", ""),
        (OWN, (192, 96), "m", ""),  # within the slack
        (OWN, (193, 128), "not assessable", "128×193 pixels; calibrated on 128×128"),
        (OWN, (128, 80), "not assessable", "80×128 pixels; calibrated on 128×128"),
        (OWN, (1024, 1024), "not assessable", "1024×1024 pixels; calibrated on 128×128: crop it"),
        (FOREIGN, (1024, 1024), "not assessable", "1024×1024 pixels"),
        # As smooth as a gradient.
        ((1e-5, 1e-5, 0.8), (128, 128), "not assessable", "second loss 1e-05; calibrated on 0.000"),
        ((0.003, 0.0025, 0.99), (128, 128), "not assessable", "homogeneity 0.99; calibrated on 0.7"),
        # Outside too, but no model accepts it: it stays foreign.
        ((1e-2, 1e-5, 0.8), (128, 128), "none", ""),
        ((0.9, 0.2, 0.4), (128, 128), "none", ""),
    ],
)
def test_what_lies_outside_is_not_assessable_with_the_reason(values, size, verdict, reason):
    row = image(*values, height=size[0], width=size[1])
    (found,) = verdict_rows([row], {"m": calibrated()})
    assert found.verdict == verdict
    assert reason in found.reason
    assert bool(found.reason) == (verdict == "not assessable")


def test_models_of_several_sizes_are_judged_by_those_that_know_the_size():
    small, large = calibrated("small", 128), calibrated("large", 1024)
    both = {"small": small, "large": large}

    def verdict(of_small, of_large):
        at = {"height": 1024, "width": 1024}
        return verdict_rows([image(*of_small, model="small", **at), image(*of_large, model="large", **at)], both)[0]

    assert verdict(FOREIGN, OWN).verdict == "large"
    assert verdict(FOREIGN, FOREIGN).verdict == "none"
    alone = verdict(OWN, FOREIGN)
    assert alone.verdict == "not assessable"
    assert alone.reason.startswith("small: 1024×1024 pixels; calibrated on 128×128")
    # Nothing speaks against the other either.
    assert verdict(OWN, OWN).verdict == "ambiguous: large, small"


def test_a_past_that_knows_the_size_speaks():
    whole, halved = calibrated(sides=128), calibrated(sides=64)
    row = image(*OWN, height=64, width=64)
    assert verdict_rows([row], {"m": [whole]})[0].verdict == "not assessable"
    assert verdict_rows([row], {"m": [whole, halved]})[0].verdict == "m"


def test_python_callers_are_told_too():
    made = calibrated()
    smooth = aedr.Measurement.from_losses(np.array([0.003, 1e-5]), np.array([0.0025, 1e-5]), np.array([0.8, 0.8]))
    assert aedr.attribute({"m": smooth}, {"m": made}).verdicts == ("m", "not assessable")
    large = {"m": np.array([[1024, 1024], [128, 128]])}
    assert aedr.attribute({"m": smooth}, {"m": made}, sizes=large).verdicts == ("not assessable",) * 2
    with pytest.raises(aedr.CalibrationError, match="sizes of m': 3"):
        aedr.attribute({"m": smooth}, {"m": made}, sizes={"m": np.full((3, 2), 128)})
    rival = aedr.calibrate(np.linspace(1, 2, 50), method="aeroblade")
    assert rival.domain == Domain()
    assert aedr.attribute({"m": np.array([1.5, 9.0])}, {"m": rival}, sizes=large).verdicts == ("m", "none")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights_hash": "1" * 64}, "weights_hash: calibrated '0{12}', now '1{12}'"),
        ({"dtype": "float16"}, "dtype: calibrated 'float32', now 'float16'"),
        ({"precision": "default"}, "precision: calibrated 'highest', now 'default'"),
        ({"quantize": True}, "quantize: calibrated None, now True"),
        ({"size_rule": "crop64"}, "size_rule: calibrated 'crop8', now 'crop64'"),
        ({"preset": "default"}, "settings.clip: calibrated False, now True"),
        ({"preset": "custom"}, "settings.preset: calibrated None, now 'custom'"),
    ],
)
def test_rows_that_were_measured_in_another_way_are_refused(changed, message):
    with pytest.raises(aedr.CalibrationError, match=message):
        verdict_rows([image(*OWN), image(*OWN, **changed)], {"m": calibrated()})


def test_a_calibration_without_a_domain_judges_no_rows():
    silent = dataclasses.replace(calibrated(), domain=Domain(None, (1e-4, 1e-2), (0.5, 1.0)))
    with pytest.raises(aedr.CalibrationError, match="does not say which sizes and values its images had"):
        verdict_rows([image(*OWN)], {"m": silent})


def test_the_slack_is_what_it_says():
    domain = Domain((100, 200), (1e-4, 1e-2), (0.5, 1.0))
    sizes = np.array([[100 / STRETCH, 200 * STRETCH], [100 / STRETCH - 1, 150], [150, 200 * STRETCH + 1]]).round()
    np.testing.assert_array_equal(domain.holds_sizes(sizes.astype(int)), [True, False, False])
    low, high = np.log([1e-4, 1e-2])
    reach = REACH * (high - low)
    second = np.exp([low - 0.99 * reach, low - 1.01 * reach, high + 0.99 * reach, high + 1.01 * reach, np.nan])
    measured = aedr.Measurement.from_losses(second, second, np.full(5, 0.8))
    np.testing.assert_array_equal(domain.holds_values(measured), [True, False, True, False, False])
    assert domain.why((150, 150), 1e-3, 0.8) == ""
    assert domain.why((1024, 150), 1e-3, 0.8).startswith("150×1024 pixels; calibrated on sides of 100 to 200")
    assert Domain().why((1, 1), 0.0, 0.0) == ""


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.1, 1.0)), min_size=2, max_size=30), st.integers(64, 4096))
def test_a_calibration_always_knows_its_own_images(values, side):
    second, homogeneity = (np.array(column) for column in zip(*values, strict=True))
    measured = aedr.Measurement.from_losses(second, second, homogeneity)
    sizes = np.full((len(values), 2), side)
    domain = Domain.of(measured, sizes)
    assert domain.holds_values(measured).all()
    assert domain.holds_sizes(sizes).all()
    for i in range(len(values)):
        assert domain.why((side, side), float(measured.second_loss[i]), float(measured.homogeneity[i])) == ""

"""Verdicts over several models."""

import dataclasses

import numpy as np
import pytest

import aedr_jax as aedr
from aedr_jax.decision.attribution import CAVEAT, holm


@pytest.fixture
def calibrations(rng):
    return {name: aedr.calibrate(rng.normal(1.0, 0.1, 50), model=name) for name in ("a", "b", "c")}


def with_hash(calibration, weights, rounded=None):
    identity = dataclasses.replace(calibration.protocol.identity, weights_hash=weights, rounded_hash=rounded)
    protocol = dataclasses.replace(calibration.protocol, identity=identity)
    return dataclasses.replace(calibration, protocol=protocol)


IN, OUT = 1.0, 5.0


def test_verdicts(calibrations):
    scores = {
        "a": np.array([IN, OUT, IN, OUT, np.nan]),
        "b": np.array([OUT, OUT, OUT, OUT, IN]),
        "c": np.array([OUT, IN, IN, OUT, OUT]),
    }
    result = aedr.attribute(scores, calibrations)
    assert result.verdicts == ("a", "c", "ambiguous: a, c", "none", "not assessable")
    assert result.models == ("a", "b", "c")
    np.testing.assert_array_equal(result.scores[:, 1], scores["b"])
    assert result.accepted.tolist()[:4] == [[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert not result.accepted[4, 0]
    for j, name in enumerate(scores):
        expected = calibrations[name].p_value(scores[name].astype(np.float32))
        np.testing.assert_allclose(result.p_values[:, j], expected, rtol=1e-4, atol=1e-12)


def test_acceptance_is_p_above_alpha(calibrations, rng):
    scores = {name: rng.uniform(0.7, 1.5, 200) for name in calibrations}
    result = aedr.attribute(scores, calibrations)
    np.testing.assert_array_equal(result.accepted, result.p_values > 0.05)


def test_models_of_one_autoencoder_are_one_family(calibrations):
    shared = {"a": with_hash(calibrations["a"], "x"), "b": with_hash(calibrations["b"], "y")}
    shared["c"] = with_hash(calibrations["c"], "x")
    scores = {"a": np.array([IN, OUT, IN]), "b": np.array([OUT, OUT, IN]), "c": np.array([IN, IN, OUT])}
    assert aedr.attribute(scores, shared).verdicts == ("a|c", "a|c", "ambiguous: a|c, b")
    # A bfloat16 copy is of the family; that it joins what no hash joins directly makes them one.
    copies = {"a": with_hash(calibrations["a"], "x"), "b": with_hash(calibrations["b"], "y", "r")}
    copies["c"] = with_hash(calibrations["c"], "x", "r")
    assert aedr.attribute(scores, copies).verdicts == ("a|b|c",) * 3
    # Unknown hashes are no evidence of a shared autoencoder.
    unknown = {name: with_hash(calibration, None) for name, calibration in calibrations.items()}
    assert aedr.attribute(scores, unknown).verdicts[0] == "ambiguous: a, c"


def test_families_by_name_by_hash_or_by_equal_measurements(calibrations):
    a, b = (aedr.Measurement.from_losses(np.array([t, 5.0]), np.ones(2), np.ones(2)) for t in (1.0, 1.01))
    measured = {"a": a, "b": b, "c": a}
    unknown = {name: with_hash(calibration, None) for name, calibration in calibrations.items()}

    def verdict(calibrations=unknown, measured=measured, **options):
        return aedr.attribute(measured, calibrations, **options).verdicts[0]

    assert verdict() == "ambiguous: a|c, b"
    assert verdict(families={"a": "x", "b": "x", "c": "y", "d": "y"}) == "ambiguous: a|b, c"
    assert verdict(families={"a": "1", "b": "1", "c": "1"}) == "a|b|c"
    apart = {name: with_hash(calibration, name) for name, calibration in calibrations.items()}
    assert verdict(apart) == "ambiguous: a, b, c"  # known hashes that differ
    # What is known of one joins it to whatever either side is equal to.
    chain = {"a": with_hash(calibrations["a"], "x"), "b": with_hash(calibrations["b"], "x"), "c": unknown["c"]}
    assert verdict(chain) == "a|b|c"
    nothing = aedr.Measurement.from_losses(np.ones(2), np.zeros(2), np.ones(2))
    result = aedr.attribute({"a": nothing, "c": nothing}, unknown)
    assert result.verdicts == ("not assessable",) * 2
    # A rival's scores can be equal by chance.
    assert verdict(measured={"a": np.ones(1), "c": np.ones(1)}) == "ambiguous: a, c"
    with pytest.raises(aedr.CalibrationError, match="families: nothing for b, c"):
        verdict(families={"a": "x"})


def test_over_several_pasts_p_values_are_the_largest_and_ratios_the_smallest(rng):
    pasts = [
        aedr.calibrate(rng.normal(at, 1, 60), validation=rng.normal(at + 3, 1, 60), alpha=alpha, model="a")
        for at, alpha in ((0, 0.05), (2, 0.2), (1, 0.05))
    ]
    x = np.array([-1.0, 0.0, 2.0, 2.9, 4.0, 9.0])
    result = aedr.attribute({"a": x}, {"a": pasts})
    each = [aedr.attribute({"a": x}, {"a": past}) for past in pasts]
    for column, combined in (("p_values", np.max), ("foreign_p_values", np.max), ("likelihood_ratios", np.min)):
        expected = combined([getattr(one, column) for one in each], axis=0)
        np.testing.assert_array_equal(getattr(result, column), expected)
    np.testing.assert_array_equal(result.accepted, np.any([one.accepted for one in each], axis=0))
    silent = dataclasses.replace(pasts[1], validation=None)
    mixed = aedr.attribute({"a": x}, {"a": [pasts[0], silent]})
    assert np.isnan(mixed.foreign_p_values).all()
    assert np.isnan(mixed.likelihood_ratios).all()
    with pytest.raises(aedr.CalibrationError, match="calibration of a"):
        aedr.attribute({"a": x}, {"a": [pasts[0], silent]}, false_names=0.05)


def test_a_bound_that_is_met_exactly_is_met(rng):
    """Three families of 59 validation images: 3 · 1/60 is .05, and in float32 a little more or less."""
    own, others = rng.normal(0, 1, 60), rng.normal(30, 1, 59)
    calibrations = {name: aedr.calibrate(own, alpha=0.05, validation=others) for name in "abc"}
    scores = {"a": np.zeros(1), "b": np.full(1, 40.0), "c": np.full(1, 40.0)}
    assert aedr.attribute(scores, calibrations, false_names=0.05).verdicts == ("a",)
    assert aedr.attribute(scores, calibrations, false_names=0.0499).verdicts == ("none",)


def test_assessable_is_given_by_the_caller(calibrations):
    scores = {"a": np.array([IN, IN])}
    result = aedr.attribute(scores, calibrations, assessable=np.array([True, False]))
    assert result.verdicts == ("a", "not assessable")


def test_measurements_and_rival_scores_mix(calibrations):
    measured = aedr.Measurement.from_losses(np.array([1.0, 5.0]), np.ones(2), np.ones(2))
    assert aedr.attribute({"a": measured, "b": np.array([OUT, OUT])}, calibrations).verdicts == ("a", "none")


def test_several_pasts_are_judged_by_the_kindest(rng):
    plain, jpeg = (aedr.calibrate(rng.normal(center, 0.1, 60), model="a") for center in (1.0, 2.0))
    x = {"a": np.array([1.0, 2.0, 3.0, np.nan])}
    both = aedr.attribute(x, {"a": [plain, jpeg]})
    one, other = (aedr.attribute(x, {"a": c}) for c in (plain, jpeg))
    assert both.verdicts == ("a", "a", "none", "not assessable")
    assert one.verdicts[:2] == ("a", "none")
    np.testing.assert_array_equal(both.p_values[:3], np.maximum(one.p_values, other.p_values)[:3])
    np.testing.assert_array_equal(both.accepted, one.accepted | other.accepted)


def test_a_bound_on_false_names(rng):
    own, others = rng.normal(0, 1, 200), rng.normal(3, 1, 200)
    calibrations = {name: aedr.calibrate(own, validation=others, model=name) for name in "abcd"}
    images = {name: rng.normal(3, 1, 4000) for name in calibrations}  # of no candidate
    free = aedr.attribute(images, calibrations)
    bound = aedr.attribute(images, calibrations, false_names=0.05)
    named = [sum(v != "none" for v in result.verdicts) / 4000 for result in (free, bound)]
    assert named[0] > 0.15  # four candidates, each with its own chance
    assert named[1] < 0.065
    assert not (bound.accepted & ~free.accepted).any()
    np.testing.assert_array_equal(free.p_values, bound.p_values)
    silent = {**calibrations, "d": aedr.calibrate(own, model="d")}
    with pytest.raises(aedr.CalibrationError, match="calibration of d"):
        aedr.attribute(images, silent, false_names=0.05)


def test_holm_by_its_definition(rng):
    p_values = rng.uniform(0, 0.5, (50, 4))
    for row, found in zip(p_values, holm(p_values), strict=True):
        for level in rng.uniform(0, 1, 40):
            rejected = np.zeros(4, bool)
            for rank, j in enumerate(np.argsort(row)):
                if row[j] * (4 - rank) > level:
                    break
                rejected[j] = True
            np.testing.assert_array_equal(found <= level, rejected)


def test_refusals(calibrations):
    with pytest.raises(aedr.CalibrationError, match="no model"):
        aedr.attribute({}, calibrations)
    with pytest.raises(aedr.CalibrationError, match="no calibration for d"):
        aedr.attribute({"a": np.ones(2), "d": np.ones(2)}, calibrations)
    with pytest.raises(aedr.CalibrationError, match="different numbers"):
        aedr.attribute({"a": np.ones(2), "b": np.ones(3)}, calibrations)
    with pytest.raises(aedr.CalibrationError, match="no calibration for a"):
        aedr.attribute({"a": np.ones(2)}, {"a": []})
    for share in (0.0, 1.0, 5.0, float("nan")):
        with pytest.raises(aedr.CalibrationError, match="expected a share"):
            aedr.attribute({"a": np.ones(2)}, calibrations, false_names=share)


def test_the_caveat_says_what_none_is_not():
    assert "does not mean a real photograph" in CAVEAT


def test_calibrations_of_several_presets_are_refused(rng):
    presets = {"a": aedr.SignalConfig(), "b": aedr.SignalConfig.paper()}
    made = {name: aedr.calibrate(rng.normal(1.0, 0.1, 50), config=config) for name, config in presets.items()}
    scores = {"a": np.array([IN]), "b": np.array([OUT])}
    with pytest.raises(aedr.CalibrationError, match=r"different settings \(a, b\): {'clip': \(True, False\), 'fitted'"):
        aedr.attribute(scores, made)
    with pytest.raises(aedr.CalibrationError, match=r"different settings \(a, a\)"):
        aedr.attribute({"a": np.array([IN])}, {"a": list(made.values())})
    rival = aedr.calibrate(rng.normal(1.0, 0.1, 50), method="latenttracer")  # has none of these settings
    assert aedr.attribute(scores, {**made, "a": rival}).verdicts == ("a",)


def test_lists_are_told_what_to_pass(calibrations):
    attribute = aedr.attribute.__wrapped__  # as a user has it, without the suite's type checks
    with pytest.raises(aedr.CalibrationError, match=r"measured: a list; expected a mapping, {model: measurement}"):
        attribute([np.ones(3)], calibrations)
    with pytest.raises(aedr.CalibrationError, match=r"calibrations: a Calibration; expected a mapping, {model: cal"):
        attribute({"a": np.ones(3)}, calibrations["a"])


def test_a_score_at_the_threshold_is_not_accepted(rng):
    calibration = aedr.calibrate(rng.normal(1.0, 0.1, 50), model="a", rule="empirical")
    tau = calibration.threshold
    result = aedr.attribute({"a": np.array([tau, np.nextafter(np.float32(tau), np.float32(0))])}, {"a": calibration})
    assert result.accepted[:, 0].tolist() == [False, True]


def test_what_is_no_evidence_of_one_autoencoder(rng):
    """A rival's scores beside a measurement, and measurements that are equal because nothing is defined."""
    own = aedr.Measurement.from_losses(rng.uniform(1, 2, 20), np.ones(20), rng.uniform(0.4, 0.6, 20))
    fitted = aedr.calibrate(own, model="m", config=aedr.SignalConfig.paper())
    measured = own.take(slice(0, 2))
    scores = np.asarray(measured.signal)
    rival = aedr.calibrate(rng.normal(1.0, 0.1, 50), model="a", method="rival")
    mixed = aedr.attribute({"m": measured, "a": scores}, {"m": fitted, "a": rival})
    assert not any("|" in verdict for verdict in mixed.verdicts)
    undefined = measured._replace(ratio=np.full(2, np.nan), signal=np.full(2, np.nan))
    partly = measured._replace(ratio=np.array([1.0, np.nan]), signal=np.array([0.5, np.nan]))
    pair = {"m": fitted, "n": fitted}
    assert set(aedr.attribute({"m": undefined, "n": undefined}, pair).verdicts) == {"not assessable"}
    assert aedr.attribute({"m": partly, "n": partly}, pair).verdicts == ("m|n", "not assessable")

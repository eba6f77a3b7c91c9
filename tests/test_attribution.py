"""Verdicts over several models."""

import dataclasses

import numpy as np
import pytest

import aedr_jax as aedr
from aedr_jax.decision.attribution import CAVEAT, NOT_ASSESSABLE, holm
from aedr_jax.decision.null import Null

PAPER = aedr.SignalConfig.paper()


@pytest.fixture
def calibrations(rng):
    return {name: aedr.calibrate(rng.normal(1.0, 0.1, 50), model=name, config=PAPER) for name in ("a", "b", "c")}


def with_hash(calibration, weights, rounded=None, dtype="float32"):
    known = {"weights_hash": weights, "rounded_hash": rounded, "dtype": dtype}
    identity = dataclasses.replace(calibration.protocol.identity, **known)
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
    # Functions compute in no dtype, and equal params do not say that they are equal.
    functions = {name: with_hash(calibration, "x", dtype=None) for name, calibration in calibrations.items()}
    assert verdict(functions) == "ambiguous: a|c, b"
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
    with pytest.raises(aedr.CalibrationError, match="sizes: nothing for b, c"):
        verdict(sizes={"a": np.array([[64, 64]])})


def test_over_several_pasts_p_values_are_the_largest_and_ratios_the_smallest(rng):
    pasts = [
        aedr.calibrate(rng.normal(at, 1, 60), validation=rng.normal(at + 3, 1, 60), alpha=alpha, config=PAPER)
        for at, alpha in ((0, 0.05), (2, 0.2), (1, 0.05))
    ]
    x = np.array([-1.0, 0.0, 2.0, 2.9, 4.0, 9.0])
    result = aedr.attribute({"a": x}, {"a": pasts})
    each = [aedr.attribute({"a": x}, {"a": past}) for past in pasts]
    for column, combined in (("p_values", np.max), ("foreign_p_values", np.max), ("likelihood_ratios", np.min)):
        expected = combined([getattr(one, column) for one in each], axis=0)
        np.testing.assert_array_equal(getattr(result, column), expected)
    own = np.any([x < past.threshold for past in pasts], axis=0)
    np.testing.assert_array_equal(result.accepted[:, 0], own & (result.foreign_p_values[:, 0] <= 0.05))
    assert 0 < result.accepted.sum() < own.sum()
    silent = dataclasses.replace(pasts[1], validation=None)
    mixed = aedr.attribute({"a": x}, {"a": [pasts[0], silent]})
    assert np.isnan(mixed.foreign_p_values).all()
    assert np.isnan(mixed.likelihood_ratios).all()
    np.testing.assert_array_equal(mixed.accepted[:, 0], (x < pasts[0].threshold) | (x < silent.threshold))


def test_a_bound_that_is_met_exactly_is_met(rng):
    """Three families of 59 validation images: 3 · 1/60 is .05, and in float32 a little more or less."""
    own, others = rng.normal(0, 1, 60), rng.normal(30, 1, 59)
    calibrations = {name: aedr.calibrate(own, alpha=0.05, validation=others, config=PAPER) for name in "abc"}
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
    plain, jpeg = (aedr.calibrate(rng.normal(center, 0.1, 60), model="a", config=PAPER) for center in (1.0, 2.0))
    x = {"a": np.array([1.0, 2.0, 3.0, np.nan])}
    both = aedr.attribute(x, {"a": [plain, jpeg]})
    one, other = (aedr.attribute(x, {"a": c}) for c in (plain, jpeg))
    assert both.verdicts == ("a", "a", "none", "not assessable")
    assert one.verdicts[:2] == ("a", "none")
    np.testing.assert_array_equal(both.p_values[:3], np.maximum(one.p_values, other.p_values)[:3])
    np.testing.assert_array_equal(both.accepted, one.accepted | other.accepted)


def test_a_measurement_that_shows_other_settings_is_refused(rng):
    """Of all settings the power of the homogeneity and the authors' rounding show in the columns."""
    second, homogeneity = rng.uniform(1e-3, 2e-3, 40), rng.uniform(0.4, 0.6, 40)
    first = second * rng.normal(1.1, 0.02, 40)
    official = aedr.SignalConfig.official()
    free = aedr.Measurement.from_losses(first, second, homogeneity)
    rounded = aedr.Measurement.from_losses(first.round(8), second.round(8), homogeneity.round(6))
    powered = aedr.Measurement.from_losses(first, second, homogeneity, gamma=0.5)
    made = {config.name: aedr.calibrate(m, config=config) for m, config in ((free, PAPER), (rounded, official))}
    undefined = aedr.Measurement.from_losses(first * np.r_[np.nan, np.ones(39)], second, homogeneity)
    for measured, preset in ((free, "paper"), (rounded, "paper"), (rounded, "official"), (undefined, "paper")):
        assert len(aedr.attribute({"a": measured}, {"a": made[preset]}).verdicts) == 40
    for measured, preset, message in (
        (free, "official", "first_loss is not rounded to 8 decimals"),
        (powered, "paper", r"signal is not ratio · homogeneity\^1"),
    ):
        with pytest.raises(
            aedr.CalibrationError, match=f"a: not measured with its calibration's settings: its {message}"
        ):
            aedr.attribute({"a": measured}, {"a": made[preset]})
        with pytest.raises(aedr.CalibrationError, match=f"measured: not by this config: its {message}"):
            aedr.calibrate(measured, config=aedr.SignalConfig.preset(preset))
    with pytest.raises(aedr.CalibrationError, match="validation: not by this config"):
        aedr.calibrate(free, validation=powered, config=PAPER)
    aedr.calibrate(powered, config=dataclasses.replace(PAPER, gamma=0.5))
    with pytest.raises(aedr.CalibrationError, match="measured: not by this config: it has no alignment"):
        aedr.calibrate(free)


def test_a_bound_on_false_names(rng):
    own, others = rng.normal(0, 1, 200), rng.normal(3, 1, 200)
    calibrations = {
        name: aedr.calibrate(own, alpha=0.05, validation=others, model=name, config=PAPER) for name in "abcd"
    }
    silent = {name: dataclasses.replace(made, validation=None) for name, made in calibrations.items()}
    images = {name: rng.normal(3, 1, 4000) for name in calibrations}  # of no candidate
    free = aedr.attribute(images, silent)
    bound = aedr.attribute(images, calibrations)
    named = [sum(v != "none" for v in result.verdicts) / 4000 for result in (free, bound)]
    assert named[0] > 0.15  # four candidates, each with its own chance
    assert named[1] < 0.065
    assert not (bound.accepted & ~free.accepted).any()
    np.testing.assert_array_equal(free.p_values, bound.p_values)
    # Nothing is known of d's foreign images: it is left out of the adjustment, and to its own threshold.
    mixed = aedr.attribute(images, {**calibrations, "d": silent["d"]})
    three = aedr.attribute({name: images[name] for name in "abc"}, calibrations)
    np.testing.assert_array_equal(mixed.accepted[:, :3], three.accepted)
    np.testing.assert_array_equal(mixed.accepted[:, 3], free.accepted[:, 3])
    assert (mixed.accepted[:, :3] & ~bound.accepted[:, :3]).any()


def test_holm_by_its_definition(rng):
    p_values = rng.uniform(0, 0.5, (50, 4))
    assert holm(p_values).max() == 1.0
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
    aligned = {"d": aedr.Measurement.of_alignment(-np.ones(2), np.full(2, 0.1))}
    with pytest.raises(aedr.CalibrationError, match="for b, which were not measured, and none for d, which were"):
        aedr.attribute(aligned, {"b": calibrations["b"]})
    with pytest.raises(aedr.CalibrationError, match="for b, c, which were not measured, and none for d, which were"):
        aedr.attribute({"a": np.ones(2), **aligned}, calibrations)
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
    with pytest.raises(aedr.CalibrationError, match=r"different settings \(a, b\): {'clip': \(True, False\), 'alig"):
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
    calibration = aedr.calibrate(rng.normal(1.0, 0.1, 50), model="a", rule="empirical", config=PAPER)
    tau = calibration.threshold
    result = aedr.attribute({"a": np.array([tau, np.nextafter(np.float32(tau), np.float32(0))])}, {"a": calibration})
    assert result.accepted[:, 0].tolist() == [False, True]


def test_what_is_no_evidence_of_one_autoencoder(rng):
    """A rival's scores beside a measurement, and measurements that are equal because nothing is defined."""
    own = aedr.Measurement.from_losses(rng.uniform(1, 2, 20), np.ones(20), rng.uniform(0.4, 0.6, 20))
    made = aedr.calibrate(own, model="m", config=PAPER)
    measured = own.take(slice(0, 2))
    scores = np.asarray(measured.signal)
    rival = aedr.calibrate(rng.normal(1.0, 0.1, 50), model="a", method="rival")
    mixed = aedr.attribute({"m": measured, "a": scores}, {"m": made, "a": rival})
    assert not any("|" in verdict for verdict in mixed.verdicts)
    undefined = measured._replace(ratio=np.full(2, np.nan), signal=np.full(2, np.nan))
    values = {"ratio": [1.0, np.nan], "homogeneity": [0.5, 0.5], "signal": [0.5, np.nan]}
    partly = measured._replace(**{name: np.array(column) for name, column in values.items()})
    pair = {"m": made, "n": made}
    assert set(aedr.attribute({"m": undefined, "n": undefined}, pair).verdicts) == {"not assessable"}
    assert aedr.attribute({"m": partly, "n": partly}, pair).verdicts == ("m|n", "not assessable")


# With nothing calibrated

NULL = Null({"x": tuple(np.linspace(-2.5, 2.5, 99))})
FIFTH = NULL.groups["x"][4]  # p-values are .05 from here on, and .06 from the next on


def aligned(alignments, error=0.1, seed=0):
    """A measurement of these alignments; losses differ from seed to seed, or models would be one family."""
    alignments = np.asarray(alignments, float)
    errors = np.broadcast_to(np.asarray(error, float), alignments.shape)
    losses = np.random.default_rng(seed).uniform(1, 2, (2, len(alignments)))
    others = {"alignment": alignments, "alignment_error": np.where(np.isnan(alignments), np.inf, errors)}
    return aedr.Measurement.from_losses(*losses, np.full(len(alignments), 0.5), **others)


def own_of(level, n, seed=7, **options):
    """A calibration on so many own images around an alignment."""
    measured = aligned(level + np.random.default_rng(seed).normal(0, 0.02, n))
    if n >= 20:
        return aedr.calibrate(measured, **options)
    with pytest.warns(aedr.CalibrationWarning, match="belonging images: below 20"):
        return aedr.calibrate(measured, **options)


def test_a_verdict_needs_no_calibration():
    found = {"a": aligned([-1.2, 0.0, np.nan, 0.02]), "b": aligned([0.1, -0.7, -0.9, 0.01], seed=1)}
    result = aedr.attribute(found, null=NULL)
    assert result.verdicts == ("a", "b", "b", "none")  # "a" says nothing of the third
    assert result.accepted.tolist() == [[1, 0], [0, 1], [0, 1], [0, 0]]
    for j, measured in enumerate(found.values()):
        np.testing.assert_array_equal(result.scores[:, j], np.asarray(measured.alignment, np.float64))
        np.testing.assert_array_equal(result.foreign_p_values[:, j], NULL.p_value(measured.standing))
    assert np.isnan(result.p_values).all()
    assert np.isnan(result.likelihood_ratios).all()
    shipped = aedr.attribute(found)
    np.testing.assert_array_equal(shipped.foreign_p_values[:, 0], Null.shipped().p_value(found["a"].standing))
    assert aedr.attribute(found, {}, null=NULL).verdicts == result.verdicts
    spoken_for = aedr.attribute(found, null=NULL, assessable=np.array([False, True, True, True]))
    assert spoken_for.verdicts == (NOT_ASSESSABLE, "b", "b", "none")


def test_foreign_images_get_a_name_at_the_rate_that_is_asked_for(rng):
    """Four candidates; foreign standings are exchangeable with those of the reference, whatever their distribution."""
    named = []
    for _ in range(60):
        null = Null({"x": tuple(np.sort(rng.standard_t(4, 199)))})
        standings = rng.standard_t(4, (4, 100))
        found = {name: aligned(0.1 * standings[i], seed=i) for i, name in enumerate("abcd")}
        named.append([np.mean([v != "none" for v in aedr.attribute(found, null=null, false_names=rate).verdicts])
                      for rate in (0.05, 0.2)])  # fmt: skip
    strict, lenient = np.mean(named, axis=0)
    assert 0.03 < strict <= 0.05 + 3 * np.std(named, axis=0)[0] / 60**0.5
    assert 0.15 < lenient <= 0.2 + 3 * np.std(named, axis=0)[1] / 60**0.5


def test_p_values_are_adjusted_over_autoencoders_and_a_bound_met_exactly_is_met():
    a, far = aligned([FIFTH], 1.0), aligned([0.0], 1.0, seed=1)
    below = aligned([FIFTH - 1e-5], 1.0)
    np.testing.assert_allclose(NULL.p_value(np.concatenate([a.standing, below.standing])), [0.06, 0.05], rtol=1e-6)

    def verdict(false_names=0.05, **found):
        return aedr.attribute(found, null=NULL, false_names=false_names).verdicts[0]

    assert verdict(a=a) == "none"  # .06
    assert verdict(a=below) == "a"  # .05
    assert verdict(a=below, false_names=0.0499) == "none"
    assert verdict(a=below, b=far) == "none"  # one of two autoencoders: .1
    assert verdict(a=below, b=far, false_names=0.1) == "a"
    assert verdict(a=below, b=far, false_names=0.0999) == "none"
    assert verdict(a=below, b=below) == "a|b"  # one autoencoder under two names: equal to the last bit
    given = {"a": "x", "b": "x", "c": "y"}
    found = {"a": below, "b": below._replace(first_loss=np.ones(1)), "c": far}
    assert aedr.attribute(found, null=NULL, families=given).verdicts == ("none",)
    assert aedr.attribute(found, null=NULL, families=given, false_names=0.1).verdicts == ("a|b",)
    # The step-down: where the firmest is named, the next is held against one candidate less.
    assert verdict(a=aligned([-9.0]), b=below) == "a"
    accepted = aedr.attribute({"a": aligned([-9.0]), "b": below}, null=NULL).accepted
    assert accepted.tolist() == [[True, True]]


def test_members_of_a_family_share_the_larger_p_value():
    found = {"a": aligned([-9.0]), "b": aligned([0.0], seed=1)}
    assert aedr.attribute(found, null=NULL).accepted.tolist() == [[True, False]]
    shared = aedr.attribute(found, null=NULL, families={"a": "x", "b": "x"})
    assert shared.accepted.tolist() == [[False, False]]


def test_a_measurement_without_alignment_needs_a_calibration():
    paper = aedr.Measurement.from_losses(np.ones(2), np.ones(2), np.full(2, 0.5))
    found = {"a": aligned([-1.0, 0.0]), "b": paper, "c": np.ones(2)}
    with pytest.raises(aedr.CalibrationError, match="no calibration for b, c, and no alignment in what was measured"):
        aedr.attribute(found, null=NULL)
    with pytest.raises(aedr.CalibrationError, match="measured: not by this config: it has no alignment"):
        aedr.calibrate(aedr.Measurement.from_losses(np.arange(1.0, 31), np.ones(30), np.ones(30)))


def test_flat_images_were_asked_about_and_say_nothing():
    """Their error is infinite. NaN is for measurements that nobody asked, where the paper's signal has to decide."""
    flat = aligned([np.nan, np.nan])
    result = aedr.attribute({"a": flat}, null=NULL)
    assert result.verdicts == (NOT_ASSESSABLE,) * 2
    assert not result.accepted.any()
    assert np.isnan(result.foreign_p_values).all()
    # A candidate that says nothing is still a candidate: .05 becomes .1.
    found = {"a": aligned([np.nan, 0.0]), "b": aligned([FIFTH - 1e-5] * 2, 1.0, seed=1)}
    assert not aedr.attribute(found, null=NULL).accepted.any()
    assert aedr.attribute(found, null=NULL, false_names=0.1).accepted.tolist() == [[False, True]] * 2
    broken = aligned([-1.0, np.nan])._replace(alignment_error=np.array([0.1, np.nan]))  # one is not finite
    assert aedr.attribute({"a": broken}, null=NULL).verdicts == ("a", NOT_ASSESSABLE)
    unasked = flat._replace(alignment_error=np.full(2, np.nan))
    with pytest.raises(aedr.CalibrationError, match="no calibration for a"):
        aedr.attribute({"a": unasked}, null=NULL)


def test_of_several_the_firmest_is_named_unless_another_is_within_errors():
    alignments = {"a": [-1.0, -1.0, -1.0, -1.0], "b": [-0.75, -0.7499, -0.5, -0.75], "c": [-0.6, -0.6, -0.9, 0.0]}
    errors = {"a": 0.15, "b": 0.2, "c": 0.15}  # of a difference of a and b: .25
    found = {name: aligned(alignments[name], errors[name], seed) for seed, name in enumerate("abc")}
    result = aedr.attribute(found, null=NULL)
    assert result.accepted[:3].all()
    assert result.verdicts == ("ambiguous: a, b", "a", "ambiguous: a, c", "ambiguous: a, b")
    renamed = {"ab"[name == "a"] if name in "ab" else name: measured for name, measured in found.items()}
    assert aedr.attribute(renamed, null=NULL).verdicts == ("ambiguous: a, b", "b", "ambiguous: b, c", "ambiguous: a, b")
    # A rival's scores are on no common scale.
    rival = aedr.calibrate(np.linspace(1, 2, 40), method="mine")
    mixed = aedr.attribute({"a": found["a"], "r": np.full(4, 1.5)}, {"r": rival}, null=NULL)
    assert mixed.verdicts == ("ambiguous: a, r",) * 4


def test_a_calibration_on_few_images_turns_nothing_away():
    """The least that 18 images can tell is 1/19, above alpha .05; 19 can tell it."""
    found = {"a": aligned([-1.0, -0.5, np.nan, 0.0])}  # the second stands on the grid, but not as own images do
    for n, verdict in ((5, "a"), (18, "a"), (19, "none"), (40, "none")):
        result = aedr.attribute(found, {"a": own_of(-1.0, n)}, null=NULL)
        assert result.verdicts == ("a", verdict, NOT_ASSESSABLE, "none")
        assert result.p_values[1, 0] == pytest.approx(1 / (n + 1))
        assert not result.accepted[2:].any()
        np.testing.assert_array_equal(result.foreign_p_values[:, 0], NULL.p_value(found["a"].standing))


def test_calibrations_of_all_models_order_neighbours():
    """Alignments are compared in shares of what the model's own images have."""
    found = {"a": aligned([-1.5, -2.0], 0.05), "b": aligned([-1.0, -0.4], 0.05, seed=1)}
    a, b = own_of(-2.0, 10), own_of(-1.0, 10)
    assert aedr.attribute(found, null=NULL).verdicts == ("a", "a")
    assert aedr.attribute(found, {"a": a, "b": b}, null=NULL).verdicts == ("b", "a")
    assert aedr.attribute(found, {"a": a}, null=NULL).verdicts == ("a", "a")  # no share of b's is known
    compressed = own_of(-0.5, 10, processing="jpeg50")
    for pasts in ([a, compressed], [compressed, a]):
        assert aedr.attribute(found, {"a": pasts, "b": b}, null=NULL).verdicts == ("b", "a")
    # A model whose own images do not stand on its grid has no level.
    assert aedr.attribute(found, {"a": a, "b": own_of(0.3, 10)}, null=NULL).verdicts == ("a", "a")


def test_calibrated_models_beside_others():
    """One of two has a calibration: it turns away what is unlike its own images, the other knows the null alone."""
    found = {"a": aligned([-1.0, -0.5, -0.5]), "b": aligned([0.0, 0.0, -0.4], seed=1)}
    result = aedr.attribute(found, {"a": own_of(-1.0, 60)}, null=NULL)
    assert result.verdicts == ("a", "none", "b")
    assert np.isnan(result.p_values).tolist() == [[False, True]] * 3
    assert aedr.attribute(found, null=NULL).verdicts == ("a", "a", "ambiguous: a, b")


def alignments(values, error=0.1):
    values = np.asarray(values, np.float64)
    return aedr.Measurement.of_alignment(values, np.where(np.isnan(values), np.inf, error))


def test_a_candidate_that_says_nothing_takes_no_name_away():
    """One too large for the image, say; but where nobody accepts, "none" would say more than was looked at."""
    result = aedr.attribute(
        {
            "a": alignments([-1.0, 0.0, np.nan]),
            "large": alignments(
                [
                    np.nan,
                    np.nan,
                    np.nan,
                ][:3]
            ),
        }
    )
    assert result.verdicts == ("a", "not assessable", "not assessable")
    assert result.accepted.tolist() == [[True, False], [False, False], [False, False]]


def test_more_candidates_than_the_reference_can_tell():
    null = aedr.Null({"photographs": tuple(np.linspace(-2.5, 2.5, 99))})
    names = {f"m{i}": alignments([-1.0 - 0.01 * i]) for i in range(6)}
    five = dict(list(names.items())[:5])
    assert aedr.attribute(five, null=null).verdicts[0] != "none"
    with pytest.warns(aedr.CalibrationWarning, match=r"6 families .* can tell 5 at a rate of false names of 0.05"):
        assert aedr.attribute(names, null=null).verdicts == ("none",)


@pytest.mark.parametrize("name", ["none", "Not assessable", "ambiguous: a", "a|b", "a, b", "", "a\n"])
def test_a_name_that_a_verdict_could_not_say_is_refused(name):
    measured = aedr.Measurement.of_alignment(np.array([-1.0]), np.array([0.1]))
    with pytest.raises(aedr.CalibrationError, match="model's name"):
        aedr.attribute({name: measured})

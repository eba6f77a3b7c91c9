"""Calibrations: what they hold, what they refuse, and that JSON gives back what was saved."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.stats
from conftest import tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.decision.calibration import FORMAT
from aedr_jax.decision.domain import Domain
from aedr_jax.decision.threshold import RULES
from aedr_jax.decision.validation import ALPHAS
from aedr_jax.signal.protocol import Identity, Protocol, told_apart


@pytest.fixture
def signals(rng):
    return rng.lognormal(0, 0.1, 60)


@pytest.fixture
def belonging(rng):
    """Images that stand on the grid."""
    return measurement(rng, 120)


@pytest.fixture
def others(rng):
    return measurement(rng, 90, at=-0.4)


def measurement(rng, n, at=-1.0):
    aligned = {"alignment": rng.normal(at, 0.15, n), "alignment_error": np.full(n, 0.1)}
    return aedr.Measurement.from_losses(*rng.uniform(1, 2, (2, n)), rng.uniform(0.4, 0.6, n), **aligned)


def test_threshold_scores_and_p_values(signals):
    calibration = aedr.calibrate(signals, alpha=0.1)
    assert calibration.threshold == aedr.kde_threshold(signals, alpha=0.1)
    assert calibration.scores == tuple(sorted(signals))
    x = np.array([0.5, 1.0, calibration.threshold, 3.0, np.nan], np.float32)
    reference = scipy.stats.gaussian_kde(signals)
    expected = [reference.integrate_box_1d(v, np.inf) for v in x[:4]]
    found = jax.jit(calibration.p_value)(x)
    np.testing.assert_allclose(found[:4], np.maximum(expected, 1 / 61), atol=1e-6)
    np.testing.assert_allclose(found[2], 0.1, rtol=1e-4)
    assert np.isnan(found[4])


def test_p_values_stop_at_what_the_images_can_tell(signals):
    """They used to go on to 1e-12 and 0.0; the median of 60 stays the density's."""
    for rule in RULES:
        calibration = aedr.calibrate(signals, rule=rule)
        p = np.asarray(calibration.p_value(np.array([max(signals) + 3 * signals.std(), 1e30, np.inf], np.float32)))
        np.testing.assert_allclose(p, 1 / 61, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_numpys_judgement_is_the_traced_one(signals, rng, rule):
    """Which images are accepted is equal; shares of a density, and their ratio, to a few units of float32."""
    calibration = aedr.calibrate(signals, validation=signals + rng.normal(0.3, 0.1, 60), alpha=0.1, rule=rule)
    edge = np.float32(calibration.threshold)
    edges = [np.nextafter(edge, np.float32(-9)), edge, np.nextafter(edge, np.float32(9))]
    x = np.r_[np.linspace(0.5, 2.0, 40), edges, -np.inf, np.inf, np.nan].astype(np.float32)

    def judge(scores):
        return calibration.p_value(scores), calibration.foreign_p_value(scores), calibration.likelihood_ratio(scores)

    found, traced = judge(x), jax.jit(judge)(x)
    for values, same in zip(found, traced, strict=True):
        assert isinstance(values, np.ndarray)
        assert values.dtype == same.dtype == np.float32
        np.testing.assert_allclose(values, same, rtol=1e-6)
    np.testing.assert_array_equal(found[0] > calibration.alpha, np.asarray(traced[0]) > calibration.alpha)
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(x))


def test_the_score_is_the_alignment_or_in_the_papers_settings_the_signal(signals, rng):
    alignments = rng.normal(-1, 0.1, 60)
    others = {"alignment": alignments, "alignment_error": np.full(60, 0.1)}
    measured = aedr.Measurement.from_losses(signals, np.ones(60), np.ones(60), **others)
    sizes = np.full((60, 2), 128)
    default = aedr.calibrate(measured, sizes=sizes)
    paper = aedr.calibrate(measured, config=aedr.SignalConfig.paper(), sizes=sizes)
    assert (default.aligned, paper.aligned, aedr.calibrate(signals, method="mine").aligned) == (True, False, False)
    assert (default.domain, paper.domain.sides) == (Domain(), (128, 128))  # an image is compared with itself
    for calibration, scores in ((default, alignments), (paper, signals)):
        np.testing.assert_allclose(calibration.score(measured), scores, rtol=1e-6)
        np.testing.assert_allclose(calibration.score(scores.astype(np.float32)), scores, rtol=1e-6)
        # NumPy's of NumPy's: JAX would compile a program for each number of images.
        assert isinstance(calibration.score(scores.astype(np.float32)), np.ndarray)
        assert isinstance(jax.jit(calibration.score)(scores.astype(np.float32)), jax.Array)
        assert calibration.threshold == pytest.approx(aedr.kde_threshold(scores), rel=1e-6)


def test_images_that_nothing_can_be_said_of_are_left_out_and_the_others_keep_their_numbers(belonging, others):
    alignments, errors = np.array(belonging.alignment), np.array(belonging.alignment_error)
    alignments[[2, 7]], errors[[2, 7]], alignments[10] = np.nan, np.inf, 30.0
    spoiled = belonging._replace(alignment=alignments, alignment_error=errors)
    silent = others._replace(alignment=np.where(np.arange(90) == 0, np.nan, others.alignment))
    with (
        pytest.warns(aedr.CalibrationWarning, match=r"of images 2, 7 nothing can be said .* left out"),
        pytest.warns(aedr.CalibrationWarning, match=r"far from the rest of the 118 .*: image 10 \(score 30\)"),
    ):
        calibration = aedr.calibrate(spoiled, validation=silent, sizes=np.full((120, 2), 128))
    kept = np.delete(np.arange(120), [2, 7])
    assert calibration.scores == tuple(sorted(alignments[kept]))
    assert len(calibration.validation.scores) == 89


def test_grid_rule(signals):
    assert aedr.calibrate(signals, rule="grid").threshold == aedr.kde_threshold(signals, method="grid")


def test_json_round_trip(signals, tmp_path):
    ae = tiny_autoencoder("vq")
    made = aedr.calibrate(
        signals, autoencoder=ae, model="m", source="folder/m", images_hash="ab" * 32, size_rule="crop8"
    )
    made.save(tmp_path / "deep" / "m.json")
    loaded = aedr.Calibration.load(tmp_path / "deep" / "m.json")
    assert loaded == made
    assert made.model == "m"
    exact, rounded = (aedr.weights_hash(ae, rounded=r) for r in (False, True))
    assert made.protocol.identity == Identity("m", exact, True, "float32", "highest", rounded)
    assert (made.protocol.method, made.protocol.size_rule, made.protocol.processing) == ("aedr", "crop8", "none")
    assert {"aedr-jax", "jax", "flax", "numpy"} <= set(made.provenance.versions)
    assert made.protocol.settings == aedr.SignalConfig().describe()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.json"]


def test_files_from_before_the_second_hash_are_read_and_judge_as_ever(signals, tmp_path):
    ae = tiny_autoencoder("vq")
    made = aedr.calibrate(signals, autoencoder=ae, size_rule="crop8")
    made.save(tmp_path / "new.json")
    values = json.loads((tmp_path / "new.json").read_text())
    del values["protocol"]["identity"]["rounded_hash"], values["digest"]
    (tmp_path / "old.json").write_text(json.dumps({**values, "digest": told_apart(values)}))
    old = aedr.Calibration.load(tmp_path / "old.json")
    assert old.protocol.identity == dataclasses.replace(made.protocol.identity, rounded_hash=None)
    assert "command" not in values["provenance"]  # of a call in Python: as in files from before there were commands
    old.check_against(made.protocol)
    made.check_against(old.protocol)
    for name, broken in (("rounded_hash", "ab"), ("rounded", "ab" * 32)):
        identity = {**values["protocol"]["identity"], name: broken}
        wrong = {**values, "protocol": {**values["protocol"], "identity": identity}}
        (tmp_path / "bad.json").write_text(json.dumps({**wrong, "digest": told_apart(wrong)}))
        with pytest.raises(aedr.CalibrationError, match=f"{name}"):
            aedr.Calibration.load(tmp_path / "bad.json")


def test_functions_without_parameters_have_no_hash_and_that_is_said(signals):
    ae = aedr.from_functions(lambda p, x: x, lambda p, z: z)
    with pytest.warns(aedr.CalibrationWarning, match="nothing will tell another autoencoder"):
        calibration = aedr.calibrate(signals, autoencoder=ae)
    assert calibration.protocol.identity.weights_hash is None
    with pytest.warns(aedr.CalibrationWarning, match="weights that cannot be hashed"):
        calibration.check_against(calibration.protocol)


def test_a_calibration_on_alignments_and_its_json(belonging, others, tmp_path):
    made = aedr.calibrate(belonging, validation=others)
    np.testing.assert_array_equal(made.scores, np.sort(belonging.alignment))
    made.save(tmp_path / "m.json")
    loaded = aedr.Calibration.load(tmp_path / "m.json")
    assert loaded == made
    np.testing.assert_array_equal(loaded.score(others), made.score(others))
    low, high = made.acceptance_interval
    new = measurement(np.random.default_rng(1), 4000)
    assert low <= (np.asarray(made.score(new)) < made.threshold).mean() <= high
    low, high = aedr.calibrate(belonging).threshold_interval
    assert low < aedr.calibrate(belonging).threshold < high


def test_few_images_warn_and_fewer_are_refused(belonging):
    few = aedr.Measurement(*(column[:19] for column in belonging))
    with pytest.warns(aedr.CalibrationWarning, match="19 belonging images"):
        calibration = aedr.calibrate(few)
    assert calibration.threshold_interval[1] is None
    with pytest.raises(aedr.CalibrationError, match="4 given"):
        aedr.calibrate(aedr.Measurement(*(column[:4] for column in belonging)))


def test_validation_images_pick_alpha_and_give_ratios(belonging, others):
    calibration = aedr.calibrate(belonging, validation=others)
    validation = calibration.validation
    assert validation.objective == "accuracy"
    assert 0.9 < validation.held_out_accuracy <= validation.accuracy + 0.02
    scores = np.linspace(-2, 1, 200)
    ratios = np.asarray(calibration.likelihood_ratio(scores))
    assert ratios[0] > 10 > 0.1 > ratios[-1]
    assert ratios.max() <= 91 + 1e-3
    assert ratios.min() >= 1 / 121 - 1e-6
    foreign = np.asarray(calibration.foreign_p_value(scores))
    np.testing.assert_allclose(foreign[[0, -1]], [1 / 91, 1.0])
    expected = [(1 + sum(o <= s for o in np.float32(validation.scores))) / 91 for s in np.float32(scores)]
    np.testing.assert_allclose(foreign, expected, rtol=1e-6)
    plain = aedr.calibrate(belonging)
    assert np.isnan(plain.foreign_p_value(scores)).all()
    assert np.isnan(plain.likelihood_ratio(scores)).all()


def test_a_given_alpha_is_kept_beside_validation_images(belonging, others):
    for alpha in (0.05, 0.2):
        calibration = aedr.calibrate(belonging, alpha=alpha, validation=others)
        validation = calibration.validation
        assert (calibration.alpha, validation.objective) == (alpha, "fixed alpha")
        assert calibration.threshold == aedr.calibrate(belonging, alpha=alpha).threshold
        scores = np.asarray(calibration.scores), np.asarray(validation.scores)
        own, foreign = (float((x < calibration.threshold).mean()) for x in scores)
        assert validation.false_accepts == foreign
        assert validation.accuracy == pytest.approx((own + 1 - foreign) / 2)
        assert validation.held_out_accuracy == pytest.approx(validation.accuracy)
        ratio = np.asarray(calibration.likelihood_ratio(np.zeros(1)))
        assert np.isfinite(ratio).all()
    assert aedr.calibrate(belonging).alpha == 0.05
    with pytest.raises(aedr.CalibrationError, match="there is none to pick"):
        aedr.calibrate(belonging, alpha=0.05, validation=others, false_accepts=0.1)


def test_a_picked_alpha_is_one_that_the_images_can_tell(rng):
    """200 images say nothing of one in a thousand, however far the others lie."""
    calibration = aedr.calibrate(rng.normal(size=200), validation=rng.normal(50, 1, 40), false_accepts=0.5)
    assert calibration.alpha == min(a for a in ALPHAS if a >= 1 / 201)


def test_a_target_of_false_accepts(belonging, others):
    strict = aedr.calibrate(belonging, validation=others, false_accepts=0.02)
    assert strict.validation.false_accepts <= 0.02
    count = round(90 * strict.validation.false_accepts)
    expected = scipy.stats.binomtest(count, 90).proportion_ci()
    np.testing.assert_allclose(strict.validation.false_accepts_interval, (expected.low, expected.high), atol=1e-9)
    with pytest.raises(aedr.CalibrationError, match="needs validation"):
        aedr.calibrate(belonging, false_accepts=0.01)
    with pytest.raises(aedr.CalibrationError, match="no alpha"):
        aedr.calibrate(belonging, validation=belonging, false_accepts=0.01)


WEIGHTS = "0123456789abcdef" * 4
CHANGES = [
    (lambda v: v.pop("threshold"), "threshold"),
    (lambda v: v.update(extra=1), "extra"),
    (lambda v: v.update(scores=v["scores"][:3]), "3 given"),
    (lambda v: v["scores"].__setitem__(0, None), "scores"),
    (lambda v: v["scores"].reverse(), "not sorted"),
    (lambda v: v.update(scores="many"), "wrong type"),
    (lambda v: v.update(scores=[str(x) for x in v["scores"]]), "no float"),
    (lambda v: v.update(threshold=99.0), "threshold: it says 99.0"),
    (lambda v: v.update(threshold=v["threshold"] + 1e-6), "follows from its scores"),
    (lambda v: v.update(threshold=True), "no float"),
    (lambda v: v.update(alpha=7.0), "alpha 7.0"),
    (lambda v: v.update(alpha=0.5), "threshold"),
    (lambda v: v.update(rule="guess"), "rule 'guess'"),
    (lambda v: v.update(rule="empirical"), "threshold: it says"),
    (lambda v: v.update(threshold_interval=[0.0, 9.0]), "threshold_interval"),
    (lambda v: v.update(threshold_interval=[None, None]), "threshold_interval"),
    (lambda v: v.update(acceptance_interval=[0.99, 1.0]), "acceptance_interval"),
    (lambda v: v.update(statistic=None), "statistic"),
    (lambda v: v["validation"].pop("objective"), "objective"),
    (lambda v: v["validation"].update(scores=[]), "validation scores"),
    (lambda v: v["validation"]["scores"].reverse(), "validation scores"),
    (lambda v: v["validation"].update(accuracy=1.0), "accuracy"),
    (lambda v: v["validation"].update(held_out_accuracy=1.5), "held_out_accuracy"),
    (lambda v: v["validation"].update(false_accepts=0.0), "false_accepts"),
    (lambda v: v["validation"].update(false_accepts_interval=[0.0, 0.01]), "false_accepts_interval"),
    (lambda v: v["provenance"].update(colour="red"), "colour"),
    (lambda v: v["provenance"].update(images_hash="ab"), "64 hexadecimal"),
    (lambda v: v["protocol"]["identity"].update(weights_hash=WEIGHTS.upper()), "64 hexadecimal"),
    (lambda v: v["protocol"]["identity"].update(quantize="no"), "no bool"),
    (lambda v: v["protocol"]["settings"].pop("clip"), "not those of a SignalConfig"),
    (lambda v: v["protocol"].update(processing="sharpen2"), "sharpen"),
    (lambda v: v["domain"].update(sides=[128, 64]), "sides"),
    (lambda v: v["domain"].update(homogeneity=[0.0, 1.0]), "homogeneity"),
    (lambda v: v["domain"].pop("second_loss"), "second_loss"),
]


@pytest.fixture(scope="module")
def saved():
    """What `save` writes, as JSON values."""
    rng = np.random.default_rng(0)
    made = aedr.calibrate(measurement(rng, 60), validation=measurement(rng, 40, at=-0.75))
    return {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(made)))}


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_files_that_contradict_themselves(saved, tmp_path, change, message):
    """Whoever changed it computed the digest anew."""
    path = tmp_path / "m.json"
    values = json.loads(json.dumps(saved))
    path.write_text(json.dumps({**values, "digest": told_apart(values)}))
    aedr.Calibration.load(path)
    change(values)
    path.write_text(json.dumps({**values, "digest": told_apart(values)}))
    with pytest.raises(aedr.CalibrationError, match=message) as error:
        aedr.Calibration.load(path)
    assert str(path) in str(error.value)


def test_files_that_were_changed_or_are_of_an_older_format(saved, tmp_path):
    path = tmp_path / "m.json"
    for changed, message in (
        ({**saved, "digest": told_apart({**saved, "alpha": 0.1})}, "changed after it was written"),
        (saved, "'digest'"),
        ({**saved, "format": "aedr_jax calibration 4"}, "aedr calibrate FOLDER --model M"),
        ({**saved, "threshold": float("nan"), "digest": ""}, "JSON"),
    ):
        path.write_text(json.dumps(changed))
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
    calibration = aedr.calibrate(signals, autoencoder=ae, size_rule="crop2", processing="jpeg75")
    now = Protocol(Identity.of(ae, name="other"), settings=aedr.SignalConfig().describe(), size_rule="crop2")
    calibration.check_against(now)  # the processing is a past that images are thought to have
    calibration.check_against(dataclasses.replace(now, processing="jpeg75"))
    paper = dataclasses.replace(now, settings=aedr.SignalConfig.paper().describe())
    nobody = dataclasses.replace(now, identity=Identity())
    for measured, message in (
        (dataclasses.replace(now, identity=Identity.of(tiny_autoencoder("functions", seed=1))), "weights_hash: calibr"),
        (nobody, "weights_hash: calibrated '.{12}', now None"),
        (paper, "settings.clip: calibrated True, now False; settings.alignment: calibrated {'version': .*, now None"),
        (dataclasses.replace(now, size_rule="official"), "size_rule: calibrated 'crop2', now 'official'"),
        (dataclasses.replace(now, processing="jpeg60"), "processing: calibrated 'jpeg75', now 'jpeg60'"),
        (dataclasses.replace(now, method="ronan"), "method: calibrated 'aedr', now 'ronan'"),
    ):
        with pytest.raises(aedr.CalibrationError, match=message):
            calibration.check_against(measured)
    older = now.describe()["settings"] | {"alignment": now.settings["alignment"] | {"version": 1}}
    made = dataclasses.replace(
        calibration, protocol=dataclasses.replace(calibration.protocol, processing="none", settings=older)
    )
    message = r"alignment.version: calibrated 1, now 4 \(another version of aedr_jax made it: calibrate anew\)"
    with pytest.raises(aedr.CalibrationError, match=message):
        made.check_against(now)
    unknown = aedr.calibrate(signals, size_rule="crop2")
    with pytest.raises(aedr.CalibrationError, match=r"weights_hash: calibrated None, now '.{12}'"):
        unknown.check_against(now)


def test_a_source_is_not_followed_on_a_files_word(signals, tmp_path):
    def calibration(source):
        return aedr.calibrate(signals, model="m", source=source)

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    for source in ("sd1.5", "mini-vq", str(tmp_path / "here")):
        assert calibration(source).trusted_source() == source
    for source in ("stranger/weights/vae", str(tmp_path / "gone"), "http://example.org/vae"):
        with pytest.raises(aedr.CalibrationError, match=f"nothing is downloaded.*--models {source}"):
            calibration(source).trusted_source(["m"])
        assert calibration(source).trusted_source(["other", source]) == source
    with pytest.raises(aedr.CalibrationError, match="neither its model nor a source"):
        aedr.calibrate(signals).trusted_source()


def test_lists_and_names_are_told_what_to_pass(belonging):
    calibrate = aedr.calibrate.__wrapped__  # as a user has it, without the suite's type checks
    halves = [belonging.take(slice(0, 60)), belonging.take(slice(60, 120))]
    with pytest.raises(aedr.CalibrationError, match=r"measured: a list of measurements; join them: jax\.tree\.map"):
        calibrate(halves)
    with pytest.raises(aedr.CalibrationError, match="validation: a list of measurements"):
        calibrate(belonging, validation=halves)
    joined = jax.tree.map(lambda *x: np.concatenate(x), *halves)
    assert calibrate(joined).threshold == calibrate(belonging).threshold
    logs = np.log(belonging.signal)
    assert calibrate(logs.tolist()).threshold == calibrate(logs).threshold
    with pytest.raises(aedr.CalibrationError, match="config 'paper': expected a SignalConfig"):
        calibrate(belonging, config="paper")

"""Rows of scores to verdicts with nothing calibrated."""

import dataclasses
import math

import numpy as np
import pytest

import aedr_jax as aedr
from aedr_jax.decision.null import Null
from aedr_jax.images.geometry import Geometry
from aedr_jax.scoring import verdicts
from aedr_jax.scoring.rows import Row, of_numbers
from aedr_jax.scoring.verdicts import Verdict, after_search, not_assessable, verdict_rows
from aedr_jax.signal.search import Found

HASHES = {"a": "0" * 64, "b": "1" * 64, "twin of a": "0" * 64, "closed": "", "shut": ""}
LEAST = Null.shipped().least
LOWEST = min(min(group) for group in Null.shipped().groups.values())


def row(image, model, alignment, of=0.1, *, status="ok", preset="default", **changed):
    """`of`: the alignment's error; infinite: nothing can be said; NaN: nobody asked."""
    nothing = not math.isfinite(of)
    values = {"alignment": [math.nan if nothing else alignment], "alignment_error": [of]}
    losses = np.random.default_rng([ord(model[0]), ord(image)]).uniform(0.5, 0.9, (3, 1))
    measured = aedr.Measurement.from_losses(*losses, **{name: np.array(v) for name, v in values.items()})
    known = {"used_width": 128, "used_height": 96, "size_rule": "crop8", "dtype": "float32", "precision": "highest"}
    told = {"weights_hash": HASHES[model], "quantize": None, "measured": of_numbers(column[0] for column in measured)}
    return Row(id=image, path=f"{image}.png", model=model, preset=preset, status=status, **{**known, **told, **changed})


def test_every_model_that_has_rows_is_a_candidate():
    standings = {"x": (2 * LOWEST, 0.0), "y": (0.0, 2 * LOWEST), "z": (0.0, 0.0)}
    rows = [row(i, m, s / 10) for i, both in standings.items() for m, s in zip("ab", both, strict=True)]
    found = verdict_rows(rows)
    assert [verdict.verdict for verdict in found] == ["a", "b", "none"]
    first = found[0]
    assert first.scores == pytest.approx({"a": LOWEST / 5, "b": 0.0})
    assert first.foreign_p_values == pytest.approx({"a": LEAST, "b": float(Null.shipped().p_value(np.zeros(1))[0])})
    assert first.accepted == {"a": True, "b": False}
    assert first.p_values == first.likelihood_ratios == first.belonging == {}
    assert first.foreign == round(1 / LEAST) - 1 == min(map(len, Null.shipped().groups.values()))
    assert (first.status, first.reason) == ("ok", "")
    assert [verdict.verdict for verdict in verdict_rows(rows, models=["b"])] == ["none", "b", "none"]
    with pytest.warns(aedr.CalibrationWarning, match="2 families .* can tell 1 at a rate"):
        assert [verdict.verdict for verdict in verdict_rows(rows, false_names=LEAST)] == ["none"] * 3
    assert verdict_rows(rows, models=["a"], false_names=LEAST)[0].verdict == "a"


def test_models_of_one_autoencoder_are_one_candidate():
    """Known by the hash of their weights; who has none is alone."""
    rows = [row("x", model, LOWEST / 5) for model in ("a", "twin of a", "closed", "shut")]
    assert verdict_rows(rows)[0].verdict == "ambiguous: a|twin of a, closed, shut"
    rows = rows[:3]
    assert verdict_rows(rows[:2], false_names=LEAST)[0].verdict == "a|twin of a"
    # A bfloat16 copy: other weights, the same ones rounded; in another way of decoding it is another model.
    copies = [
        dataclasses.replace(one, weights_hash=exact, rounded_hash="r", quantize=quantize)
        for one, exact, quantize in zip(rows, "xyz", (None, None, True), strict=True)
    ]
    assert verdict_rows(copies)[0].verdict == "ambiguous: a|twin of a, closed"


def test_what_nothing_can_be_said_of_has_a_reason():
    rows = [row("x", "a", 0.0, math.inf), row("x", "b", 0.0), row("y", "a", LOWEST / 5), row("y", "b", 0.0)]
    named = [row("z", "a", 0.0, math.inf), row("z", "b", LOWEST / 5)]  # whatever "a" would say of it
    silent, said, all_the_same = verdict_rows([*rows, *named])
    assert (silent.verdict, silent.status, said.verdict) == ("not assessable", "ok", "a")
    assert (all_the_same.verdict, all_the_same.reason) == ("b", "")
    assert silent.reason == (
        "a: too small, or too few blocks with detail that is neither black nor white (128×96 pixels)"
    )
    assert list(silent.foreign_p_values) == ["b"]
    assert not_assessable(rows[2:]) == ""
    # Where nobody asked for alignments the reasons are those of the signal.
    unasked = row("x", "a", 0.0, math.nan, format="JPEG", jpeg_quality=49)
    assert "quality 49" in not_assessable([unasked])
    assert not_assessable([row("x", "a", 0.0, format="JPEG", jpeg_quality=20)]) == ""


def test_rows_without_alignment_need_calibrations():
    unasked = [row("x", "a", 0.0, math.nan, preset="paper"), row("x", "b", LOWEST / 5)]
    with pytest.raises(aedr.CalibrationError, match="no calibration for a, and no alignment in what was measured"):
        verdict_rows(unasked)


def test_images_that_not_every_model_scored_are_errors():
    rows = [row("x", "a", LOWEST / 5), row("y", "a", 0.0), row("y", "b", 0.0, status="error", error="y.png: broken")]
    found = verdict_rows(rows)
    assert [(verdict.verdict, verdict.status) for verdict in found] == [("error", "error")] * 2
    assert "interrupted" in found[0].error
    assert found[1].error == "y.png: broken"


def test_some_models_have_calibrations():
    """Those are the candidates unless others are named too; these are judged by the null alone."""
    own = aedr.calibrate(LOWEST / 5 + np.linspace(-0.01, 0.01, 60), size_rule="crop8")
    identity = aedr.Identity("a", HASHES["a"], None, "float32", "highest")
    protocol = aedr.Protocol(identity, settings=own.protocol.settings, size_rule="crop8")
    calibrations = {"a": aedr.Calibration(**{**vars(own), "protocol": protocol})}
    rows = [row("x", "a", LOWEST / 5), row("x", "b", 0.0), row("y", "a", LOWEST / 9), row("y", "b", LOWEST / 5)]
    alone = verdict_rows(rows, calibrations)
    assert [list(verdict.accepted) for verdict in alone] == [["a"]] * 2
    assert [verdict.verdict for verdict in alone] == ["a", "none"]
    both = verdict_rows(rows, calibrations, models=["a", "b"])
    assert [verdict.verdict for verdict in both] == ["a", "b"]
    assert [list(verdict.p_values) for verdict in both] == [["a"]] * 2
    assert both[0].belonging == {"a": 60}


def test_a_calibration_of_functions_that_close_over_their_weights_judges_their_rows():
    with pytest.warns(aedr.CalibrationWarning, match="functions that close over their weights"):
        own = aedr.calibrate(
            LOWEST / 5 + np.linspace(-0.01, 0.01, 60),
            autoencoder=aedr.from_functions(lambda p, x: x, lambda p, z: z),
            model="closed",
            size_rule="crop8",
        )
    told = {"dtype": "", "precision": "", "quantize": False}
    rows = [row("x", "closed", LOWEST / 5, **told), row("x", "shut", 0.0, **told)]
    with pytest.warns(aedr.CalibrationWarning, match="weights that cannot be hashed"):
        (verdict,) = verdict_rows(rows, {"closed": own}, models=["closed", "shut"])
    assert (verdict.verdict, list(verdict.p_values)) == ("closed", ["closed"])


@pytest.mark.parametrize("alone", [1, 2, 3, 17, 37, 65])
def test_what_is_said_of_an_image_does_not_depend_on_its_company(alone, monkeypatch):
    """To the last bit: a resumed run writes what an uninterrupted one writes."""
    rng = np.random.default_rng(0)
    own, others = (LOWEST / 5 + rng.normal(shift, 0.2, 60) for shift in (0.0, 0.3))
    made = aedr.calibrate(own, validation=others, size_rule="crop8")
    identity = aedr.Identity("a", HASHES["a"], None, "float32", "highest")
    protocol = aedr.Protocol(identity, settings=made.protocol.settings, size_rule="crop8")
    calibrations = {"a": aedr.Calibration(**{**vars(made), "protocol": protocol})}
    rows = [row(chr(200 + i), "a", alignment) for i, alignment in enumerate(LOWEST / 5 + rng.normal(0.1, 0.2, 150))]
    together = verdict_rows(rows, calibrations)
    monkeypatch.setattr(verdicts, "MOST_AT_ONCE", 40)
    assert verdict_rows(rows, calibrations) == together
    assert len({tuple(verdict.likelihood_ratios.items()) for verdict in together}) > 50
    assert [verdict_rows(rows[i : i + alone], calibrations)[0] for i in range(0, 150, 30)] == together[::30]


def test_after_a_search_names_may_have_spaces_and_p_values_of_the_image_as_it_was_are_gone():
    """The one that accepts is said with its geometry; of several, each with its own."""
    (before,) = verdict_rows([row("x", "a", 0.0)])
    before = dataclasses.replace(before, p_values={"my model": 0.2}, likelihood_ratios={"my model": 0.1})

    def after(**standings):
        found = {
            name.replace("_", " "): Found(Geometry((256, 256), mirrored=True, offset=(0, i)), s / 10, 0.1, 9)
            for i, (name, s) in enumerate(standings.items())
        }
        return after_search(before, found, false_names=0.05, families={name: name for name in found})

    one = after(my_model=2 * LOWEST, b=0.0)
    assert (one.verdict, one.found) == ("my model", "mirrored")
    assert one.p_values == one.likelihood_ratios == {}
    several = after(my_model=2 * LOWEST, b=2 * LOWEST, c=0.0)
    assert several.verdict == "ambiguous: b, my model"
    assert several.found == "my model: mirrored; b: mirrored; offset 0, 1"
    assert after(my_model=0.0, b=math.nan) == before


def test_the_named_model_or_the_nearest():
    def judged(text, foreign, *, own=None, scores=None, accepted=()):
        names = {**foreign, **(own or {})}
        yes = {name: name in accepted for name in names}
        return Verdict("i", "i", "", text, scores or {}, foreign, own or {}, {}, yes, "ok", "")

    family = judged("ambiguous: a|b, c", {"a": 0.01, "b": 0.01, "c": 0.005, "d": 0.001}, accepted=["a", "b", "c", "d"])
    assert (family.named, family.nearest) == (("a", "b", "c"), "c")  # d accepts it too, and others are firmer
    none = judged("none", {"none": 0.5, "a": 0.4})
    assert (none.named, none.nearest) == ((), "a")
    assert judged("none", {"a": 0.5, "b": 0.5}, scores={"a": 0.1, "b": -0.1}).nearest == "b"
    assert judged("none", {}, own={"a": 0.01, "b": 0.04}, scores={"a": -9.0, "b": 9.0}).nearest == "b"
    assert judged("error", {}).nearest is None

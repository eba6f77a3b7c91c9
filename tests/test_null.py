"""The reference of foreign images: p-values by their definition, the threshold that they come to, and its file."""

import dataclasses
import json
from fractions import Fraction

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import aedr_jax as aedr
from aedr_jax.decision.null import FORMAT, ROUNDING, SHIPPED, Null

few = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def null(*groups):
    return Null({str(i): tuple(sorted(map(float, group))) for i, group in enumerate(groups)})


def by_hand(of, s):
    """A fraction: the largest over the groups of (1 + how many stand as low) / (1 + how many there are)."""
    return max(Fraction(1 + sum(v <= s for v in group), 1 + len(group)) for group in of.groups.values())


def test_a_p_value_is_the_largest_over_the_groups_and_a_tie_counts_against_the_image():
    of = null([-3.0, -2.0, -2.0, 0.5], [-2.5, 0.0, 1.0])
    s = np.float32([-4.0, -3.0, -2.5, -2.0, np.nextafter(np.float32(-2), np.float32(-3)), 0.5, 9.0])
    expected = [1 / 4, 2 / 5, 2 / 4, 4 / 5, 2 / 4, 5 / 5, 1.0]
    assert [float(by_hand(of, v)) for v in s] == expected
    np.testing.assert_allclose(jax.jit(of.p_value)(s), expected, rtol=1e-6)
    assert of.least == 1 / 4  # of the smaller group


def test_nothing_is_said_where_the_standing_is_not_defined():
    of = null([-1.0, 1.0])
    found = of.p_value(jnp.array([jnp.nan, -jnp.inf, jnp.inf]))
    np.testing.assert_allclose(found, [np.nan, 1 / 3, 1.0], rtol=1e-6)


@few
@hypothesis.given(
    st.lists(
        st.lists(st.sampled_from(np.arange(-6, 3, 0.25).tolist()), min_size=60, max_size=60), min_size=1, max_size=3
    ),
    st.sampled_from([0.01, 0.05, 1 / 61, 2 / 61, 3 / 61, 0.29, 0.5, 60 / 61, 0.999]),
)
def test_what_lies_below_the_threshold_has_a_p_value_of_at_most_the_rate(groups, rate):
    """Ties and rates that a p-value meets exactly among them: `attribute` and a threshold accept the same images."""
    of = null(*groups)
    tau = of.threshold(rate)
    ends = np.float32([-np.inf, np.inf])
    values = np.concatenate([np.float32(group) for group in of.groups.values()])
    x = np.resize(np.concatenate([values, *(np.nextafter(values, end) for end in ends), ends]), 600)
    p = np.asarray(of.p_value(x), np.float64)
    np.testing.assert_array_equal(p <= rate * ROUNDING, x < tau)
    if np.isfinite(tau):
        assert of.p_value(np.nextafter(np.float32([tau]), ends[0]))[0] <= rate * ROUNDING
        assert of.p_value(np.float32([tau]))[0] > rate * ROUNDING


def test_a_rate_that_no_image_or_every_image_meets():
    of = null([-2.0, -1.0, 0.0], [-1.5])
    assert of.threshold(0.3) == -np.inf  # the second group's least p-value is 1/2
    assert of.threshold(0.5) == -1.5
    assert of.threshold(1.0) == np.inf


def test_it_keeps_its_level_for_images_of_any_one_group(rng):
    """Whatever the group, and though the groups differ by half a standing: (N + 1) p is an image's rank."""
    named = []
    for _ in range(200):
        of = null(rng.normal(0, 1, 59), rng.normal(-0.5, 1.2, 59))
        limit = of.threshold(0.05)
        named.append([(rng.normal(0, 1, 100) < limit).mean(), (rng.normal(-0.5, 1.2, 100) < limit).mean()])
    assert np.mean(named, axis=0)[0] <= 0.05
    assert 0.03 < np.mean(named, axis=0)[1] <= 0.05 + 3 * 0.002


def test_it_is_read_as_it_was_written(tmp_path):
    of = null([-2.12344, 0.0], [1.0])
    of.save(tmp_path / "null.json")
    assert Null.load(tmp_path / "null.json") == Null({"0": (-2.1234, 0.0), "1": (1.0,)})
    assert [path.name for path in tmp_path.iterdir()] == ["null.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no null that can be read"),
        ("[]", "no null that can be read"),
        ('"text"', "no null that can be read"),
        ("[" * 100_000, "no null that can be read"),
        ('{"groups": {"a": [1.0]}}', "'format'"),
        (json.dumps({"format": "aedr_jax null 0", "groups": {"a": [1.0]}}), "format 'aedr_jax null 0', expected"),
        (json.dumps({"format": FORMAT}), "'groups'"),
        (json.dumps({"format": FORMAT, "groups": [1.0]}), "no null that can be read"),
        (json.dumps({"format": FORMAT, "groups": {"a": ["x"]}}), "no null that can be read"),
        (json.dumps({"format": FORMAT, "groups": {"a": 1.0}}), "no null that can be read"),
        (json.dumps({"format": FORMAT, "groups": {}}), "without a group"),
        (json.dumps({"format": FORMAT, "groups": {"a": []}}), "null, a: expected finite standings, sorted"),
        (json.dumps({"format": FORMAT, "groups": {"a": [1.0, 0.0]}}), "null, a: expected finite"),
        (json.dumps({"format": FORMAT, "groups": {"a": [0.0, float("nan")]}}), "null, a: expected finite"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "null.json"
    path.write_text(text)
    with pytest.raises(aedr.CalibrationError, match=message) as error:
        Null.load(path)
    assert str(path) in str(error.value)
    with pytest.raises(aedr.CalibrationError, match=r"missing\.json"):
        Null.load(tmp_path / "missing.json")


def test_the_one_that_ships():
    shipped = Null.shipped()
    assert shipped is Null.shipped()
    assert shipped == Null.load(SHIPPED)
    assert 1 / shipped.least - 1 >= 99  # else nothing could be said at .01
    assert shipped.threshold(0.01) <= shipped.threshold(0.05) < 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        shipped.groups = {}


def test_standings_in_half_precision_are_compared_with_the_reference_as_it_is():
    """In the standings' own dtype −1.499 would become −1.5, a tie."""
    found = null([-1.499, 0.5]).p_value(jnp.asarray([-1.5, 1.0], jnp.bfloat16))
    np.testing.assert_allclose(found, [1 / 3, 1.0], rtol=1e-6)

"""The experiments' arithmetic: what is measured, areas and choices, and that fits see belonging images only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from conftest import tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.rivals import rdd_score
from aedr_jax.study.metrics import area_under_curve, interval, resample, with_interval
from aedr_jax.study.signals import (
    _ON_BOTH,
    _PRODUCT,
    PASSES,
    SIGNALS,
    _largest,
    choose,
    columns,
    few_images,
    measurement_of,
    score_signals,
)


@pytest.mark.parametrize("kind", ["vq", "functions"])
def test_columns_are_what_measure_gives(kind, rng):
    autoencoder = tiny_autoencoder(kind)
    images = jnp.asarray(rng.uniform(-1, 1, (2, 16, 24, 3)), jnp.float32)
    gray = jnp.asarray(rng.integers(0, 256, (2, 16, 24)), jnp.int32)
    table = {name: np.asarray(values) for name, values in jax.jit(columns)(autoencoder, images, gray).items()}
    for passes, config in (
        ("clip", aedr.SignalConfig()),
        ("raw", aedr.SignalConfig.paper()),
        ("round8", aedr.SignalConfig(round8=True)),
    ):
        expected = jax.jit(functools.partial(aedr.measure, config=config))(autoencoder, images, gray=gray)
        found = measurement_of(table, passes)
        for name in ("first_loss", "second_loss", "homogeneity", "signal"):
            # Two programs, one order of float32 sums each; the second pass doubles the difference.
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(measurement_of(table).latent_error, expected.latent_error, rtol=1e-4)
    rdd = SIGNALS["RDD, squared error"](table)(table)
    # Differences of losses: the tolerance is a share of those.
    expected_rdd = jax.jit(functools.partial(rdd_score, distance=aedr.mse))(autoencoder, images)
    np.testing.assert_allclose(rdd, expected_rdd, atol=2e-4 * table["first_clip"].max())
    assert np.isnan(table["second_blurred"]).all()


def table(rng, n, shift=0.0):
    second = np.exp(rng.normal(-7, 0.8, n))
    first = np.exp(1.0 + shift + 1.1 * np.log(second) + rng.normal(0, 0.1, n))
    passes = {f"{o}_{p}": v for o, v in (("first", first), ("second", second))
              for p in PASSES}  # fmt: skip
    nothing = {f"{o}_codebook": np.full(n, np.nan) for o in ("first", "second")}
    passes["first_turned"] = first * np.exp(rng.normal(0.1, 0.2, n))
    return {**passes, **nothing, "homogeneity": np.exp(rng.normal(-0.7, 0.3, n))}


def test_signals_are_fitted_to_belonging_images_alone(rng):
    own, tested = table(rng, 100), {"m": table(rng, 50), "other": table(rng, 60, shift=0.5)}
    found = score_signals(own, tested)
    left_out = set(SIGNALS) - set(found)
    assert left_out == {name for name in SIGNALS if "quantization" in name}
    tested["other"] = {**tested["other"], "first_sample": np.full(60, np.nan)}
    assert list(score_signals(own, tested)["t·H, clipped, posterior sample"]) == ["m"]
    alone = score_signals(own, {"m": tested["m"]})
    for name, scores in alone.items():
        np.testing.assert_array_equal(scores["m"], found[name]["m"])
    statistic = aedr.fit_statistic(measurement_of(own))
    best = found["larger of t·H, log L1 on log L2, log H"]["other"]
    np.testing.assert_allclose(best, statistic.on_host(measurement_of(tested["other"])), rtol=1e-9)
    by_hand = _largest(_PRODUCT, _ON_BOTH)(own)  # where no image is far, nothing is left out of the statistic's fit
    np.testing.assert_allclose(best, by_hand(tested["other"]), rtol=1e-9)
    statistic = aedr.fit_statistic(measurement_of(own), quantized=True)
    best = found["larger of L1 − L2, log L1 on log L2, log H"]["other"]
    np.testing.assert_allclose(best, statistic.on_host(measurement_of(tested["other"])), rtol=1e-9)


def test_area_under_curve(rng):
    own, other = rng.integers(0, 20, 80).astype(float), rng.integers(5, 30, 90).astype(float)  # with ties
    expected = scipy.stats.mannwhitneyu(other, own).statistic / (80 * 90)
    assert area_under_curve(own, other) == pytest.approx(expected, abs=1e-12)


def test_a_choice_is_reported_where_it_was_not_made(rng):
    """On the even images of a and b one signal is perfect by accident; reported elsewhere it is worthless."""
    names = list(SIGNALS)[:3]

    def scores(lucky):
        own, other = rng.normal(0, 1, 400), rng.normal(1, 1, 400)
        luck_own, luck_other = rng.normal(0, 1, 400), rng.normal(0, 1, 400)
        if lucky:
            luck_other[::2] += 20
        return {
            names[0]: (own + 0.3 * rng.normal(size=400), other),
            names[1]: (own, other),
            names[2]: (luck_own, luck_other),
        }

    models = {m: {c: {m: s[0], "x": s[1]} for c, s in scores(m in "ab").items()} for m in "abcd"}
    first, second = choose(models, ((("a", "b"), ("c", "d")), (("c", "d"), ("a", "b"))))
    assert first.signal == names[2]
    assert first.auc == pytest.approx(0.5, abs=0.06)
    assert second.signal == names[1]
    assert second.auc > 0.7


def test_a_bootstrap_draws_whole_clusters():
    drawn = resample([np.array([0, 0, 1, 1, 2]), np.arange(4)], repeats=50)
    for first, second in drawn:
        counts = np.bincount(first, minlength=5)
        assert counts[0] == counts[1]
        assert counts[2] == counts[3]
        assert len(second) == 4
    assert len({tuple(first) for first, _ in drawn}) > 5


def test_images_that_stand_alone_are_drawn_as_by_the_generator():
    drawn = resample([np.arange(7)], repeats=3, seed=[5, 7])
    expected = np.random.default_rng([5, 7]).integers(7, size=(3, 7))
    np.testing.assert_array_equal([indices for (indices,) in drawn], expected)


def test_an_interval_is_of_the_metric_on_what_was_drawn(rng):
    own, other = rng.normal(size=30), rng.normal(size=40) + 1
    drawn = resample([np.arange(30), np.arange(40)], repeats=40)
    value, low, high = with_interval(area_under_curve, (own, other), drawn)
    assert value == area_under_curve(own, other)
    assert (low, high) == interval([area_under_curve(own[i], other[j]) for i, j in drawn])
    assert 0.5 < low < value < high < 1.0


def test_few_images_realise_their_level(rng):
    measured = measurement_of(table(rng, 300))
    rows = few_images(measured, (20, 100), repeats=60)
    assert [(r["size"], r["rule"]) for r in rows[:3]] == [(20, "exact"), (20, "empirical"), (20, "conformal")]
    for row in rows:
        assert 0.88 < row["mean"] < 0.98
        assert row["acceptance_covered"] >= 0.85  # 60 repeats
        assert row["threshold_covered"] >= 0.85
    spread = {(r["size"], r["rule"]): r["high"] - r["low"] for r in rows}
    assert spread[100, "exact"] < spread[20, "exact"]

"""The density estimate against scipy, its inverse, and what calibration refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import aedr_jax as aedr
from aedr_jax.decision.threshold import (
    GRID_POINTS,
    MIN_SIGNALS,
    RULES,
    hold_in,
    kde_cdf,
    kde_logpdf,
    p_value,
    threshold,
)


@pytest.fixture
def samples(rng):
    return rng.lognormal(0.1, 0.2, 300)


def test_cdf_equals_scipys_integral(samples):
    reference = scipy.stats.gaussian_kde(samples)
    x = np.linspace(0.2, 3, 57)
    expected = [reference.integrate_box_1d(-np.inf, value) for value in x]
    # float32 against float64: a mean of 300 values in [0, 1] keeps 1e-6.
    np.testing.assert_allclose(
        aedr.kde_cdf(jnp.asarray(x, jnp.float32), jnp.asarray(samples, jnp.float32)), expected, atol=1e-6
    )


def test_cdf_and_quantile_under_jit_vmap_and_grad(samples):
    values = jnp.asarray(samples, jnp.float32)
    q = jnp.asarray([0.05, 0.5, 0.95])
    quantiles = jax.jit(jax.vmap(lambda share: aedr.kde_quantile(values, share)))(q)
    np.testing.assert_allclose(jax.jit(aedr.kde_cdf)(quantiles, values), q, atol=1e-6)
    density = jax.grad(lambda x: aedr.kde_cdf(x, values))(jnp.float32(1.1))
    np.testing.assert_allclose(density, scipy.stats.gaussian_kde(samples)(1.1)[0], rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.9, 0.5, 0.05, 0.003, 1e-6, 1e-12])
def test_exact_threshold_inverts_the_cdf(samples, alpha):
    found = aedr.kde_threshold(samples, alpha=alpha)
    reference = scipy.stats.gaussian_kde(samples)
    np.testing.assert_allclose(reference.integrate_box_1d(found, np.inf), alpha, rtol=1e-3, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("alpha", [1e-4, 0.1, 1 - 1e-4])
def test_threshold_follows_scale_and_shift(samples, scale, alpha):
    """Beyond the samples at either end too: the bracket is in bandwidths."""
    plain = aedr.kde_threshold(samples, alpha=alpha)
    assert (plain > samples.max(), plain < samples.min()) == (alpha == 1e-4, alpha == 1 - 1e-4)
    np.testing.assert_allclose(aedr.kde_threshold(samples * scale, alpha=alpha), plain * scale, rtol=1e-9)
    np.testing.assert_allclose(aedr.kde_threshold(samples - 5, alpha=alpha), plain - 5, rtol=1e-9)


def test_grid_rule_written_out(samples):
    spread = samples.std(ddof=1)
    grid = np.linspace(samples.min() - spread, samples.max() + spread, 10_000)
    cumulative = np.cumsum(scipy.stats.gaussian_kde(samples)(grid))
    expected = np.interp(0.95, cumulative / cumulative[-1], grid)
    np.testing.assert_allclose(aedr.kde_threshold(samples, method="grid"), expected, rtol=1e-9)
    np.testing.assert_allclose(aedr.kde_threshold(samples, method="exact"), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (np.linspace(1, 2, MIN_SIGNALS - 1), "4 given"),
        ([], "0 given"),
        (np.ones(30), "all 30 equal 1.0"),
        ([1.0, 1.1, float("nan"), 1.2, 1.3, 1.4], r"1 of 6 are NaN or infinite \(first at 2: nan\)"),
        ([1.0, 1.1, 1.2, 1.3, float("inf"), float("inf")], "2 of 6 are NaN or infinite"),
        (np.ones((3, 3)), "shape"),
    ],
)
def test_refusals(signals, message):
    with pytest.raises(aedr.CalibrationError, match=message):
        aedr.kde_threshold(signals)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_alpha_must_be_a_share(samples, alpha):
    with pytest.raises(aedr.CalibrationError, match="alpha"):
        aedr.kde_threshold(samples, alpha=alpha)


def test_unknown_method(samples):
    with pytest.raises(ValueError, match="'exact' or 'grid'"):
        aedr.kde_quantile(jnp.asarray(samples, jnp.float32), 0.5, method="guess")
    with pytest.raises(ValueError, match="'exact' or 'grid'"):
        aedr.kde_threshold(samples, method="guess")


@pytest.mark.parametrize("method", ["exact", "grid"])
def test_the_hosts_threshold_is_the_jitted_quantile(samples, method):
    """Both in float64; the host's asks JAX for nothing, in however many blocks a grid is summed up."""
    alphas = (0.9, 0.3, 0.05, 0.005)
    with jax.enable_x64(True):
        quantile = jax.jit(lambda q: aedr.kde_quantile(jnp.asarray(samples), q, method=method))
        expected = [float(quantile(1 - alpha)) for alpha in alphas]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aedr_jax.decision.threshold.jnp", None)
        found = [aedr.kde_threshold(samples, alpha=alpha, method=method) for alpha in alphas]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        patch.setattr("aedr_jax.decision.threshold.MOST_TERMS", 7 * len(samples))
        again = [aedr.kde_threshold(samples, alpha=alpha, method=method) for alpha in alphas]
    assert again == found


def test_x64_stays_off(samples):
    aedr.kde_threshold(samples)
    assert jnp.zeros(1).dtype == jnp.float32


def test_the_least_that_is_enough():
    """Two samples have a density, five signals a threshold, and 1/alpha − 1 of them a conformal one."""
    two = np.array([0.0, 1.0])
    assert float(kde_cdf(jnp.array(0.5), two)) == pytest.approx(0.5)
    np.testing.assert_allclose(kde_logpdf(jnp.array(0.3), two), scipy.stats.gaussian_kde(two).logpdf(0.3), rtol=1e-4)
    five = np.arange(5.0)
    for rule in RULES[:3]:
        assert threshold(five, alpha=0.2, rule=rule) > 3
    assert (five >= threshold(five, alpha=0.85, rule="empirical")).sum() == 4  # of which one is kept
    with pytest.raises(aedr.CalibrationError, match=r"5 signals; the conformal rule at alpha 0\.1 needs 9"):
        threshold(five, alpha=0.1, rule="conformal")
    assert (
        8 < threshold(np.arange(9.0), alpha=0.1, rule="conformal") < 8.001
    )  # nine are enough: what lies above all goes
    for rule in RULES:
        with pytest.raises(aedr.CalibrationError, match=r"alpha 1\.5: expected a share"):
            threshold(five, alpha=1.5, rule=rule)
    with pytest.raises(ValueError, match="rule 'kde'"):
        threshold(five, rule="kde")


def test_the_rules_have_names():
    assert RULES == ("exact", "grid", "empirical", "conformal")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_jitted_quantile_reaches_beyond_the_samples(samples, scale):
    """However wide they lie: the bracket is in bandwidths."""
    found = jax.jit(aedr.kde_quantile)(jnp.asarray(samples * scale, jnp.float32), 1 - 1e-4)
    assert found > samples.max() * scale
    np.testing.assert_allclose(found, aedr.kde_threshold(samples * scale, alpha=1e-4), rtol=1e-3)


@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_the_jitted_quantile_reaches_to_the_other_end(far):
    """The samples lie further apart than the bracket's margin is wide."""
    values, q = np.r_[np.linspace(0, 1, 300), far], 0.01 if far > 0 else 0.99
    found = jax.jit(aedr.kde_quantile)(jnp.asarray(values, jnp.float32), q)
    np.testing.assert_allclose(found, aedr.kde_threshold(values, alpha=1 - q), rtol=1e-3)


def test_of_many_quantiles_the_least():
    """Between two crowds lies nothing, in any float: half of the density is below all of the gap."""
    crowds = np.repeat([-1.0, 1.0], 30_000)
    assert -0.2 < aedr.kde_threshold(crowds, alpha=0.5) < -0.05
    assert -0.5 < jax.jit(aedr.kde_quantile)(jnp.asarray(crowds, jnp.float32), 0.5) < -0.3  # whose tails end sooner


def test_a_grid_is_summed_up_in_blocks(samples, monkeypatch):
    held = []

    class Watched:
        """NumPy, which tells how many terms are held at once."""

        def __getattr__(self, name):
            return getattr(np, name)

        def exp(self, terms):
            held.append(terms.size)
            return np.exp(terms)

    monkeypatch.setattr("aedr_jax.decision.threshold.np", Watched())
    monkeypatch.setattr("aedr_jax.decision.threshold.MOST_TERMS", 100 * len(samples))
    aedr.kde_threshold(samples, method="grid")
    assert sum(held) == GRID_POINTS * len(samples)
    assert max(held) <= 100 * len(samples)


def test_signals_that_differ_by_rounding_alone_are_alike():
    values = 1e6 + np.arange(10) * 1e-8  # within 1e-12 of their size
    with pytest.raises(aedr.CalibrationError, match=r"^signals: all 10 equal"):
        aedr.kde_threshold(values)
    aedr.kde_threshold(1e6 + np.arange(10) * 1e-4)
    with pytest.raises(aedr.CalibrationError, match="all 5 equal"):  # below 1, within 1e-12
        aedr.kde_threshold([0.0, 0.0, 0.0, 0.0, 1e-12])
    aedr.kde_threshold([0.0, 0.0, 0.0, 0.0, 1.5e-12])


def test_far_signals_are_found_in_any_order():
    signals = np.r_[100.0, np.linspace(0, 1, 30), -100.0, 50.0]
    order = np.random.default_rng(0).permutation(signals.size)
    np.testing.assert_array_equal(
        hold_in(signals[order], np), hold_in(np.sort(signals), np)[np.argsort(np.argsort(signals))][order]
    )
    assert hold_in(signals, np).max() == 50.0  # one in twenty at either end


def test_p_values_are_by_the_density_unless_said(samples):
    scores = np.linspace(samples.min(), samples.max(), 7)
    by_default, exact, ranks = (
        p_value(scores, samples),
        p_value(scores, samples, rule="exact"),
        p_value(scores, samples, rule="empirical"),
    )
    np.testing.assert_array_equal(by_default, exact)
    assert not np.array_equal(exact, ranks)


def test_a_far_signal_widens_the_grids_density_alone(samples):
    far = np.r_[samples, samples.max() + 100 * np.ptp(samples)].astype(np.float32)
    scores = jnp.asarray(np.linspace(samples.min(), samples.max(), 7), jnp.float32)
    by_rule = {"exact": hold_in(far, np), "grid": far}
    for rule, kept in by_rule.items():
        expected = np.maximum(1 - kde_cdf(scores, kept), 1 / (far.size + 1))
        np.testing.assert_allclose(p_value(scores, far, rule=rule), expected, atol=1e-5)
    assert np.abs(kde_cdf(scores, far) - kde_cdf(scores, by_rule["exact"])).max() > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_p_values_have_the_shape_of_the_scores(samples, rule):
    scores = np.linspace(samples.min(), samples.max(), 6, dtype=np.float32)
    flat = p_value(scores, samples.astype(np.float32), rule=rule)
    table = p_value(scores.reshape(2, 3), samples.astype(np.float32), rule=rule)
    np.testing.assert_allclose(table, flat.reshape(2, 3), rtol=1e-6)
    np.testing.assert_allclose(
        p_value(jnp.asarray(scores[4]), samples.astype(np.float32), rule=rule), flat[4], rtol=1e-6
    )


def test_the_authors_rule_is_their_grid(samples):
    assert threshold(samples, alpha=0.1, rule="grid") == aedr.kde_threshold(samples, alpha=0.1, method="grid")
    assert threshold(samples, alpha=0.1, rule="grid") != threshold(samples, alpha=0.1, rule="empirical")

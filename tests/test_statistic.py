"""The fitted statistic, the order-statistic intervals, the rules of the threshold, and the choice of alpha."""

import jax
import numpy as np
import pytest
import scipy.stats

import aedr_jax as aedr
from aedr_jax.decision.intervals import acceptance_interval, share_interval, threshold_interval
from aedr_jax.decision.statistic import Term, cross_fit, fit_statistic
from aedr_jax.decision.threshold import p_value, threshold
from aedr_jax.decision.validation import ALPHAS, balanced_accuracy, pick_alpha


def measurement(rng, n, shift=0.0):
    second = np.exp(rng.normal(-7, 0.8, n))
    first = np.exp(1.0 + shift + 1.1 * np.log(second) + rng.normal(0, 0.1, n))
    return aedr.Measurement.from_losses(first, second, np.exp(rng.normal(-0.7, 0.3, n)))


def test_the_terms_by_hand(rng):
    measured = measurement(rng, 40)
    statistic = fit_statistic(measured)
    first, second, texture = (
        np.asarray(x, np.float64) for x in (measured.first_loss, measured.second_loss, measured.homogeneity)
    )
    design = np.stack([np.ones(40), np.log(second), np.log(texture)], axis=1)
    _, a, b = np.linalg.solve(design.T @ design, design.T @ np.log(first))
    assert statistic.terms[1].slopes == pytest.approx((a, b), rel=1e-6)
    terms = [np.log(first / second * texture), np.log(first) - a * np.log(second) - b * np.log(texture)]
    expected = np.max([(t - t.mean()) / t.std(ddof=1) for t in terms], axis=0)
    # The losses are float32, and logarithms of 1e-4 lose three digits to their size.
    np.testing.assert_allclose(jax.jit(statistic)(measured), expected, atol=2e-4)
    quantized = fit_statistic(measured, quantized=True)
    terms[0] = first - second
    expected = np.max([(t - t.mean()) / t.std(ddof=1) for t in terms], axis=0)
    np.testing.assert_allclose(quantized(measured), expected, atol=2e-4)


def test_the_score_does_not_depend_on_the_scale_of_the_losses(rng):
    measured = measurement(rng, 40)
    scaled = measured._replace(first_loss=measured.first_loss * 7, second_loss=measured.second_loss * 7)
    for quantized in (False, True):
        a, b = (fit_statistic(m, quantized=quantized)(m) for m in (measured, scaled))
        np.testing.assert_allclose(a, b, atol=5e-4)


def test_images_of_one_homogeneity_leave_its_slope_out(rng):
    measured = measurement(rng, 40)._replace(homogeneity=np.full(40, 0.5))
    slope, _ = np.polyfit(np.log(measured.second_loss), np.log(measured.first_loss), 1)
    assert fit_statistic(measured).terms[1].slopes == pytest.approx((slope, 0.0), rel=1e-5)


def test_cross_fit_is_leave_one_out_up_to_twenty_images(rng):
    measured = measurement(rng, 12)
    found = cross_fit(measured)
    for i in range(12):
        rest = aedr.Measurement(*(np.delete(np.asarray(c, np.float64), i) for c in measured))
        one = aedr.Measurement(*(np.asarray(c, np.float64)[[i]] for c in measured))
        assert found[i] == pytest.approx(float(fit_statistic(rest)(one)[0]), abs=2e-4)


def test_a_cross_fitted_score_is_as_a_new_images(rng):
    """In-sample scores are too small: with 20 images their upper tail lies well inside a new image's."""
    inside, held_out, new = [], [], []
    for _ in range(80):
        measured, fresh = measurement(rng, 20), measurement(rng, 50)
        statistic = fit_statistic(measured)
        inside.append(statistic.on_host(measured))
        held_out.append(cross_fit(measured))
        new.append(statistic.on_host(fresh))
    q = [float(np.quantile(np.concatenate(x), 0.95)) for x in (inside, held_out, new)]
    assert abs(q[1] - q[2]) < 0.2
    assert q[2] - q[0] > 0.15


def test_an_undefined_ratio_has_no_score_and_a_perfect_one_belongs(rng):
    statistic = fit_statistic(measurement(rng, 40))
    odd = aedr.Measurement.from_losses(np.array([1e-3, 0.0]), np.array([0.0, 1e-3]), np.array([0.5, 0.5]))
    undefined, perfect = np.asarray(statistic(odd))
    assert np.isnan(undefined)
    assert perfect < -10
    gradient = jax.grad(lambda m: statistic(m)[1])(odd)
    assert np.isfinite(gradient.first_loss).all()


def test_fits_that_are_refused(rng):
    measured = measurement(rng, 30)
    zero = measured._replace(first_loss=np.asarray(measured.first_loss).copy() * np.r_[0.0, np.ones(29)])
    with pytest.raises(aedr.CalibrationError, match="a first loss of 0"):
        fit_statistic(zero)
    negative = measured._replace(second_loss=-measured.second_loss)
    with pytest.raises(aedr.CalibrationError, match=r"fitted=False"):
        fit_statistic(negative)
    with pytest.raises(aedr.CalibrationError, match="a homogeneity of 0"):
        fit_statistic(measured._replace(homogeneity=np.zeros(30)))
    with pytest.raises(aedr.CalibrationError, match="at least 5"):
        fit_statistic(measured.take(slice(4)))
    with pytest.raises(aedr.CalibrationError, match="needs 6"):
        cross_fit(measured.take(slice(5)))
    alike = aedr.Measurement(*(np.repeat(np.asarray(c)[:1], 30) for c in measured))
    with pytest.raises(aedr.CalibrationError, match="measure alike"):
        fit_statistic(alike)
    with pytest.raises(ValueError, match="expected one of product"):
        Term("ratio", (), 0.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        Term("product", (), 0.0, 0.0)


def test_share_interval_is_clopper_pearson():
    for count, total in ((0, 20), (1, 20), (3, 20), (19, 20), (20, 20), (477, 500)):
        expected = scipy.stats.binomtest(count, total).proportion_ci(method="exact")
        np.testing.assert_allclose(share_interval(count, total), (expected.low, expected.high), atol=1e-9)


def test_intervals_cover_what_they_say(rng):
    """The promise is 95 % for any distribution; 1,500 repeats can tell 93.5 from it."""
    law = scipy.stats.lognorm(0.5)
    truth = law.ppf(0.95)
    for n in (20, 72, 200):
        covered = accepted = 0
        for _ in range(1500):
            scores = rng.lognormal(0, 0.5, n)
            low, high = threshold_interval(scores, 0.05)
            covered += (low is None or low <= truth) and (high is None or truth <= high)
            tau = float(np.quantile(scores, 0.9))
            low, high = acceptance_interval(scores, tau)
            accepted += low <= law.cdf(tau) <= high
        assert covered >= 0.935 * 1500
        assert accepted >= 0.935 * 1500


def test_intervals_by_the_binomial_distribution():
    """Each rank by scipy's own sums: 20 scores that are their ranks, at several confidences."""
    scores, confidences = np.arange(1.0, 21.0), (0.5, 0.8, 0.95)
    for alpha in (0.2, 0.5, 0.8):
        for confidence in confidences:
            tail = (1 - confidence) / 2
            # P(the r-th smallest is at most the quantile) = P(Binomial(20, 1 − alpha) >= r).
            reached = scipy.stats.binom(20, 1 - alpha).sf(scores - 1)
            expected = scores[reached >= 1 - tail].max(initial=-1), scores[reached <= tail].min(initial=99)
            found = threshold_interval(scores[::-1], alpha, confidence=confidence)
            assert found == tuple(None if x in (-1, 99) else x for x in expected)
    for confidence in confidences:
        for below, tau in ((0, 1.0), (1, 2.0), (19, 20.0), (20, 20.5)):
            found = acceptance_interval(scores, tau, confidence=confidence)
            assert found == share_interval(below, 20, confidence=confidence)
            wider = acceptance_interval(scores, tau, confidence=confidence, cross_fitted=True)
            low, high = max(below - 1, 0), min(below + 1, 20)
            assert wider[0] == share_interval(low, 20, confidence=confidence)[0]
            assert wider[1] == share_interval(high, 20, confidence=confidence)[1]
    expected = scipy.stats.binomtest(3, 20).proportion_ci(confidence_level=0.8, method="exact")
    np.testing.assert_allclose(share_interval(3, 20, confidence=0.8), (expected.low, expected.high), atol=1e-9)
    assert acceptance_interval(scores, 5.0) == acceptance_interval(scores, 5.0, confidence=0.95)
    assert threshold_interval(scores, 0.5) == threshold_interval(scores, 0.5, confidence=0.95)


@pytest.mark.parametrize("rule", ["empirical", "conformal"])
def test_intervals_cover_under_ties(rng, rule):
    """Scores of ten values: what is accepted, by the new definition, and the quantile lie where the intervals say."""
    truth = scipy.stats.binom(9, 0.4)
    quantile, covered, accepted = truth.ppf(0.9), 0, 0
    for _ in range(600):
        scores = truth.rvs(100, random_state=rng).astype(float)
        low, high = threshold_interval(scores, 0.1)
        covered += low <= quantile <= high
        tau = threshold(scores, alpha=0.1, rule=rule)
        low, high = acceptance_interval(scores, tau)
        accepted += low <= truth.cdf(tau) <= high
    assert covered >= 0.935 * 600
    assert accepted >= 0.935 * 600


def test_too_few_images_leave_a_side_open(rng):
    assert threshold_interval(rng.normal(size=71), 0.05)[1] is None
    assert threshold_interval(rng.normal(size=72), 0.05)[1] is not None


@pytest.mark.parametrize("rule", ["exact", "empirical", "conformal"])
@pytest.mark.parametrize("alpha", [0.05, 0.07, 0.1])
def test_accepted_is_p_above_alpha(rng, rule, alpha):
    signals = rng.normal(size=100).astype(np.float32)
    tau = threshold(signals, alpha=alpha, rule=rule)
    x = np.concatenate([rng.normal(0, 2, 3000), signals]).astype(np.float32)
    x = x[np.abs(x - tau) > 1e-5]  # p-values are float32
    np.testing.assert_array_equal(np.asarray(p_value(x, signals, rule=rule)) > alpha, x < tau)


def test_the_empirical_and_conformal_rules(rng):
    signals = rng.permutation(np.arange(1.0, 101.0))
    seven = threshold(signals, alpha=0.07, rule="empirical")
    assert seven == np.nextafter(np.float32(93), np.float32(94))
    assert (signals >= seven).sum() == 7
    five = threshold(signals, alpha=0.05, rule="conformal")  # 5 of 101 p-values
    assert five == np.nextafter(np.float32(96), np.float32(97))
    found = p_value(np.array([0.5, 95.5, 96.0, 96.5, 100.0, 101.0]), signals, rule="conformal")
    np.testing.assert_allclose(found, np.array([101, 6, 6, 5, 2, 1]) / 101, rtol=1e-6)
    found = p_value(np.array([0.5, 95.5, 96.0, 96.5, 100.0, 101.0, np.nan]), signals, rule="empirical")
    np.testing.assert_allclose(found, [1, 0.05, 0.05, 0.04, 0.01, 1 / 101, np.nan], rtol=1e-6)
    with pytest.raises(aedr.CalibrationError, match="needs 99"):
        threshold(signals[:98], alpha=0.01, rule="conformal")
    with pytest.raises(ValueError, match="rule 'guess'"):
        threshold(signals, rule="guess")


def test_the_conformal_rule_keeps_its_promise(rng):
    """The true family is turned away with probability at most alpha, at any size."""
    for n in (20, 50):
        turned_away = [
            (rng.gamma(2, size=200) >= threshold(rng.gamma(2, size=n), rule="conformal")).mean() for _ in range(400)
        ]
        assert np.mean(turned_away) < 0.05 + 3 * np.std(turned_away) / 20


def test_pick_alpha_takes_what_separates_and_says_what_it_cost(rng):
    own, others = rng.normal(0, 1, 300), rng.normal(4, 1, 300)
    alpha, validation = pick_alpha(own, others)
    assert 0.005 < alpha < 0.06
    assert validation.accuracy > 0.96
    # Nothing to tell apart: what accuracy there is came of picking, and held-out halves say so.
    _, nothing = pick_alpha(rng.normal(0, 1, 20), rng.normal(0, 1, 20))
    assert nothing.held_out_accuracy < 0.62
    with pytest.raises(aedr.CalibrationError, match="at least 10"):
        pick_alpha(own, others[:9])
    with pytest.raises(aedr.CalibrationError, match="1 of them NaN"):
        pick_alpha(own, np.r_[others, np.nan])


def test_pick_alpha_by_its_definition(rng):
    """The middle of the alphas of best accuracy, or the first that keeps to a target; both halves held out in turn."""
    own, others = rng.normal(0, 1, 40), rng.normal(1.5, 1, 31)
    for rule in ("empirical", "conformal"):
        usable = [a for a in ALPHAS if a >= 1 / 41]
        taus = [threshold(own, alpha=a, rule=rule) for a in usable]

        def accuracy(tau, own=own, others=others):
            return ((own < tau).mean() + (others >= tau).mean()) / 2

        values = np.round([accuracy(tau) for tau in taus], 12)
        best = np.flatnonzero(values == values.max())
        alpha, validation = pick_alpha(own, others, rule=rule)
        assert alpha == usable[best[len(best) // 2]]
        tau = threshold(own, alpha=alpha, rule=rule)
        assert validation.accuracy == pytest.approx(accuracy(tau))
        assert validation.false_accepts == (others < tau).mean()
        assert validation.false_accepts_interval == share_interval(int((others < tau).sum()), 31)
        assert validation.scores == tuple(np.sort(others))
        target = float((others < taus[-3]).mean())
        alpha, validation = pick_alpha(own, others, false_accepts=target, rule=rule)
        assert alpha == next(a for a, t in zip(usable, taus, strict=True) if (others < t).mean() <= target)
        assert validation.objective == "false accepts"
        held_out = []
        for chosen, left in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
            half = [a for a in ALPHAS if a >= 1 / 21]
            at = [threshold(own[chosen], alpha=a, rule=rule) for a in half]
            kept = [a for a, t in zip(half, at, strict=True) if (others[chosen] < t).mean() <= target]
            tau = threshold(own, alpha=kept[0] if kept else half[-1], rule=rule)
            held_out.append(accuracy(tau, own[left], others[left]))
        assert validation.held_out_accuracy == pytest.approx(np.mean(held_out))
        least = float((others < taus[-1]).mean())
        with pytest.raises(aedr.CalibrationError, match=f"{usable[-1]:g} accepts {least:.3g}"):
            pick_alpha(own, others, false_accepts=least / 2, rule=rule)
    assert pick_alpha(own[:10], others[:10])[0] >= 1 / 11  # the fewest that are enough
    with pytest.raises(aedr.CalibrationError, match="9 belonging"):
        pick_alpha(own[:9], others)
    assert pick_alpha(own[:9], others, alpha=0.3)[0] == 0.3


def test_a_score_at_the_threshold_is_turned_away():
    own = np.arange(1.0, 21.0)
    tau = threshold(own, alpha=0.2, rule="empirical")
    _, validation = pick_alpha(own, np.full(10, tau), alpha=0.2, rule="empirical")
    assert (validation.false_accepts, validation.accuracy) == (0.0, pytest.approx(0.9))


def test_balanced_accuracy_at_the_threshold():
    """A score at the threshold is turned away, whoever's; each other source counts the same."""
    own, others = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    assert balanced_accuracy(own, others, threshold=2.0) == (0.5 + 1.0) / 2
    assert balanced_accuracy(own, others, np.array([1.0] * 8), threshold=2.0) == (0.5 + 0.5) / 2


def test_an_alpha_between_one_and_two_in_n_plus_one_may_be_picked():
    assert 1 / 11 <= pick_alpha(np.arange(10.0), np.arange(100.0, 110.0))[0] < 2 / 11

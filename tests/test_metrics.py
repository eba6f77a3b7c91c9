"""Areas, bootstraps and intervals of the studies."""

import numpy as np
import pytest
import scipy.stats

from aedr_jax.study.metrics import area_under_curve, interval, resample


def test_area_under_curve(rng):
    own, other = rng.integers(0, 20, 80).astype(float), rng.integers(5, 30, 90).astype(float)  # with ties
    expected = scipy.stats.mannwhitneyu(other, own).statistic / (80 * 90)
    assert area_under_curve(own, other) == pytest.approx(expected, abs=1e-12)


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
    areas = [area_under_curve(own[i], other[j]) for i, j in drawn]
    low, high = interval(areas)
    assert np.mean([low <= area <= high for area in areas]) == 0.95
    assert 0.5 < low < area_under_curve(own, other) < high < 1.0

"""Statistics against SciPy, and Holm's correction against the closed testing it is a shortcut of."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from descent.statistics import band, holm, interval, log_band, paired, steps_to

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_is_that_of_scipy(count: int, level: float):
    values = RNG.normal(3, 2, count)
    low, high = stats.t.interval(level, count - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval(values, level), (values.mean(), low, high, count), rtol=1e-12)


def test_an_interval_holds_the_true_mean_as_often_as_it_says():
    drawn = RNG.normal(1, 3, (5, 20_000))
    _, low, high = band(drawn, 0.9)
    held = np.mean((low < 1) & (high > 1))
    assert held == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 20_000))


def test_one_value_has_no_interval():
    assert interval([2.5]).mean == 2.5
    assert np.isnan(interval([2.5])[1:3]).all()


def test_a_curve_that_ends_or_breaks_leaves_the_band_to_the_others():
    curves = RNG.normal(size=(4, 3))
    broken = np.vstack([curves, [np.nan, np.inf, -np.inf]])
    np.testing.assert_array_equal(band(broken), band(curves))
    assert np.isnan(band(np.full((2, 1), np.nan))).all()


def test_the_band_on_a_log_axis_is_the_geometric_mean_and_stays_above_zero():
    curves = np.exp(RNG.normal(0, 3, (5, 40)))
    mean, low, high = log_band(np.vstack([curves, np.full(40, np.nan), np.zeros(40)]))
    np.testing.assert_allclose(mean, stats.gmean(curves), rtol=1e-12)
    np.testing.assert_allclose(high / mean, mean / low, rtol=1e-9)
    assert (low > 0).all()
    assert (high > mean).all()


@pytest.mark.parametrize("count", [2, 5, 30])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_the_paired_test_is_that_of_scipy(count: int, shift: float):
    left = RNG.normal(size=count)
    right = left + RNG.normal(shift, 0.4, count)
    reference = stats.ttest_rel(left, right)
    found = paired(left, right)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-10)
    wanted = reference.confidence_interval(0.95)
    np.testing.assert_allclose(found.difference[1:3], (wanted.low, wanted.high), rtol=1e-10)


def test_pairs_with_a_missing_half_are_left_out():
    left, right = [1.0, 2.0, np.nan, 4.0, 7.0], [1.5, 2.1, 3.0, np.inf, 6.0]
    assert paired(left, right) == paired([1.0, 2.0, 7.0], [1.5, 2.1, 6.0])
    assert paired(left, right).difference.n == 3
    assert np.isnan(paired([1.0], [2.0]).p)
    assert np.isnan(paired([np.nan], [2.0]).p)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_differences_that_are_all_the_same_have_the_chance_of_the_sign_test(count: int):
    """As those of a coarse metric often are: shares of 100 samples, each of ours one better, but for rounding."""
    shares = np.linspace(0.9, 0.97, count).round(2)
    ours = (shares + 0.01).round(2)
    assert np.ptp(ours - shares) > 0 or count < 8  # the spread of rounding, which is none
    assert paired(ours, shares).p == pytest.approx(stats.binomtest(count, count).pvalue)
    assert paired(shares, shares).p == 1


def test_a_spread_that_is_small_but_no_rounding_is_a_spread():
    left, right = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.5, 2.5 + 1e-6])
    assert paired(left, right).p == pytest.approx(stats.ttest_rel(left, right).pvalue, rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_holm_is_the_closure_of_bonferroni(count: int):
    """Marcus, Peritz & Gabriel 1976: a hypothesis falls when every intersection with it does, each by Bonferroni."""
    chances = RNG.uniform(0, 0.3, count)
    wanted = []
    for one in range(count):
        sets = [s for size in range(1, count + 1) for s in combinations(range(count), size) if one in s]
        wanted.append(max(min(1.0, len(s) * min(chances[list(s)])) for s in sets))
    np.testing.assert_allclose(holm(chances), wanted, rtol=1e-12)


def test_what_is_no_test_does_not_count_as_one():
    np.testing.assert_array_equal(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).shape == (0,)


def test_steps_to_a_target():
    steps, losses = np.array([10, 20, 30]), np.array([3.0, 1.0, 2.0])
    assert steps_to(steps, losses, 1.5, higher=False) == 20
    assert steps_to(steps, losses, 3.0, higher=True) == 10
    assert np.isnan(steps_to(steps, losses, 0.5, higher=False))

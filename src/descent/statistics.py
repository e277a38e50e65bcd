"""Statistics of a few runs that differ in their seeds: means with intervals, paired comparisons, several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epy

with epy.lazy_imports():
    from scipy import special

LEVEL = 0.95
SAME = 1e-9  # of a spread over the mean: below it is rounding, as that of 0.97 - 0.96 against 0.98 - 0.97


class Estimate(NamedTuple):
    """A mean of `n` values and its confidence interval from `low` to `high`; NaN where too few tell."""

    mean: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """Mean difference of paired values, and the chance `p` of one so large if the values were alike."""

    difference: Estimate
    p: float


def interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Estimate:
    """The mean and its interval `m +- t s / sqrt(n)`, t with n - 1 degrees of freedom (Student 1908).

    One value has no interval: its bounds are NaN.
    """
    mean, low, high = band(np.asarray(values, np.float64)[:, None], level)
    return Estimate(float(mean[0]), float(low[0]), float(high[0]), len(values))


def band(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper bound [m] of curves [n, m], each point by itself; what is NaN in one curve is left out."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    some = np.maximum(count, 1)
    mean = np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / some, np.nan)
    squares = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
    free = np.where(count > 1, count - 1.0, np.nan)
    half = special.stdtrit(free, (1 + level) / 2) * np.sqrt(squares / free / some)
    return mean, mean - half, mean + half


def log_band(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`band` of logarithms: the geometric mean, and bounds that are factors of it; what is not positive is left out.

    What a log axis shows: the same interval about a plain mean may reach below zero, which has no place there.
    """
    logarithms = np.log(np.where(values > 0, values, np.nan))
    mean, low, high = (np.exp(bound) for bound in band(logarithms, level))
    return mean, low, high


def paired(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray, level: float = LEVEL) -> Comparison:
    """Left minus right, pair by pair, and the two-sided paired t-test (Student 1908).

    Pairs with a value that is not finite are left out. Fewer than two pairs say nothing: p is NaN.

    Where all n differences are the same, up to rounding, p is that of the sign test, `2^(1-n)`, and 1 where they are
    zero. A t-test would call any of them certain, from two pairs on; but metrics that count, as accuracy on a few
    hundred samples, tie by their coarseness, and no spread that was measured as zero is known to be so.
    """
    differences = np.asarray(left, np.float64) - np.asarray(right, np.float64)
    differences = differences[np.isfinite(differences)]
    estimate = interval(differences, level) if len(differences) else Estimate(np.nan, np.nan, np.nan, 0)
    if estimate.n < 2:
        return Comparison(estimate, np.nan)
    error = float(np.std(differences, ddof=1)) / np.sqrt(estimate.n)
    if error <= SAME * abs(estimate.mean):
        return Comparison(estimate, 2.0 ** (1 - estimate.n) if estimate.mean else 1.0)
    return Comparison(estimate, float(2 * special.stdtr(estimate.n - 1, -abs(estimate.mean) / error)))


def holm(chances: Sequence[float] | np.ndarray) -> np.ndarray:
    """Chances adjusted for being the smallest of several (Holm 1979): `max over j <= i of (m - j + 1) p_(j)`.

    Of all families of tests in which what is adjusted below a is claimed, at most a share a has any wrong claim,
    however the tests depend on each other: if each chance by itself is right, as those of `paired` are for differences
    that are spread as the normal distribution. A NaN stays one and counts as no test.
    """
    given = np.asarray(chances, np.float64)
    adjusted = np.full(given.shape, np.nan)
    known = np.flatnonzero(np.isfinite(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * given[order]))
    return adjusted


def steps_to(steps: np.ndarray, values: np.ndarray, target: float, *, higher: bool) -> float:
    """The first of the steps at which the value is as good as the target; NaN where none is."""
    good = values >= target if higher else values <= target
    return float(steps[np.argmax(good)]) if good.any() else np.nan

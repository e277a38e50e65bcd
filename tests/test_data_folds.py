"""Folds: each sample is validated exactly once, each class is spread evenly, sizes are as declared."""

from __future__ import annotations

import numpy as np
import pytest

from descent.data import Cifar10, Digits
from descent.data.arrays import Splitting, share_of
from descent.seeds import host


def labels(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.choice(7, count, p=rng.dirichlet(np.ones(7)))


def held(folds: int, own: np.ndarray, seed: int = 0) -> np.ndarray:
    parts = [Splitting(fold=k, folds=folds, split_seed=seed) for k in range(folds)]
    return np.array([part.hold(own, host(part.split_seed, "split")) for part in parts])


@pytest.mark.parametrize("count", [7, 100, 1797])
@pytest.mark.parametrize("folds", [2, 5, 7])
def test_together_the_folds_are_everything_once(count: int, folds: int):
    assert (held(folds, labels(count)).sum(axis=0) == 1).all()


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_each_class_is_spread_over_the_folds_to_within_one_sample(folds: int):
    own = labels(1797)
    for label in range(7):
        counts = held(folds, own)[:, own == label].sum(axis=1)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("total", [5, 99, 1438, 60_000])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_the_declared_sizes_are_the_folds_and_add_up(total: int, folds: int):
    sizes = [Splitting(fold=k, folds=folds).held(total) for k in range(folds)]
    assert sizes == held(folds, np.zeros(total, int)).sum(axis=1).tolist()
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


def test_folds_depend_on_the_split_seed():
    own = labels(500)
    assert (held(5, own) != held(5, own, seed=1)).any()


def test_the_test_split_is_the_same_in_every_fold():
    opened = [Digits(fold=k, folds=3).open() for k in range(3)]
    tests = [np.array(one.splits["test"][0]) for one in opened]
    np.testing.assert_array_equal(tests[0], tests[1])
    np.testing.assert_array_equal(tests[0], tests[2])
    np.testing.assert_array_equal(tests[0], np.array(Digits().open().splits["test"][0]))
    rows = [bytes(row) for one in opened for row in np.array(one.splits["validation"][0])]
    kept = [bytes(row) for split in ("train", "validation") for row in np.array(opened[0].splits[split][0])]
    assert sorted(rows) == sorted(kept)


def test_a_fold_past_the_last_is_refused():
    with pytest.raises(ValueError, match="fold=5 should be below folds=5"):
        Cifar10(fold=5)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Cifar10(fold=0, folds=1)


@pytest.mark.parametrize(("total", "share", "count"), [(10, 0.01, 1), (10, 0.99, 9), (100, 0.1, 10), (3, 0.5, 2)])
def test_a_share_leaves_at_least_one_on_both_sides(total: int, share: float, count: int):
    assert share_of(total, share) == count

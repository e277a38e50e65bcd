"""Sources: what they declare is what they hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from descent import UserError
from descent.data import Arrays, Digits, FashionMnist, Synthetic
from descent.types import SPLITS

SOURCES = [Digits(), Digits(validation=0.1, test=0.31), Digits(fold=6, folds=7), Synthetic(), FashionMnist()]


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_holds_what_it_declares(source):
    spec, opened = source.spec, source.open()
    for split in SPLITS:
        inputs, targets = opened.splits[split]
        assert tuple(inputs.shape) == (spec.sizes[split], *spec.shape)
        assert set(np.unique(targets)) == set(range(10))
        assert len(spec.class_names) == spec.num_classes


def test_scaled_values_have_the_declared_mean_and_spread():
    for source in (Digits(), FashionMnist()):
        values = np.array(source.open().splits["train"][0]) * source.spec.scale
        assert values.min() == 0
        assert values.max() == 1
        assert values.mean() == pytest.approx(source.spec.mean[0], abs=0.003)
        assert values.std() == pytest.approx(source.spec.std[0], abs=0.003)


def test_splits_are_disjoint_and_together_everything():
    from sklearn.datasets import load_digits

    opened = Digits().open()
    rows = np.concatenate([np.array(opened.splits[split][0]).reshape(-1, 64) for split in SPLITS])
    original = load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, original))


def test_the_cut_depends_on_the_split_seed_alone():
    first, again, other = Digits().open(), Digits().open(), Digits(split_seed=1).open()
    test = [np.array(source.splits["test"][0]) for source in (first, again, other)]
    np.testing.assert_array_equal(test[0], test[1])
    assert (test[0] != test[2]).any()


def test_another_size_than_declared_is_a_message():
    spec = Digits().spec
    wrong = np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32)
    with pytest.raises(UserError, match="the test split has 3 samples"):
        Arrays(spec, {"test": wrong})


def test_real_targets_are_linear_in_the_pixels():
    source = Synthetic(num_classes=None, samples=512, noise=1.0)
    inputs, targets = (np.array(t) for t in source.open().splits["train"])
    design = np.c_[inputs.reshape(512, -1), np.ones(512)]
    residual = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    assert residual.std() < 0.05 * targets.std()
    assert dataclasses.replace(source, num_classes=3).spec.outputs == 3

"""The known tables: their declared sizes are scikit-learn's, and what is fitted is of the training rows."""

from __future__ import annotations

import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn import datasets

from descent import UserError
from descent.data import BreastCancer, CaliforniaHousing, Diabetes, Wine
from descent.data.tables import KnownTable
from descent.types import SPLITS

SHIPPED = {
    Diabetes: lambda: datasets.load_diabetes(scaled=False),
    BreastCancer: datasets.load_breast_cancer,
    Wine: datasets.load_wine,
}


@pytest.mark.parametrize("made", SHIPPED)
def test_a_shipped_table_is_scikit_learns_row_by_row(made: type[KnownTable]):
    bunch, table = SHIPPED[made](), made()
    before = table.spec
    opened = table.open()
    rows = np.concatenate([np.array(opened.splits[split][0]) for split in SPLITS])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, bunch.data.astype(np.float32)))
    assert (before.sizes, before.shape, before.class_names) == (
        table.spec.sizes,
        table.spec.shape,
        table.spec.class_names,
    )
    train = np.array(opened.splits["train"][0], np.float64)
    np.testing.assert_allclose(table.spec.mean, train.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table.spec.std, train.std(axis=0), rtol=1e-4)
    if before.class_names:
        assert before.class_names == tuple(bunch.target_names)
        counts = [np.bincount(opened.splits[split][1]) / len(opened.splits[split][1]) for split in SPLITS]
        assert np.ptp(counts, axis=0).max() < 0.05
    else:
        own = np.array(opened.splits["train"][1], np.float64)
        assert (table.spec.target_mean, table.spec.target_std) == pytest.approx((own.mean(), own.std()))


def test_a_target_that_is_left_in_its_unit_is_not_standardised():
    table = Diabetes(standardize_target=False)
    table.prepare()
    assert (table.spec.target_mean, table.spec.target_std) == (0, 1)


def test_california_housing_is_read_from_a_folder(tmp_path):
    """As scikit-learn keeps it: population and occupancy are sums there, divided by households when read."""
    made = np.random.default_rng(0).uniform(1, 5, (20_640, 9))
    joblib.dump(made, tmp_path / "cal_housing_py3.pkz", compress=6)
    opened = CaliforniaHousing(path=str(tmp_path)).open()
    assert opened.splits["train"][0].shape == (20_640 - 4128 - 3096, 8)
    joblib.dump(made[:-1], tmp_path / "cal_housing_py3.pkz", compress=6)
    with pytest.raises(UserError, match="20639 rows of 8 features, not the 20640 of 8"):
        CaliforniaHousing(path=str(tmp_path)).open()


def test_without_a_network_the_ways_to_get_california_housing_are_named(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "fetch_california_housing", refuse)
    with pytest.raises(UserError, match=r"data[.]path=FOLDER"):
        CaliforniaHousing(path=str(tmp_path)).open()


def test_composing_a_known_table_imports_neither_scikit_learn_nor_tensorflow():
    check = (
        "import sys; from descent import compose; compose('data=diabetes', 'loss=mse', 'regularization=none'); "
        "compose('data=wine'); assert not {'sklearn', 'tensorflow', 'keras', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)

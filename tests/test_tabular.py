"""Tables through the engine: units, standardisation, MixUp, and what is refused."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from descent import UserError, compose
from descent.augmentation import Mixing
from descent.config import load_experiment, restore
from descent.data import Linear
from descent.gradient import Gradient
from descent.loss import Huber, MeanSquaredError
from descent.model import Mlp
from descent.regularization import Regularization
from descent.session import running
from descent.types import Batch, Spec
from test_resume import Killed, killing, same

REAL = ("data=linear", "loss=mse", "regularization=none")


def spec(**changes: object) -> Spec:
    return dataclasses.replace(Linear().spec, **changes)


def test_the_target_of_linear_is_the_sum_of_three_features_and_the_noise():
    opened = Linear(samples=20_000, noise=0.1).open()
    inputs, targets = (np.concatenate([np.array(pair[i]) for pair in opened.splits.values()]) for i in (0, 1))
    rest = targets - inputs[:, :3].sum(axis=1)
    assert inputs.shape == (20_000, 10)
    assert np.abs(inputs.mean(axis=0)).max() < 5 / np.sqrt(20_000)
    assert np.abs(inputs.std(axis=0) - 1).max() < 5 / np.sqrt(40_000)
    assert rest.std() == pytest.approx(0.1, rel=5 / np.sqrt(40_000))
    assert np.abs(np.corrcoef(inputs.T, rest)[-1, :-1]).max() < 5 / np.sqrt(20_000)


def test_the_splits_of_linear_are_disjoint_and_everything():
    opened = Linear().open()
    rows = np.concatenate([np.array(pair[0]) for pair in opened.splits.values()])
    assert len(np.unique(rows, axis=0)) == 1000
    assert [len(opened.splits[split][1]) for split in ("train", "validation", "test")] == [600, 200, 200]


def test_a_model_of_a_standardised_target_answers_in_the_targets_unit():
    """The head's output, in deviations, times the deviation plus the mean."""
    given = spec(target_mean=150.0, target_std=77.0)
    model = Mlp(widths=(4,)).build(given, Regularization())
    inputs = np.random.default_rng(0).standard_normal((5, 10)).astype(np.float32)
    head = keras.Model(model.inputs[0], model.get_layer("head").output)
    np.testing.assert_allclose(model(inputs), head(inputs) * 77.0 + 150.0, rtol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (150.0, 77.0)])
@pytest.mark.parametrize("loss", [MeanSquaredError(), Huber(delta=1.0)])
def test_losses_are_of_standardised_targets(mean, std, loss):
    given = spec(target_mean=mean, target_std=std)
    gradient = Gradient(model=None, spec=given, loss=loss, regularization=Regularization(), word=0, trained=())  # type: ignore[arg-type]
    z, t = np.random.default_rng(0).standard_normal((2, 6, 1)).astype(np.float32)
    expected = loss(tf.constant(t), tf.constant(z))
    np.testing.assert_allclose(gradient.losses(t * std + mean, z * std + mean), expected, rtol=1e-4)


def test_a_tables_first_layer_standardises_in_float32_in_any_precision():
    """1998 +- 10 in bfloat16, which has 8 bits, would all be 2000."""
    given = spec(shape=(1,), mean=(1998.0,), std=(10.0,))
    years = np.array([[1988.0], [1997.0], [1999.0], [2018.0]], np.float32)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = Mlp(widths=(4,)).build(given, Regularization())
    finally:
        keras.config.set_dtype_policy("float32")
    layer = model.get_layer("standardize")
    np.testing.assert_allclose(layer(years), (years - 1998) / 10, atol=1e-5)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_mixes_rows_and_real_targets_alike(mode):
    """A target that is linear in its row is still that same linear function of the mixed row."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 10)).astype(np.float32)
    plane = rng.standard_normal((10, 1)).astype(np.float32)
    mixing = Mixing(mixup_alpha=1.0, mode=mode)
    batch = Batch(tf.constant(inputs), tf.constant(inputs @ plane), tf.ones([8]))
    mixed = mixing.apply(mixing.draw(tf.constant([1, 2], tf.int64), [8, 10], tf.constant(0.0)), batch)
    np.testing.assert_allclose(mixed.targets, mixed.inputs @ plane, atol=1e-5)
    assert not np.allclose(mixed.inputs, inputs)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_mlp_is_its_formula_in_numpy(norm, residual):
    """Dense, norm, ReLU, and the input added where the widths agree; batch norm starts at mean 0 and variance 1."""
    model = Mlp(widths=(6, 6), norm=norm, residual=residual).build(spec(), Regularization())
    weights = {v.path: np.array(v, np.float64) for v in model.variables}
    inputs = np.random.default_rng(0).standard_normal((5, 10)).astype(np.float32)
    x = inputs.astype(np.float64)
    for i in range(2):
        y = x @ weights[f"dense_{i}/kernel"] + weights.get(f"dense_{i}/bias", 0)
        if norm == "layer":
            y = (y - y.mean(axis=1, keepdims=True)) / np.sqrt(y.var(axis=1, keepdims=True) + 1e-3)
        if norm == "batch":
            y = y / np.sqrt(1 + 1e-3)
        y = np.maximum(y, 0)
        x = x + y if residual and x.shape == y.shape else y
    np.testing.assert_allclose(model(inputs), x @ weights["head/kernel"] + weights["head/bias"], atol=1e-5)
    assert ("dense_0/bias" in weights) == (norm != "batch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augmentation=mixup"], "FlipCrop is for image data, and this is tabular; use augmentation/sample=none"),
        (["augmentation/batch=cutmix"], "CutMix pastes boxes of images"),
        (["augmentation/batch=mixup_cutmix"], "CutMix pastes boxes of images"),
        (["augmentation/sample=strong"], "Chain is for image data"),
        (["model=cnn"], "Cnn is for image data, and this is tabular; use model=mlp"),
        (["data.samples=2"], "samples=2 should be at least 3"),
        (["loss=cross_entropy", "regularization=standard"], "use loss=mse regularization.label_smoothing=0"),
    ],
)
def test_what_a_table_cannot_be_given_is_refused_with_the_reason(words, message):
    with pytest.raises(UserError, match=message):
        compose(*REAL, *words)


def test_mixup_is_for_tables_of_real_targets_too():
    assert compose(*REAL, "augmentation/batch=mixup").augmentation.batch.mixup_alpha > 0


TABLE = (
    "data=diabetes", "loss=mse", "regularization=dropout", "augmentation/batch=mixup", "averaging=ema",
    "trainer.eval_every=3st", "trainer.steps_per_call=4", "callback.checkpoint.every=4st", "trainer.log_every=1",
)  # fmt: skip


def test_a_killed_run_on_a_table_continues_bit_for_bit(quick, tmp_path, monkeypatch):
    quick(*TABLE).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train, at=13))
        with pytest.raises(Killed):
            quick(*TABLE).run(tmp_path / "cut")
    load_experiment(tmp_path / "cut").run(tmp_path / "cut")  # with the encoding that the run kept
    same(tmp_path / "whole", tmp_path / "cut")


def test_equal_seeds_give_equal_bytes_on_a_table_whatever_the_steps_in_a_call(quick, tmp_path):
    words = [word for word in TABLE if "steps_per_call" not in word]
    logs = []
    for steps in ("1", "7", "32"):
        quick(*words, f"trainer.steps_per_call={steps}").run(tmp_path / steps)
        logs.append((tmp_path / steps / "metrics.jsonl").read_bytes())
    assert logs[0] == logs[1] == logs[2]


def test_a_finished_run_is_read_back_with_outputs_in_the_targets_unit(quick, tmp_path):
    result = quick(*TABLE).run(tmp_path / "run")
    experiment, built, _ = restore(tmp_path / "run")
    targets, outputs, _ = built.evaluator.outcome("test")
    assert sklearn.metrics.mean_squared_error(targets, outputs) == pytest.approx(result.record["test/mse"], rel=1e-6)
    deviation = experiment.data.spec.target_std
    assert result.record["test/loss"] == pytest.approx(result.record["test/mse"] / deviation**2, rel=1e-4)

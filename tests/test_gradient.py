"""Accumulation, loss scaling and precision change how a gradient is computed, not what it is."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from descent.folder import read_rows
from descent.precision import DynamicScaling
from descent.session import build

PLAIN = ("trainer.batch_size=32", "regularization=elastic_net", "augmentation=mixup")


def first_pass(quick, *overrides: str, scale: float = 1.0, padding: int = 0):
    """The record and gradients of the first batch, with the last samples weighted zero."""
    from descent.step import to_batch

    built = build(quick(*PLAIN, *overrides).resolved())
    raw = tf.nest.map_structure(lambda t: t[0], built.pipeline.chunk_at(tf.constant(0, tf.int64)))
    weight = np.ones(32, np.float32)
    weight[32 - padding :] = 0
    batch = to_batch(built.pipeline.spec, raw)._replace(weight=tf.constant(weight))
    record, gradients = built.step.gradient(batch, tf.constant(0, tf.int64), tf.constant(scale))
    return {k: float(v) for k, v in record.items()}, [g.numpy() for g in gradients]


@pytest.mark.parametrize("padding", [0, 5])
def test_parts_of_a_batch_add_up_to_the_batch(quick, padding):
    """With five samples of weight zero the parts have unequal counts; sums are over samples, not parts."""
    whole = first_pass(quick, padding=padding)
    parts = first_pass(quick, "trainer.accumulate=4", padding=padding)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    for a, b in zip(whole[1], parts[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_scaling_the_loss_changes_no_gradient(quick):
    """A power of two scales exactly."""
    for a, b in zip(first_pass(quick)[1], first_pass(quick, scale=1024.0)[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("words", ["optimizer.frozen=dense_0", "optimizer.multipliers=[[dense_0,0]]"])
@pytest.mark.parametrize("parts", [1, 4])
def test_what_never_trains_has_no_gradient_and_all_others_theirs(quick, words, parts):
    """So that it counts in no norm, no clipping, and no ascent of SAM."""
    whole, held = (first_pass(quick, f"trainer.accumulate={parts}", *more)[1] for more in ((), (words,)))
    assert [bool(g.any()) for g in held] == [False, False, *[True] * (len(whole) - 2)]
    for mine, other in zip(held[2:], whole[2:], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_what_trains_later_has_its_gradient_from_the_start(quick):
    """What the optimizer remembers of it is kept up."""
    held = first_pass(quick, "optimizer.frozen=dense_0", "optimizer.unfreeze=0.5")[1]
    assert all(g.any() for g in held)


def test_updates_are_counted_once_however_many_parts(quick, folder):
    run = quick("trainer.accumulate=8", "averaging=ema", "trainer.log_every=1")
    rows = read_rows(run.run(folder).folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 21))
    np.testing.assert_allclose([row["train/learning_rate"] for row in rows], run.rates(), rtol=1e-6)


def test_a_batch_that_does_not_divide_is_refused(quick):
    from descent import UserError

    with pytest.raises(UserError, match="batch_size=32 should be a multiple of accumulate=5"):
        quick("trainer.accumulate=5")


def test_the_scale_halves_after_a_bad_step_and_doubles_after_good_ones():
    scaling = DynamicScaling(initial=8.0, patience=3)
    seen = []
    for finite in (False, True, True, True, True, False):
        scaling.update(tf.constant(finite))
        seen.append(float(scaling.scale()))
    assert seen == [4, 4, 4, 8, 8, 4]


def test_the_scale_never_falls_below_one():
    scaling = DynamicScaling(initial=1.0)
    scaling.update(tf.constant(False))
    assert float(scaling.scale()) == 1


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_as_float32_does(quick, tmp_path, precision):
    """Half precision keeps 8 or 11 bits; over twenty steps the losses agree to a few percent."""
    cnn = ("model=cnn", "model.widths=[8,16]", "model.dense=16")
    full = quick(*cnn).run(tmp_path / "full").record["val/loss"]
    mixed = quick(*cnn, f"trainer.precision={precision}").run(tmp_path / "mixed")
    assert mixed.record["val/loss"] == pytest.approx(full, rel=0.1)
    assert all(weight.dtype == np.float32 for weight in mixed.model.get_weights())
    assert mixed.model.get_layer("conv_0").compute_dtype == precision.removeprefix("mixed_")

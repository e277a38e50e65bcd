"""Test-time augmentation: means over views that are drawn with keys, or that are laid down."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from conftest import QUICK
from descent import UserError, compose, metric, views
from descent.data.pipeline import Pipeline
from descent.session import build
from descent.types import part

ROOT = Path(__file__).resolve().parents[1]


def built(*words: str):
    return build(compose(*QUICK, *words).resolved())


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def plain(run, raw: np.ndarray) -> np.ndarray:
    return softmax(np.float64(run.state.model(raw.astype(np.float32) * run.pipeline.spec.scale, training=False)))


@pytest.mark.parametrize("kind", ["augmentation", "shift"])
def test_one_view_is_the_sample_itself(kind):
    run = built("augmentation=flip_crop", "data.samples=128")
    targets, outputs, _ = views.outcome(run, "test", 1, kind)
    expected_targets, expected = run.evaluator.outcome("test")[:2]
    np.testing.assert_array_equal(targets, expected_targets)
    np.testing.assert_allclose(np.exp(outputs), metric.softmax(expected), atol=1e-6)


def test_every_sample_counts_once_whatever_the_batches(monkeypatch):
    """70 samples in batches of 32, the last one padded; answers are of the same samples as without batches."""
    run = built("data.samples=280", "data.shape=[6,5,3]")
    few = type(run.evaluator)(step=run.step, pipeline=run.pipeline, batch_size=32)
    split = type(run)(**{**vars(run), "evaluator": few})
    pair = (views.outcome(which, "test", 3, "shift")[:2] for which in (run, split))
    for mine, other in zip(*pair, strict=True):
        assert len(mine) == 70
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_the_mean_over_shifts_is_that_of_images_moved_by_numpy():
    """By hand on 8x8 pixels: shifts of one pixel, the edge repeated; digits have no mirror images."""
    run = built()
    raw = run.pipeline.source.gather("test", tf.range(run.pipeline.spec.sizes["test"]))[0].numpy()
    padded = np.pad(raw, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
    places = [(1, 1), (1, 0), (1, 2), (0, 1), (2, 1)]  # the corner of the window: a shift to the right looks left
    expected = np.mean([plain(run, padded[:, r : r + 8, c : c + 8]) for r, c in places], axis=0)
    np.testing.assert_allclose(np.exp(views.outcome(run, "test", 5, "shift")[1]), expected, atol=1e-6)


def test_moved_images_by_hand():
    image = tf.reshape(tf.range(12), [1, 3, 4, 1])
    for how, expected in (
        (((0, 0), True), [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]),
        (((1, 0), False), [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]),
        (((0, -2), False), [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]),
    ):
        assert views.moved(image, *how)[0, ..., 0].numpy().tolist() == expected


def test_mirror_images_are_views_where_they_keep_the_label():
    spec = built("data.shape=[30,60,3]").pipeline.spec
    assert len(views._shifted(spec, 5)) == 5
    with pytest.raises(UserError, match=r"^tta=6: there are 5 views by views=shift$"):
        views._shifted(spec, 6)
    mirrored = dataclasses.replace(spec, mirrors=True)
    image = tf.reshape(tf.range(30 * 60 * 3), [1, 30, 60, 3])
    _, second, *_ = seen = views._shifted(mirrored, 10)
    assert len(seen) == 10 == views.MOST
    np.testing.assert_array_equal(second(image, 0), image[:, :, ::-1])


@part
class Brighter:
    """Adds one drawn whole number to all pixels of the batch; the plan says which."""

    def resolved(self, spec):
        return self

    def draw(self, seed, shape):
        from descent import seeds

        return {"by": seeds.integers(seed, [], 1, 1000)}

    def apply(self, plan, inputs):
        return tf.cast(tf.cast(inputs, tf.int32) + plan["by"], inputs.dtype)


def test_the_runs_own_augmentation_is_drawn_past_its_end_and_again_the_same():
    run = built("augmentation.sample._target_=test_views.Brighter")
    raw, steps, batches = tf.zeros([4, 8, 8, 1], tf.int32), run.pipeline.steps, 3
    drawn = views._drawn(run.pipeline, 4, batches)
    amounts = [[int(view(raw, number)[0, 0, 0, 0]) for number in range(batches)] for view in drawn]
    assert amounts[0] == [0, 0, 0]
    flat = [amount for row in amounts[1:] for amount in row]
    assert len(set(flat)) == len(flat)
    assert flat == [training_amount(run.pipeline, steps + i) for i in range(len(flat))]
    first, again = (views.outcome(run, "validation", 3, "augmentation")[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def training_amount(pipeline: Pipeline, step: int) -> int:
    """What training would add at a step."""
    shape = [pipeline.batch_size, *pipeline.spec.shape]
    inputs, _ = pipeline._augment(tf.constant(step, tf.int64), tf.zeros(shape, tf.int32))
    return int(inputs[0, 0, 0, 0])


def test_real_targets_are_averaged_as_they_are():
    run = built("data.num_classes=null", "loss=mse", "regularization=none")
    targets, outputs, _ = views.outcome(run, "test", 2, "shift")
    raw = run.pipeline.source.gather("test", tf.range(len(targets)))[0]
    seen = [view(raw, 0) for view in views._shifted(run.pipeline.spec, 2)]
    expected = np.mean([run.state.model(tf.cast(x, tf.float32) / 255, training=False) for x in seen], axis=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_a_run_without_augmentation_says_what_to_do():
    with pytest.raises(UserError, match=r"^views=augmentation: the run augmented no samples; views=shift mirrors"):
        views.outcome(built(), "test", 2, "augmentation")


@pytest.mark.slow
@pytest.mark.figures
def test_evaluating_a_run_prints_what_its_summary_says_and_draws(folder):
    summary = compose(*QUICK).run(folder).summary
    done = evaluate(f"run={folder}", "split=test")
    printed = dict(line.split() for line in done.stdout.splitlines() if line.startswith("test/"))
    assert float(printed["test/accuracy"]) == pytest.approx(summary["test/accuracy"], rel=1e-5)
    assert float(printed["test/ece"]) == pytest.approx(summary["test/ece"], rel=1e-4)
    assert {"calibration_test.png", "confusion_test.png"} <= {p.name for p in (folder / "plots").iterdir()}
    averaged = evaluate(f"run={folder}", "split=validation", "tta=3", "views=shift")
    assert "val/accuracy" in averaged.stdout
    assert "val/loss" not in averaged.stdout
    assert (folder / "plots/calibration_validation_3_shift.png").exists()
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_more_views_than_there_are_is_an_error_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from evaluate import Evaluate

    Evaluate(run=str(tmp_path), tta=10, views="shift")
    Evaluate(run=str(tmp_path), tta=11)
    with pytest.raises(ValueError, match=r"tta=11: there are at most 10 views by views=shift"):
        Evaluate(run=str(tmp_path), tta=11, views="shift")


def evaluate(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/evaluate.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)

"""Metrics against scikit-learn, and operations against a count by hand."""

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from descent import metric
from descent.metric import Outcome
from descent.model import Cnn, Gru, Lstm, Mlp
from descent.regularization import Regularization
from descent.types import Spec


def spec(num_classes: int | None, shape: tuple[int, ...] = (8, 8, 1)) -> Spec:
    return Spec(kind="image", shape=shape, sizes={"train": 1}, num_classes=num_classes)


def classified(rows: int = 200, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, classes - 1, rows), rng.standard_normal((rows, classes)).astype(np.float32)


def regressed(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal(rows).astype(np.float32), rng.standard_normal((rows, 1)).astype(np.float32)


def test_accuracy_is_that_of_scikit_learn():
    targets, outputs = classified()
    record = metric.evaluate(spec(6), "test", Outcome(targets, outputs, np.ones(200)))
    expected = sklearn.metrics.accuracy_score(targets, outputs.argmax(axis=1))
    assert record == {"test/loss": 1.0, "test/accuracy": pytest.approx(expected, rel=1e-12)}


def test_mean_errors_are_those_of_scikit_learn():
    targets, outputs = regressed()
    record = metric.evaluate(spec(None), "validation", Outcome(targets, outputs, np.ones(200)))
    exact = targets.astype(float)
    assert record == {
        "val/loss": 1.0,
        "val/mse": pytest.approx(sklearn.metrics.mean_squared_error(exact, outputs[:, 0]), rel=1e-9),
        "val/mae": pytest.approx(sklearn.metrics.mean_absolute_error(exact, outputs[:, 0]), rel=1e-9),
        "val/r2": pytest.approx(sklearn.metrics.r2_score(exact, outputs[:, 0]), rel=1e-9),
    }


def test_the_loss_of_a_split_is_its_mean_in_double_precision():
    losses = np.full(3_000_001, 0.1, np.float32)
    losses[0] = 1e6
    record = metric.evaluate(spec(2), "train", Outcome(np.zeros(1, int), np.ones((1, 2)), losses))
    assert record["train/loss"] == pytest.approx((1e6 + 3e6 * float(np.float32(0.1))) / 3_000_001, rel=1e-12)


@pytest.mark.parametrize("num_classes", [6, None])
def test_what_is_evaluated_has_the_declared_names(num_classes):
    targets, outputs = classified() if num_classes else regressed()
    record = metric.evaluate(spec(num_classes), "validation", Outcome(targets, outputs, np.ones(200)))
    assert tuple(record) == tuple(f"val/{name}" for name in metric.names(spec(num_classes)))


def test_confusion_is_that_of_scikit_learn():
    targets, outputs = classified()
    table = metric.confusion(targets, outputs, 6)
    expected = sklearn.metrics.confusion_matrix(targets, outputs.argmax(axis=1), labels=range(6))
    assert np.array_equal(table, expected)
    assert not table[5].any()


def test_the_accuracy_of_a_batch_is_per_sample_and_by_the_larger_weight():
    targets = tf.constant([[0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]])
    outputs = tf.constant([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
    values = metric.on_batch(spec(3), targets, outputs)
    assert tuple(values) == metric.on_batch_names(spec(3))
    assert values["accuracy"].numpy().tolist() == [1, 0, 1]


def test_the_error_of_a_batch_is_per_sample():
    values = metric.on_batch(spec(None), tf.constant([[1.0], [2.0]]), tf.constant([[1.5], [-1.0]]))
    assert tuple(values) == metric.on_batch_names(spec(None))
    assert values["mae"].numpy().tolist() == [0.5, 3.0]


def test_flops_of_an_mlp_are_two_for_each_weight():
    model = Mlp(widths=(7, 5)).build(spec(3, (2, 3, 1)), Regularization())
    assert metric.flops(model) == 2 * (6 * 7 + 7 * 5 + 5 * 3)


def test_flops_of_a_cnn_are_two_for_each_weight_at_each_position():
    model = Cnn(widths=(4, 6), dense=5).build(spec(3, (7, 10, 2)), Regularization())
    # Blocks see 7x10 and, halved and rounded up, 4x5 positions; the head follows the pooled features.
    convolutions = 7 * 10 * (3 * 3 * 2 * 4) + 4 * 5 * (3 * 3 * 4 * 6)
    assert metric.flops(model) == 2 * (convolutions + 6 * 5 + 5 * 3)


def test_flops_of_strided_and_depthwise_convolutions():
    inputs = keras.Input([9, 8, 4])
    x = keras.layers.Conv2D(6, (3, 1), strides=2, padding="valid")(inputs)
    outputs = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    assert metric.flops(keras.Model(inputs, outputs)) == 2 * 4 * 4 * (3 * 4 * 6 + 9 * 6)


def test_flops_of_grouped_convolutions_count_each_group_by_itself():
    inputs = keras.Input([5, 5, 6])
    outputs = keras.layers.Conv2D(4, 1, groups=2)(inputs)
    assert metric.flops(keras.Model(inputs, outputs)) == 2 * 5 * 5 * (3 * 4)


def test_flops_of_attention_include_both_products():
    inputs = keras.Input([10, 8])
    outputs = keras.layers.MultiHeadAttention(2, 4)(inputs, inputs)
    projections, products = 4 * 10 * (8 * 2 * 4), 2 * 2 * (10 * 10 * 4)
    assert metric.flops(keras.Model(inputs, outputs)) == 2 * (projections + products)


@pytest.mark.parametrize(("kind", "parts"), [(Lstm, 4), (Gru, 3)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_flops_of_recurrent_layers_count_every_step_of_the_loop(kind: type, parts: int, bidirectional: bool):
    """A product of the inputs and one of the state at each of 9 words; the embeddings are looked up."""
    part = kind(embedding=6, width=5, bidirectional=bidirectional, shortcut=False)
    text = Spec(kind="text", shape=(9,), sizes={"train": 1, "validation": 1, "test": 1}, num_classes=3, vocabulary=8)
    directions = 1 + bidirectional
    expected = 2 * (directions * 9 * (6 + 5) * parts * 5 + directions * 5 * 3)
    assert metric.flops(part.build(text, Regularization())) == expected


def test_the_class_report_has_scikit_learns_precision_and_recall():
    targets, outputs = classified()
    lines = metric.class_report(metric.confusion(targets, outputs, 6), [f"class_{i}" for i in range(6)]).splitlines()
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        targets, outputs.argmax(axis=1), labels=range(6), zero_division=0
    )
    for i, line in enumerate(lines[1:]):
        assert line.split() == [
            f"class_{i}",
            f"{precision[i]:.3f}",
            f"{recall[i]:.3f}",
            f"{f1[i]:.3f}",
            str(support[i]),
        ]


def leaning(classes: int = 7, samples: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    targets = rng.integers(0, classes, samples)
    outputs = rng.standard_normal((samples, classes)).astype(np.float32)
    outputs[np.arange(samples), targets] += 1
    return targets, outputs


def test_final_metrics_are_scikit_learns():
    targets, outputs = leaning()
    record = metric.final(spec(7), "test", Outcome(targets, outputs))
    assert list(record) == [f"test/{name}" for name in metric.final_names(spec(7))]
    probabilities = metric.softmax(outputs)
    assert record["test/macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(targets, outputs.argmax(1), average="macro")
    )
    assert record["test/log_loss"] == pytest.approx(sklearn.metrics.log_loss(targets, probabilities, labels=range(7)))
    assert record["test/top5_accuracy"] == sklearn.metrics.top_k_accuracy_score(targets, outputs, k=5)


def test_calibration_error_by_hand():
    """Two bins of two samples: confidences .9 and .9 with one hit, .6 and .6 with two: (|.8| + |-.8|) / 4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metric.calibration_error(np.array([0, 1, 0, 0]), probabilities) == pytest.approx(0.4)


def test_reliability_of_probabilities_that_are_meant():
    """Labels drawn with the stated probability: each bin's accuracy is its confidence, to within four deviations."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 20_000)
    targets = (rng.uniform(size=len(sure)) > sure).astype(int)
    count, confidence, accuracy = metric.reliability(targets, np.stack([sure, 1 - sure], axis=1), 10)
    assert count.sum() == len(sure)
    assert (count[:5] == 0).all()
    deviation = np.sqrt(confidence[5:] * (1 - confidence[5:]) / count[5:])
    assert (np.abs(accuracy - confidence)[5:] < 4 * deviation).all()
    assert np.sum(count * confidence) == pytest.approx(sure.sum())
    assert np.sum(count * accuracy) == pytest.approx((targets == 0).sum())


@pytest.mark.parametrize("outputs", [[3.0, 3.0, 3.0], [3.0, 3.0, 4.0]])
def test_r2_of_targets_that_are_all_the_same_is_scikit_learns(outputs):
    targets = np.full(3, 3.0)
    assert metric.r2(targets, np.array(outputs) - targets) == sklearn.metrics.r2_score(targets, outputs)

"""Losses and their gradients against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from descent.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poly1,
)


def logits(scale: float, rows: int = 9, classes: int = 5) -> np.ndarray:
    return (scale * np.random.default_rng(0).standard_normal((rows, classes))).astype(np.float32)


def mixtures(rows: int = 9, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.ones(classes), rows).astype(np.float32)


def value_and_gradient(loss, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(points)
        values = loss(tf.constant(targets), points)
    return values.numpy(), tape.gradient(values, points).numpy()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_cross_entropy_is_minus_the_mean_log_probability(scale):
    z, t = logits(scale), mixtures()
    expected = -np.sum(t.astype(np.float64) * log_softmax(z.astype(np.float64), axis=1), axis=1)
    np.testing.assert_allclose(CrossEntropy()(tf.constant(t), tf.constant(z)), expected, rtol=2e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_the_gradient_of_cross_entropy_is_probability_minus_target(scale):
    z, t = logits(scale), mixtures()
    _, gradient = value_and_gradient(CrossEntropy(), t, z)
    np.testing.assert_allclose(gradient, softmax(z.astype(np.float64), axis=1) - t, atol=1e-6)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes():
    values = CrossEntropy()(tf.one_hot([0, 3, 6], 7), tf.fill([3, 7], 2.5))
    np.testing.assert_allclose(values, np.log(7), rtol=1e-6)


def test_cross_entropy_is_least_where_probabilities_are_the_targets():
    t = mixtures()
    _, gradient = value_and_gradient(CrossEntropy(), t, np.log(t))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_mean_squared_error_is_the_mean_over_outputs():
    z, t = logits(3.0), mixtures()
    expected = np.mean((t.astype(np.float64) - z) ** 2, axis=1)
    np.testing.assert_allclose(MeanSquaredError()(tf.constant(t), tf.constant(z)), expected, rtol=1e-6)


def test_the_gradient_of_mean_squared_error_is_twice_the_error_over_the_outputs():
    z, t = logits(3.0), mixtures()
    _, gradient = value_and_gradient(MeanSquaredError(), t, z)
    np.testing.assert_allclose(gradient, 2 * (z.astype(np.float64) - t) / 5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [CrossEntropy(), MeanSquaredError()])
def test_a_loss_is_one_number_per_sample_and_samples_do_not_mix(loss):
    z, t = logits(1.0), mixtures()
    values = loss(tf.constant(t), tf.constant(z)).numpy()
    alone = [loss(tf.constant(t[i : i + 1]), tf.constant(z[i : i + 1])).numpy()[0] for i in range(9)]
    assert values.shape == (9,)
    np.testing.assert_allclose(values, alone, rtol=1e-6)


def test_mean_squared_error_of_a_single_real_output_is_the_square():
    values = MeanSquaredError()(tf.constant([[1.0], [-2.0]]), tf.constant([[4.0], [-2.5]]))
    assert values.numpy().tolist() == [9.0, 0.25]


def reference(loss, t: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Each class loss from its formula, in float64."""
    log_p, p = log_softmax(z, axis=1), softmax(z, axis=1)
    match loss:
        case BinaryCrossEntropy():
            s = 1 / (1 + np.exp(-z))
            return -np.mean(t * np.log(s) + (1 - t) * np.log(1 - s), axis=1)
        case Focal():
            return -np.sum(t * (1 - p) ** loss.gamma * log_p, axis=1)
        case Poly1():
            return -np.sum(t * log_p, axis=1) + loss.epsilon * (1 - np.sum(t * p, axis=1))
    return -np.sum(t * log_p, axis=1)


CLASS_LOSSES = [CrossEntropy(), BinaryCrossEntropy(), Focal(), Focal(gamma=0.5), Poly1(), Poly1(epsilon=-0.5)]


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_a_class_loss_is_its_formula(loss, scale):
    t, z = mixtures(), logits(scale)
    expected = reference(loss, t.astype(np.float64), z.astype(np.float64))
    np.testing.assert_allclose(value_and_gradient(loss, t, z)[0], expected, rtol=3e-6)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
def test_a_class_loss_has_the_slope_of_its_formula(loss):
    """Central differences of the float64 formula."""
    t, z, h = mixtures().astype(np.float64), logits(1.0).astype(np.float64), 1e-6
    _, gradient = value_and_gradient(loss, mixtures(), logits(1.0))
    for j in range(z.shape[1]):
        bump = h * np.eye(z.shape[1])[j]
        slope = (reference(loss, t, z + bump) - reference(loss, t, z - bump)) / (2 * h)
        np.testing.assert_allclose(gradient[:, j], slope, atol=2e-6)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
def test_values_and_slopes_stay_finite_far_out(loss):
    values, gradient = value_and_gradient(loss, np.eye(5, dtype=np.float32)[[0, 1, 2]], logits(300.0, rows=3))
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [Focal(gamma=0), Poly1(epsilon=0)], ids=repr)
def test_without_its_dial_it_is_the_cross_entropy(loss):
    np.testing.assert_allclose(
        value_and_gradient(loss, mixtures(), logits(2.0))[0],
        value_and_gradient(CrossEntropy(), mixtures(), logits(2.0))[0],
        rtol=1e-6,
    )


@pytest.mark.parametrize("kind", [CrossEntropy, BinaryCrossEntropy, Focal, Poly1])
def test_class_weights_scale_a_sample_by_the_mean_under_its_labels(kind):
    factors, t, z = [1.0, 2.0, 0.5, 1.0, 3.0], mixtures(), logits(1.0)
    weighted = value_and_gradient(kind(class_weights=factors), t, z)[0]
    np.testing.assert_allclose(weighted, value_and_gradient(kind(), t, z)[0] * (t @ factors), rtol=1e-5)


def test_absolute_error_and_huber_are_their_formulas():
    t, z = logits(2.0, classes=1), logits(3.0, rows=9, classes=1)[::-1].copy()
    error = np.abs(t.astype(np.float64) - z)
    np.testing.assert_allclose(value_and_gradient(MeanAbsoluteError(), t, z)[0], error.mean(1), rtol=1e-6)
    for delta in (0.1, 1.0, 100.0):
        expected = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean(1)
        np.testing.assert_allclose(value_and_gradient(Huber(delta=delta), t, z)[0], expected, rtol=1e-5)


# --- how outputs are read ---


def probabilities(loss, outputs: np.ndarray) -> np.ndarray:
    return softmax(np.asarray(loss.logits(tf.constant(outputs)), np.float64), axis=1)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), BinaryCrossEntropy(), MeanSquaredError(), MeanAbsoluteError(), Huber()]
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_most_likely_class_is_that_of_the_largest_output(loss, scale):
    z = logits(scale)
    read = np.asarray(loss.logits(tf.constant(z)))
    np.testing.assert_array_equal(np.argsort(read, axis=1), np.argsort(z, axis=1))
    np.testing.assert_allclose(probabilities(loss, z).sum(axis=1), 1)


@pytest.mark.parametrize("loss", [MeanSquaredError(), MeanAbsoluteError(), Huber()])
def test_a_model_of_shares_that_is_right_is_calibrated(loss):
    """The squared error of one-hot classes is least at the classes' shares."""
    np.testing.assert_allclose(probabilities(loss, mixtures()), mixtures(), atol=2e-4)


def test_a_yes_or_no_for_each_class_is_scaled_to_one():
    z = logits(3.0)
    sure = 1 / (1 + np.exp(-z.astype(np.float64)))
    expected = sure / sure.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(BinaryCrossEntropy(), z), expected, rtol=1e-5)

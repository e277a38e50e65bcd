"""Sharpness-aware minimisation against a quadratic worked out by hand."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from descent.sharpness import NoSharpness, Sam

CURVATURE = np.array([1.0, 10.0])


def bowl(weight: tf.Variable, statistics: tf.Variable):
    """A pass over `w A w / 2` that, like batch norm, leaves a trace of itself in a statistic."""

    def compute():
        statistics.assign(weight.value())
        gradient = tf.constant(CURVATURE, tf.float32) * weight
        return {"loss": tf.reduce_sum(weight * gradient) / 2}, [gradient]

    return compute


def run(part, start=(3.0, 4.0)):
    weight, statistics = tf.Variable(start), tf.Variable([0.0, 0.0])
    record, gradients = tf.function(lambda: part(bowl(weight, statistics), [weight], [statistics]))()
    return record["loss"].numpy(), gradients[0].numpy(), weight.numpy(), statistics.numpy()


def test_the_gradient_is_that_of_the_worst_neighbour():
    first = CURVATURE * [3, 4]
    neighbour = np.array([3, 4]) + 0.1 * first / np.linalg.norm(first)
    _, gradient, _, _ = run(Sam(rho=0.1))
    np.testing.assert_allclose(gradient, CURVATURE * neighbour, rtol=1e-6)


def test_record_weights_and_statistics_are_those_of_the_first_pass():
    loss, _, weight, statistics = run(Sam(rho=0.1))
    assert loss == np.sum(CURVATURE * [9, 16]) / 2
    np.testing.assert_array_equal(weight, [3, 4])
    np.testing.assert_array_equal(statistics, [3, 4])


def test_a_zero_gradient_stays_finite():
    _, gradient, weight, _ = run(Sam(rho=0.1), start=(0.0, 0.0))
    np.testing.assert_array_equal(gradient, [0, 0])
    np.testing.assert_array_equal(weight, [0, 0])


def test_off_is_the_gradient_itself():
    _, gradient, _, _ = run(NoSharpness())
    np.testing.assert_array_equal(gradient, CURVATURE * [3, 4])

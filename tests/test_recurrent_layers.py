"""Recurrent layers against Keras' own: outputs and gradients, forwards and backwards, with padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.model.layers import noise
from descent.model.recurrent_layers import GRU, LSTM

PAIRS = {"lstm": (LSTM, keras.layers.LSTM), "gru": (GRU, keras.layers.GRU)}
BATCH, LENGTH, WIDTH, UNITS = 3, 6, 5, 4


def inputs() -> tuple[tf.Tensor, tf.Tensor]:
    """Vectors, and texts of 6, 2 and 1 words."""
    x = tf.constant(np.random.default_rng(0).standard_normal((BATCH, LENGTH, WIDTH)), tf.float32)
    return x, tf.sequence_mask([6, 2, 1], LENGTH, tf.float32)


def pair(name: str, **options):
    ours, theirs = PAIRS[name]
    backwards = options.get("backwards", False)
    mine, other = ours(UNITS, **options), theirs(
        UNITS, return_sequences=options.get("sequences", False), go_backwards=backwards
    )  # fmt: skip
    x, mask = inputs()
    mine([x, mask])
    other(x)
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(w.shape).astype(np.float32) for w in mine.get_weights()]
    mine.set_weights(weights)
    other.set_weights(weights)
    return mine, other


def gradients(call, x: tf.Tensor, variables) -> tuple[np.ndarray, list[np.ndarray]]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = call(x)
        loss = tf.reduce_sum(tf.sin(3.0 * outputs))
    found = tape.gradient(loss, [x, *(v.value for v in variables)])
    return outputs.numpy(), [g.numpy() for g in found]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_outputs_and_gradients_are_keras_own(name: str, backwards: bool, sequences: bool):
    mine, other = pair(name, backwards=backwards, sequences=sequences)
    x, mask = inputs()

    def theirs(x: tf.Tensor) -> tf.Tensor:
        outputs = other(x, mask=mask > 0)
        return outputs[:, ::-1] if backwards and sequences else outputs

    ours, our_gradients = gradients(lambda x: mine([x, mask]), x, mine.trainable_variables)
    expected, their_gradients = gradients(theirs, x, other.trainable_variables)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_with_recurrent_dropout_is_that_of_finite_differences(name: str):
    """In float64, as Keras draws its masks elsewhere: the mask is the same in every call with the same key."""
    layer = PAIRS[name][0](UNITS, recurrent_dropout=0.5, dtype="float64", name="layer")
    x, mask = (tf.cast(t[:2, :3], tf.float64) for t in inputs())

    def loss(x: tf.Tensor) -> tf.Tensor:
        with noise(tf.constant([1, 2], tf.int64)):
            return tf.reduce_sum(tf.sin(3 * layer([x, mask], training=True)))

    theory, numeric = tf.test.compute_gradient(loss, [x])
    np.testing.assert_allclose(theory, numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_recurrent_dropout_is_keyed_and_off_in_evaluation(name: str):
    layer, x = PAIRS[name][0](32, recurrent_dropout=0.5, name="layer"), inputs()

    def train(step: int) -> np.ndarray:
        with noise(tf.constant([1, step], tf.int64)):
            return layer(x, training=True).numpy()

    np.testing.assert_array_equal(train(1), train(1))
    assert np.abs(train(1) - train(2)).max() > 1e-3
    np.testing.assert_array_equal(layer(x), layer(x))


@pytest.mark.parametrize("name", PAIRS)
def test_a_fresh_layer_starts_as_keras_does(name: str):
    ours, theirs = (cls(UNITS) for cls in PAIRS[name])
    ours.build([(None, LENGTH, WIDTH), (None, LENGTH)])
    theirs.build((None, LENGTH, WIDTH))
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    np.testing.assert_array_equal(ours.get_weights()[2], theirs.get_weights()[2])
    recurrent = ours.get_weights()[1]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=1e-5)

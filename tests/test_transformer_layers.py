"""Layers of transformers: attention against Keras', positions and layer scale by their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.model.layers import Attention, FirstToken, LayerScale, Positions


def random(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), tf.float32)


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_keras_own(heads):
    x, width = random(2, 5, 12), 12
    theirs = keras.layers.MultiHeadAttention(heads, width // heads)
    expected = theirs(x, x)
    *projections, output = theirs.get_weights()[:6], theirs.get_weights()[6:]
    kernels, biases = projections[0][::2], projections[0][1::2]
    qkv = tf.concat([x @ k.reshape(width, width) + b.reshape(-1) for k, b in zip(kernels, biases, strict=True)], -1)
    kernel, bias = output
    ours = Attention(heads)(qkv) @ kernel.reshape(width, width) + bias
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_attention_is_the_formula_in_float64():
    qkv = random(2, 4, 18).numpy().astype(np.float64)
    q, k, v = (part.reshape(2, 4, 2, 3) for part in np.split(qkv, 3, axis=-1))
    scores = np.exp(np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(3))
    expected = np.einsum("bhij,bjhd->bihd", scores / scores.sum(-1, keepdims=True), v).reshape(2, 4, 6)
    np.testing.assert_allclose(Attention(2)(tf.constant(qkv, tf.float32)), expected, rtol=1e-5, atol=1e-6)


def test_alike_tokens_attend_to_the_mean_of_all_values():
    alike = np.repeat(random(2, 1, 8).numpy(), 5, axis=1)
    values = random(2, 5, 4, seed=1)
    outputs = Attention(2)(tf.concat([alike, values], -1))
    np.testing.assert_allclose(outputs, np.broadcast_to(values.numpy().mean(1, keepdims=True), (2, 5, 4)), rtol=1e-4)


@pytest.mark.parametrize("token", [False, True])
def test_positions_are_added_and_the_token_stands_first(token):
    layer, x = Positions(token=token), random(3, 4, 6)
    outputs = layer(x).numpy()
    assert outputs.shape == tuple(layer.compute_output_shape(x.shape)) == (3, 4 + token, 6)
    position = layer.position.numpy()
    np.testing.assert_allclose(outputs[:, token:], x + position[:, token:], rtol=1e-6)
    if token:
        first = np.broadcast_to(layer.first + position[:, :1], (3, 1, 6))
        np.testing.assert_allclose(FirstToken()(outputs), first[:, 0], rtol=1e-6)


def test_layer_scale_multiplies_channels():
    layer, x = LayerScale(1e-6), random(3, 2, 2, 5)
    np.testing.assert_allclose(layer(x), 1e-6 * x, rtol=1e-6)
    layer.gamma.assign([0.0, 1, 2, 3, 4])
    np.testing.assert_allclose(layer(x), x * [0.0, 1, 2, 3, 4], rtol=1e-6)


@pytest.mark.parametrize("layer", [LayerScale(0.5), Positions(token=True), Attention(2), FirstToken()])
def test_a_layer_comes_back_from_its_config(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again(random(2, 3, 12)).shape == layer(random(2, 3, 12)).shape

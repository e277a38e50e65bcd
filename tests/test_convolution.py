"""Our convolution against Keras', with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.model import convolution
from descent.model.convolution import Conv2D

SHAPES = [[4, 7, 7, 64], [3, 8, 5, 65], [2, 1, 1, 64]]


def results(layer: keras.layers.Layer, x: tf.Tensor, weights: list[np.ndarray]) -> list[tf.Tensor]:
    """Outputs, and gradients of inputs and weights, in float32."""
    layer.build(x.shape)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        value = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
    gradients = tape.gradient(value, [x, *(v.value for v in layer.trainable_variables)])
    return [tf.cast(tensor, tf.float32).numpy() for tensor in [outputs, *gradients]]


def given(shape: list[int], dtype: str, size: int = 3, filters: int = 7) -> tuple[tf.Tensor, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=[size, size, shape[-1], filters]), rng.normal(size=[filters])]
    return tf.cast(rng.normal(size=shape), dtype), [w.astype("f4") for w in weights]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [3, 5])
def test_the_other_way_to_the_gradient_is_the_same_sum(shape: list[int], size: int):
    """In float32, where both are exact to its rounding."""
    x, (kernel, _) = given(shape, "float32", size)
    found = []
    for convolve in (convolution.exchanged, lambda x, w: tf.nn.conv2d(x, w, 1, "SAME")):
        w = tf.constant(kernel)
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = convolve(x, w)
            value = tf.reduce_sum(y**2)
        found.append([y.numpy(), *(g.numpy() for g in tape.gradient(value, [x, w]))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", [*SHAPES, [2, 9, 8, 64], [2, 8, 8, 3]], ids=str)
def test_in_bfloat16_it_is_as_right_as_keras_own(shape: list[int]):
    """Sums are rounded on the way where a processor has no bfloat16 of its own: both are held against float32."""
    x, weights = given(shape, "bfloat16")
    weights = [tf.cast(tf.cast(w, "bfloat16"), "float32").numpy() for w in weights]
    settings = {"filters": 7, "kernel_size": 3, "padding": "same"}
    kinds = (Conv2D, "mixed_bfloat16"), (keras.layers.Conv2D, "mixed_bfloat16"), (keras.layers.Conv2D, "float32")
    inputs = (x, x, tf.cast(x, "float32"))
    ours, theirs, exact = (
        results(kind(**settings, dtype=dtype), value, weights)
        for (kind, dtype), value in zip(kinds, inputs, strict=True)
    )
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        allowed = max(2**-7 * np.abs(true).max(), 1.5 * np.abs(other - true).max())
        np.testing.assert_allclose(mine, true, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("changes", "shape", "dtype", "exchanged"),
    [
        ({}, [2, 8, 8, 64], "bfloat16", True),
        ({}, [2, 8, 8, 64], "float32", False),
        ({}, [2, 9, 8, 64], "bfloat16", False),
        ({}, [2, 8, 8, 63], "bfloat16", False),
        ({"strides": 2}, [2, 8, 8, 64], "bfloat16", False),
        ({"padding": "valid"}, [2, 8, 8, 64], "bfloat16", False),
        ({"dilation_rate": 2}, [2, 8, 8, 64], "bfloat16", False),
        ({"groups": 2, "filters": 4}, [2, 8, 8, 64], "bfloat16", False),
        ({"kernel_size": 1}, [2, 8, 8, 64], "bfloat16", False),
        ({"kernel_size": 2}, [2, 8, 8, 64], "bfloat16", False),
    ],
    ids=str,
)
def test_where_it_is_used(monkeypatch, changes: dict[str, object], shape: list[int], dtype: str, exchanged: bool):
    calls = []
    plain = convolution.exchanged
    monkeypatch.setattr(convolution, "exchanged", lambda x, w: calls.append(x) or plain(x, w))
    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    layer = Conv2D(**{"filters": 7, "kernel_size": 3, "padding": "same", "dtype": policy, **changes})
    layer(tf.zeros(shape, dtype), training=True)
    assert bool(calls) == exchanged

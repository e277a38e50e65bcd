"""Adaptive gradient clipping against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.clipping import Adaptive

RNG = np.random.default_rng(0)
SHAPES = {
    "conv/kernel": (3, 3, 2, 4),
    "conv/bias": (4,),
    "depthwise/kernel": (3, 3, 4, 1),
    "dense/kernel": (4, 5),
    "head/kernel": (5, 3),
    "head/bias": (3,),
}


def variables(scale: float = 1.0) -> list[keras.Variable]:
    made = []
    for path, shape in SHAPES.items():
        variable = keras.Variable(scale * RNG.standard_normal(shape).astype(np.float32), name=path.split("/")[1])
        variable._path = path
        made.append(variable)
    return made


def unit_norm(x: np.ndarray) -> np.ndarray:
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    axes = (0, 1) if x.shape == SHAPES["depthwise/kernel"] else axes  # each channel has a filter of its own
    return np.sqrt((x.astype(np.float64) ** 2).sum(axis=axes, keepdims=True))


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_each_unit_is_bounded_by_a_share_of_its_weights(size):
    weights = variables()
    gradients = [size * RNG.standard_normal(v.shape).astype(np.float32) for v in weights]
    clipped = Adaptive(clipping=0.02)([tf.constant(g) for g in gradients], weights)
    for weight, before, after in zip(weights, gradients, clipped, strict=True):
        limit = 0.02 * np.maximum(unit_norm(weight.numpy()), 1e-3)
        expected = before * np.minimum(1, limit / unit_norm(before))
        expected = before if weight.path.startswith("head") else expected
        np.testing.assert_allclose(after.numpy(), expected, rtol=2e-6)


def test_zero_weights_can_grow():
    """The floor of the norm lets a gradient of up to clipping * floor through."""
    weights = variables(scale=0.0)
    clipped = Adaptive(clipping=0.01, floor=1e-3)([tf.ones(v.shape) for v in weights], weights)
    assert unit_norm(clipped[0].numpy()) == pytest.approx(1e-5, rel=1e-5)


def test_a_zero_gradient_stays_zero():
    weights = variables()
    for gradient in Adaptive()([tf.zeros(v.shape) for v in weights], weights):
        assert not np.any(gradient.numpy())

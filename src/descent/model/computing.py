"""How the device at hand computes in bfloat16.

Imported when a model is built, never before: it imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from descent import processor


def on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def emulates(dtype: tf.DType) -> bool:
    """Whether this is bfloat16 on a CPU without instructions for it, where TensorFlow takes ten times as long."""
    return dtype == tf.bfloat16 and on_cpu() and not processor.multiplies_bfloat16()


def wide(x: tf.Tensor) -> tf.Tensor:
    """The tensor as kernels are fast on it: float32 where bfloat16 is emulated."""
    return tf.cast(x, tf.float32) if emulates(x.dtype) else x


def widened(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`function` of bfloat16 tensors by way of float32, as instructions for bfloat16 have it: products are not rounded.

    The result is float32: what takes it rounds it, and a norm does so at its own end. What is kept for the gradient
    are the operands as they came, in two bytes each.
    """

    @tf.custom_gradient
    def call(*operands: tf.Tensor) -> object:
        def backward(dy: tf.Tensor) -> list[tf.Tensor]:
            with tf.control_dependencies([dy]):  # widened anew; to keep them would take twice the memory
                given = [tf.cast(tf.identity(x), tf.float32) for x in operands]
            with tf.GradientTape() as tape:
                tape.watch(given)
                outputs = function(*given)
            gradients = tape.gradient(outputs, given, dy)
            return [tf.cast(gradient, x.dtype) for gradient, x in zip(gradients, operands, strict=True)]

        return function(*(tf.cast(x, tf.float32) for x in operands)), backward

    return call


def pooling() -> str | None:
    """The policy of max pooling: float32, of which the maximum is the same, where that is faster; else the run's."""
    emulated = emulates(tf.as_dtype(keras.config.dtype_policy().compute_dtype))
    return "float32" if emulated else None

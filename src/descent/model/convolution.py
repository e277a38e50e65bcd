"""Keras' convolution, with faster ways for training on a CPU.

Imported when a model is built, never before: subclassing a Keras layer imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from descent import processor
from descent.model import computing, winograd

Way = Callable[[tf.Tensor, tf.Tensor], Any]
# In bfloat16, measured with 32 to 512 images of 4x4 to 8x8: `exchanged` is 1.0 to 1.9 times as fast as the kernel's
# gradient of oneDNN. Larger images, fewer channels and float32 lose.
LARGEST, FEWEST = 8, 64
# In float32, measured with AVX2 on 8 to 128 images of 6x6 to 32x32: with 64 channels Winograd's way is 1.0 to 1.6 times
# as fast, forward and backward, with 256 up to 2.6; larger images of 64 channels lose, as do fewer channels. Where
# vectors are twice as long, products take half the time and everything else as long: it needs twice the channels.
LARGEST_TILED, FEWEST_TILED = 32, {"avx512f": 128, "avx2": 64}


@keras.saving.register_keras_serializable("descent")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer, weights and all, which computes in other ways in training where those are faster."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        way = self._fast(inputs, training) if isinstance(inputs, tf.Tensor) else None
        if way is None:
            return super().call(inputs)
        outputs = way(inputs, tf.convert_to_tensor(self.kernel))
        return self.activation(outputs + tf.cast(self.bias, outputs.dtype) if self.use_bias else outputs)

    def _fast(self, inputs: tf.Tensor, training: bool) -> Way | None:
        if computing.emulates(inputs.dtype):
            return computing.widened(lambda x, kernel: ((training and self._way(x)) or self.convolution_op)(x, kernel))
        return self._way(inputs) if training else None

    def _way(self, inputs: tf.Tensor) -> Way | None:
        rows, columns, channels = inputs.shape[1:]
        plain = set(self.strides) == set(self.dilation_rate) == {1} and self.groups == 1 and self.padding == "same"
        if not plain or self.data_format != "channels_last" or not (rows and columns):
            return None
        if not computing.on_cpu():
            return None
        if inputs.dtype == tf.bfloat16 and self._exchanges(max(rows, columns), channels):
            return exchanged
        if inputs.dtype == tf.float32 and self._tiles(rows, columns, min(channels, self.filters)):
            return winograd.convolved
        return None

    def _exchanges(self, largest: int, channels: int) -> bool:
        odd = all(size % 2 for size in self.kernel_size) and max(self.kernel_size) > 1
        return odd and largest <= LARGEST and channels >= FEWEST

    def _tiles(self, rows: int, columns: int, channels: int) -> bool:
        known = [least for name, least in FEWEST_TILED.items() if name in processor.instructions()]
        wide = bool(known) and channels >= known[0] and max(rows, columns) <= LARGEST_TILED
        return wide and self.kernel_size == (3, 3) and winograd.saves(rows, columns)


@tf.custom_gradient
def exchanged(x: tf.Tensor, kernel: tf.Tensor) -> object:
    """The convolution of images [b h w c], padded with zeros, with an odd kernel [k l c d] at stride 1.

    The kernel's gradient is a convolution too: of the images with their gradient as the kernel, the batch and the
    channels changing places. oneDNN is faster at that than at the gradient itself.
    """
    rows, columns = (size // 2 for size in kernel.shape[:2])

    def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, weights = tf.transpose(x, [3, 1, 2, 0]), tf.transpose(dy, [1, 2, 0, 3])
        margins = [[0, 0], [rows, rows], [columns, columns], [0, 0]]
        dkernel = tf.transpose(tf.nn.conv2d(images, weights, 1, margins), [1, 2, 0, 3])
        dx = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, strides=[1] * 4, padding="SAME"
        )
        return dx, dkernel

    return tf.nn.conv2d(x, kernel, 1, "SAME"), backward

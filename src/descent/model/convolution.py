"""Keras' convolution, whose kernel learns faster from small images in bfloat16.

Imported when a model is built, never before: subclassing a Keras layer imports TensorFlow.
"""

from __future__ import annotations

import keras
import tensorflow as tf

# Measured with 32 to 512 images of 4x4 to 8x8: 1.0 to 1.9 times as fast as the kernel's gradient of oneDNN. Larger
# images, fewer channels and float32 lose.
LARGEST, FEWEST = 8, 64


@keras.saving.register_keras_serializable("descent")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer, weights and all, with another way to the kernel's gradient where that is faster."""

    def convolution_op(self, inputs: tf.Tensor, kernel: keras.Variable) -> tf.Tensor:
        if not self._exchanges(inputs):
            return super().convolution_op(inputs, kernel)
        return convolved(inputs, tf.convert_to_tensor(kernel))

    def _exchanges(self, inputs: tf.Tensor) -> bool:
        if not isinstance(inputs, tf.Tensor) or inputs.dtype != tf.bfloat16 or tf.config.list_physical_devices("GPU"):
            return False
        rows, columns, channels = inputs.shape[1:]
        small = max(rows or LARGEST + 1, columns or LARGEST + 1) <= LARGEST and channels >= FEWEST
        plain = set(self.strides) == set(self.dilation_rate) == {1} and self.groups == 1 and self.padding == "same"
        odd = all(size % 2 for size in self.kernel_size) and max(self.kernel_size) > 1
        return small and plain and odd and self.data_format == "channels_last"


@tf.custom_gradient
def convolved(x: tf.Tensor, kernel: tf.Tensor) -> object:
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

"""Losses: one number per sample. Weighting, averaging and penalties are the step's.

A loss that is not of the softmax says by `logits` how a model that was trained with it is read: the softmax of these is
the probability of each class. They are computed by Keras' operations, so that an exported model has them too.
"""

from __future__ import annotations

from typing import ClassVar

from etils import epy

from descent.types import NonNegative, Number, Positive, Weights, part

with epy.lazy_imports():
    import keras
    import tensorflow as tf

LEAST = 1e-4  # share of a class whose output is not above 0


@part
class ClassLoss:
    """A loss of logits z and a distribution t over classes: `b n` and `b n` to `b`.

    Attributes:
        class_weights: a factor for each class; a sample's is the mean of them under its labels. Empty: all 1.
    """

    needs_classes: ClassVar[bool] = True

    class_weights: Weights = ()

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        losses = self.losses(targets, outputs)
        if not self.class_weights:
            return losses
        return losses * tf.linalg.matvec(targets, tf.constant(self.class_weights, targets.dtype))

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return outputs


@part
class CrossEntropy(ClassLoss):
    """`-sum_n t_n log softmax(z)_n`."""

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax_cross_entropy_with_logits(targets, outputs)


@part
class BinaryCrossEntropy(ClassLoss):
    """`-mean_n [t_n log s(z_n) + (1 - t_n) log(1 - s(z_n))]`: a yes or no for each class.

    With mixing it lets both labels of a mixture be present (Wightman et al. 2021, "ResNet strikes back", 4.1).
    A class's probability is its `s(z_n)`, scaled so that all sum to 1.
    """

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return keras.ops.log_sigmoid(outputs)

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, outputs), axis=-1)


@part
class Focal(ClassLoss):
    """`-sum_n t_n (1 - p_n)^gamma log p_n`, p the softmax (Lin et al. 2017, eq. 4): easy samples count less.

    Attributes:
        gamma: how much less; 0 is the cross-entropy.
    """

    gamma: NonNegative = 2.0

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        log_p = tf.nn.log_softmax(outputs)
        # 1 - p from the log, so that it keeps its digits (and its gradient) where p is nearly 1.
        rest = tf.maximum(-tf.math.expm1(log_p), 1e-12)
        return -tf.reduce_sum(targets * rest**self.gamma * log_p, axis=-1)


@part
class Poly1(ClassLoss):
    """`cross-entropy + epsilon (1 - sum_n t_n p_n)` (Leng et al. 2022, eq. 6).

    Attributes:
        epsilon: weight of the first polynomial term; 0 is the cross-entropy.
    """

    epsilon: Number = 1.0

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        hit = tf.reduce_sum(targets * tf.nn.softmax(outputs), axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(targets, outputs) + self.epsilon * (1 - hit)


class RealLoss:
    """A loss of real outputs. Against one-hot classes an output is about the class's probability."""

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Logarithms of outputs above `LEAST`; those below go on falling, so that their order stays."""
        floor = keras.ops.maximum(outputs, LEAST)
        return keras.ops.log(floor) + keras.ops.minimum(outputs - LEAST, 0.0)


@part
class MeanSquaredError(RealLoss):
    """`mean_n (t_n - z_n)^2`: real targets, or raw outputs against one-hot classes (Hui & Belkin 2021)."""

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.math.squared_difference(targets, outputs), axis=-1)


@part
class MeanAbsoluteError(RealLoss):
    """`mean_n |t_n - z_n|`: the median, where the squared error gives the mean."""

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.abs(targets - outputs), axis=-1)


@part
class Huber(RealLoss):
    """`mean_n h(t_n - z_n)`, `h(e) = e^2 / 2` up to delta and `delta (|e| - delta / 2)` beyond (Huber 1964).

    Attributes:
        delta: error from which the loss grows linearly, in the unit of the target, or its deviation where standardised.
    """

    delta: Positive = 1.0

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        error = tf.abs(targets - outputs)
        inner = tf.minimum(error, self.delta)
        return tf.reduce_mean(0.5 * inner**2 + self.delta * (error - inner), axis=-1)

"""Precision of a run, and the scaling of the loss that half precision needs."""

from __future__ import annotations

from typing import Literal

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


class NoScaling:
    """float32 and bfloat16 have the range: the loss as it is, no state."""

    def __init__(self) -> None:
        self.variables: list[tf.Variable] = []

    def scale(self) -> tf.Tensor:
        return tf.ones([])

    def update(self, finite: tf.Tensor) -> None:
        """Nothing to do."""


class DynamicScaling(NoScaling):
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, section 3.2).

    The scale is halved after a step that was not finite (which is skipped), and doubled after `patience` good ones.
    """

    def __init__(self, initial: float = 2.0**15, patience: int = 2000) -> None:
        self.patience = patience
        self.value = tf.Variable(initial, trainable=False, dtype=tf.float32)
        self.good = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.variables = [self.value, self.good]

    def scale(self) -> tf.Tensor:
        return self.value.value()

    def update(self, finite: tf.Tensor) -> None:
        good = tf.where(finite, self.good + 1, tf.zeros([], tf.int64))
        grown = tf.where(good >= self.patience, self.value * 2, self.value.value())
        self.value.assign(tf.where(finite, grown, tf.maximum(self.value / 2, 1.0)))
        self.good.assign(tf.where(good >= self.patience, tf.zeros([], tf.int64), good))


def scaling(precision: Precision) -> NoScaling:
    return DynamicScaling() if precision == "mixed_float16" else NoScaling()

"""Gradient clipping: bounds on gradients, applied after non-finite ones have been detected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epy

from descent.norm import norm_of, unit_axes
from descent.types import Positive, part

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras


@part
class NoClipping:
    """Gradients as they are."""

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return list(gradients)


@part
class Value:
    """Each entry is cut to [-max_value, max_value]. Changes the direction of the gradient.

    Attributes:
        max_value: bound on the magnitude of an entry.
    """

    max_value: Positive = 0.5

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return [tf.clip_by_value(g, -self.max_value, self.max_value) for g in gradients]


@part
class Norm:
    """Each variable's gradient is scaled to `min(||g||, c) / ||g||` of itself: its own norm is at most c.

    Attributes:
        max_norm: bound c on the Euclidean norm of one variable's gradient.
    """

    max_norm: Positive = 1.0

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return [g * _shrink(norm_of([g]), self.max_norm) for g in gradients]


@part
class GlobalNorm:
    """All gradients are scaled by `min(1, c / ||g||)` of their joint norm (Pascanu et al. 2013, algorithm 1).

    Attributes:
        max_norm: bound c on the Euclidean norm of all gradients together.
    """

    max_norm: Positive = 1.0

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        scale = _shrink(norm_of(gradients), self.max_norm)
        return [g * scale for g in gradients]


@part
class Adaptive:
    """Adaptive gradient clipping: each unit's gradient is at most a share of the unit's weights in norm.

    `g = g * min(1, clipping * max(||w||, floor) / ||g||)` for each unit, that is for each output of a kernel and
    for a whole vector (Brock et al. 2021, eq. 3, and section 4.1 for the output layer, which is left out).

    Attributes:
        clipping: largest ratio of a gradient's norm to its weights' norm.
        floor: norm that weights are taken to have at least, so that zero weights can grow.
    """

    clipping: Positive = 0.01
    floor: Positive = 1e-3

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
        head = variables[-1].path.rpartition("/")[0]
        return [
            g if v.path.rpartition("/")[0] == head else g * self._scale(g, v.value)
            for g, v in zip(gradients, variables, strict=True)
        ]

    def _scale(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        limit = self.clipping * tf.maximum(_unit_norm(weight), self.floor)
        norm = _unit_norm(gradient)
        return tf.where(norm > limit, limit / tf.maximum(norm, 1e-30), tf.ones_like(norm))


def _unit_norm(x: tf.Tensor) -> tf.Tensor:
    """The norm of each unit of a kernel, or of a whole vector."""
    axes = unit_axes(x) if len(x.shape) > 1 else None
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=axes, keepdims=True))


def _shrink(norm: tf.Tensor, limit: float) -> tf.Tensor:
    """min(1, limit / norm); exactly 1 where the norm is short, so that a short gradient is untouched."""
    return tf.where(norm > limit, limit / norm, tf.ones_like(norm))

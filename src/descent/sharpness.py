"""Sharpness: whether the gradient is taken at the weights, or at the worst point near them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etils import epy

from descent.norm import norm_of
from descent.types import Pass, Positive, part

with epy.lazy_imports():
    import tensorflow as tf


@part
class NoSharpness:
    """The gradient at the weights."""

    def __call__(
        self, compute: Callable[[], Pass], weights: Sequence[tf.Variable], others: Sequence[tf.Variable]
    ) -> Pass:
        return compute()


@part
class Sam:
    """Sharpness-aware minimisation (Foret et al. 2021, eqs. 2-3): the gradient at `w + rho g / ||g||`.

    Two passes a step, with the same dropout masks. Losses, metrics and the batch-norm statistics are those of
    the first pass, at the weights themselves; the gradient, its norm and its clipping those of the second.

    Attributes:
        rho: radius of the neighbourhood.
    """

    rho: Positive = 0.05

    def __call__(
        self, compute: Callable[[], Pass], weights: Sequence[tf.Variable], others: Sequence[tf.Variable]
    ) -> Pass:
        record, gradients = compute()
        before, after_first = ([tf.identity(v) for v in group] for group in (weights, others))
        stride = self.rho / (norm_of(gradients) + 1e-12)
        with tf.control_dependencies([*before, *after_first]):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.assign_add(stride * gradient)
            _, sharp = compute()
        with tf.control_dependencies(sharp):
            for variable, value in zip([*weights, *others], [*before, *after_first], strict=True):
                variable.assign(value)
        return record, sharp

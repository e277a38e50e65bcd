"""An optimizer whose every replica updates its own copies.

Imported when an optimizer is built, never before: subclassing a Keras optimizer imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Direct(keras.optimizers.Optimizer):
    """Gradients come summed over replicas, the same on each: so are the updates, and nothing is to be said.

    Keras sums them itself, and updates between replicas, which TensorFlow allows neither in a loop nor in a condition.
    Even with one replica its sum has a gradient, which TensorFlow keeps for ever, with the graph it is in: seven
    megabytes a job in a process that runs many.
    """

    def _backend_update_step(self, grads: Sequence[tf.Tensor], trainable_variables: Any, learning_rate: Any) -> None:
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable.value, learning_rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        if self.weight_decay is None:
            return
        for variable in variables:
            if self._use_weight_decay(variable):
                value = variable.value
                decay, rate = (tf.cast(x, value.dtype) for x in (self.weight_decay, self.learning_rate))
                value.assign_sub(value * decay * rate)


def direct(optimizer: keras.Optimizer) -> keras.Optimizer:
    """The same optimizer, updating directly; what its own class does of the above stays."""
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (kind, Direct), {})
    return optimizer

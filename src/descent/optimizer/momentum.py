"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import Any

from etils import epy

from descent.optimizer.base import Optimizer
from descent.types import Flag, Positive, ProperFraction, part

with epy.lazy_imports():
    import keras


@part
class SGD(Optimizer):
    """`w = w - lr g`, with momentum `v = m v - lr g; w = w + v`, or Nesterov's `w = w + m v - lr g`.

    Sutskever et al. 2013, eqs. 1-4, as Keras computes it: the rate is folded into the velocity, so a change of the
    rate reaches the steps only as old gradients fade. With `fold_rate` off it is torch's (`dampening` 0):
    `v = m v + g; w = w - lr v`, Nesterov's `w = w - lr (g + m v)`; a change of the rate scales the whole
    velocity at once. Under a constant rate both are the same.

    Attributes:
        momentum: the m above; 0 for plain gradient descent.
        nesterov: look ahead along the velocity.
        fold_rate: the velocity holds steps (Keras), not gradients (torch).
    """

    learning_rate: Positive = 0.1
    momentum: ProperFraction = 0.0
    nesterov: Flag = False
    fold_rate: Flag = True

    def create(self, **common: Any) -> keras.Optimizer:
        if self.fold_rate:
            return keras.optimizers.SGD(momentum=self.momentum, nesterov=self.nesterov, **common)
        from descent.optimizer.rules import Momentum

        return Momentum(momentum=self.momentum, nesterov=self.nesterov, **common)

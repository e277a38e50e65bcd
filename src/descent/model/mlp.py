"""The multilayer perceptron."""

from __future__ import annotations

from typing import Literal

from etils import epy

from descent.model.base import Initializer, finish, kernels, start
from descent.types import Counts, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class Mlp:
    """Dense layers with a nonlinearity and dropout after each.

    Attributes:
        widths: units of each hidden layer.
        activation: nonlinearity.
        initializer: how kernels start.
    """

    widths: Counts = (128, 128)
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout

        inputs, x = start(spec)
        x = keras.layers.Flatten(name="flatten")(x)
        rates = regularization.rates("dropout", len(self.widths))
        for i, (width, rate) in enumerate(zip(self.widths, rates, strict=True)):
            begin = kernels(self.initializer)
            x = keras.layers.Dense(width, self.activation, kernel_initializer=begin, name=f"dense_{i}")(x)
            x = Dropout(rate, name=f"dropout_{i}")(x)
        return finish(inputs, x, spec, name="mlp")

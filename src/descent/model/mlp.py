"""The multilayer perceptron."""

from __future__ import annotations

from typing import ClassVar, Literal

from etils import epy

from descent.model.base import Initializer, finish, kernels, start
from descent.types import Counts, Flag, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class Mlp:
    """Dense layers with a nonlinearity and dropout after each.

    Attributes:
        widths: units of each hidden layer.
        activation: nonlinearity.
        norm: between a layer and its nonlinearity: none, batch (Ioffe & Szegedy 2015) or layer (Ba et al. 2016).
        residual: add what goes into a layer to what comes out, where both have the same width (He et al. 2016).
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image", "tabular")

    widths: Counts = (128, 128)
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    norm: Literal["none", "batch", "layer"] = "none"
    residual: Flag = False
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout

        inputs, x = start(spec)
        x = keras.layers.Flatten(name="flatten")(x)
        rates = regularization.rates("dropout", len(self.widths))
        for i, (width, rate) in enumerate(zip(self.widths, rates, strict=True)):
            before = x
            x = Dropout(rate, name=f"dropout_{i}")(self._layer(x, width, i))
            if self.residual and before.shape[-1] == width:
                x = keras.layers.Add(name=f"add_{i}")([before, x])
        return finish(inputs, x, spec, name="mlp")

    def _layer(self, x: keras.KerasTensor, width: int, i: int) -> keras.KerasTensor:
        """Dense and nonlinear; a norm between them swallows the bias of a batch norm, so that layer has none."""
        from descent.model.layers import BatchNormalization

        begin, layers = kernels(self.initializer), keras.layers
        if self.norm == "none":
            return layers.Dense(width, self.activation, kernel_initializer=begin, name=f"dense_{i}")(x)
        biased = self.norm == "layer"
        x = layers.Dense(width, use_bias=biased, kernel_initializer=begin, name=f"dense_{i}")(x)
        name = f"norm_{i}"
        norm = BatchNormalization(name=name) if self.norm == "batch" else layers.LayerNormalization(name=name)
        return layers.Activation(self.activation, name=f"activation_{i}")(norm(x))

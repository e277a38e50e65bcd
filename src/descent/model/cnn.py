"""A plain convolutional network."""

from __future__ import annotations

from typing import ClassVar

from etils import epy

from descent.model.base import Initializer, finish, kernels, start
from descent.types import Count, Counts, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class Cnn:
    """Blocks of convolution, batch norm, pooling, ReLU and spatial dropout; global pooling; a dense layer.

    Max pooling comes before the ReLU: they commute, and the ReLU then works on a quarter of the values. Layers
    before a batch norm have no bias, which its offset would swallow.

    Attributes:
        widths: channels of each block; each block halves rows and columns.
        dense: units of the dense layer.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    widths: Counts = (64, 128, 256)
    dense: Count = 256
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model import computing
        from descent.model.convolution import Conv2D
        from descent.model.layers import BatchNormalization, Dropout

        layers = keras.layers
        inputs, x = start(spec)
        rates = regularization.rates("spatial_dropout", len(self.widths))
        for i, (width, rate) in enumerate(zip(self.widths, rates, strict=True)):
            begin = kernels(self.initializer)
            x = Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=begin, name=f"conv_{i}")(x)
            x = BatchNormalization(name=f"norm_{i}")(x)
            x = layers.MaxPooling2D(2, padding="same", name=f"pool_{i}", dtype=computing.pooling())(x)
            x = layers.ReLU(name=f"relu_{i}")(x)
            x = Dropout(rate, spatial=True, name=f"spatial_dropout_{i}")(x)
        x = layers.GlobalAveragePooling2D(name="global_pool")(x)
        begin = kernels(self.initializer)
        x = layers.Dense(self.dense, use_bias=False, kernel_initializer=begin, name="dense")(x)
        x = BatchNormalization(name="norm_dense")(x)
        x = layers.ReLU(name="relu_dense")(x)
        x = Dropout(regularization.rates("dropout", 1)[0], name="dropout")(x)
        return finish(inputs, x, spec, name="cnn")

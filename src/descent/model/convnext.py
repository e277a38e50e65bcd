"""The convolutional network with the manners of a transformer."""

from __future__ import annotations

from typing import ClassVar

from etils import epy

from descent.model.base import Initializer, dense, finish, kernels, layer_norm, start
from descent.types import Count, Counts, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class ConvNeXt:
    """ConvNeXt (Liu et al. 2022, section 2 and figure 4), for small images: its stem keeps rows and columns.

    A block is a depthwise 7x7 convolution, layer norm, and a dense layer to four times the width and back, with
    GELU between; layer scale starts at 1e-6. Between stages stand layer norm and a strided 2x2 convolution.
    A layer norm is over channels and does not swallow the bias of each, so convolutions keep theirs, as in the
    paper. Spatial dropout comes after each block, dropout before the head.

    Attributes:
        widths: channels of each stage.
        blocks: blocks in each stage; as many numbers as `widths`.
        patch: rows and columns of the patches the stem cuts; 1 for a 3x3 convolution of stride 1, 4 in the paper.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    widths: Counts = (96, 192, 384, 768)
    blocks: Counts = (3, 3, 9, 3)
    patch: Count = 1
    initializer: Initializer = "truncated_normal"

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"widths has {len(self.widths)} stages and blocks has {len(self.blocks)}; as many of each")

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout

        inputs, x = start(spec)
        places = [(stage, block) for stage, count in enumerate(self.blocks) for block in range(count)]
        depth, spatial = (regularization.rates(kind, len(places)) for kind in ("stochastic_depth", "spatial_dropout"))
        for (stage, block), skip, rate in zip(places, depth, spatial, strict=True):
            name = f"stage_{stage}_block_{block}"
            if not block:
                x = self._entry(x, stage)
            x = self._block(x, skip, name)
            x = Dropout(rate, spatial=True, name=f"{name}_dropout")(x)
        x = layer_norm(keras.layers.GlobalAveragePooling2D(name="global_pool")(x), "last")
        x = Dropout(regularization.rates("dropout", 1)[0], name="dropout")(x)
        return finish(inputs, x, spec, name="convnext")

    def _entry(self, x: keras.KerasTensor, stage: int) -> keras.KerasTensor:
        """Into a stage: the stem, or norm and a convolution that halves rows and columns."""
        width = self.widths[stage]
        if stage:
            return self._convolution(layer_norm(x, f"stage_{stage}_entry"), width, 2, 2, f"stage_{stage}_entry")
        return layer_norm(self._convolution(x, width, 3 if self.patch == 1 else self.patch, self.patch, "stem"), "stem")

    def _convolution(self, x: keras.KerasTensor, width: int, size: int, stride: int, name: str) -> keras.KerasTensor:
        begin = kernels(self.initializer)
        layer = keras.layers.Conv2D(width, size, stride, padding="same", kernel_initializer=begin, name=f"{name}_conv")
        return layer(x)

    def _block(self, x: keras.KerasTensor, skip: float, name: str) -> keras.KerasTensor:
        from descent.model.layers import LayerScale, StochasticDepth

        width, begin = x.shape[-1], kernels(self.initializer)
        y = keras.layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=begin, name=f"{name}_depthwise")(x)
        y = dense(layer_norm(y, name), 4 * width, self.initializer, f"{name}_dense_1", "gelu")
        y = dense(y, width, self.initializer, f"{name}_dense_2")
        y = StochasticDepth(skip, name=f"{name}_depth")(LayerScale(1e-6, name=f"{name}_scale")(y))
        return keras.layers.Add(name=f"{name}_add")([x, y])

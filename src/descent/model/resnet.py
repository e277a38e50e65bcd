"""Residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from descent.model.base import Initializer, finish, kernels, start
from descent.types import Count, Counts, Flag, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class ResNet20:
    """The CIFAR residual network of He et al. 2016, section 4.2: three stages of n blocks, 6n + 2 layers.

    Where a block changes the width its shortcut is a strided 1x1 convolution (option B).
    Spatial dropout comes after each block, dropout before the head.

    Attributes:
        width: channels of the first stage; the others have two and four times as many.
        blocks: blocks in each stage (n above).
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    width: Count = 16
    blocks: Count = 3
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        like = ResNet(width=self.width, blocks=(self.blocks,) * 3, initializer=self.initializer)
        return like.build(spec, regularization)


@part
class ResNet:
    """The residual network of He et al. 2016, table 1, for small images: its stem is a 3x3 convolution, unpooled.

    A stage has twice the channels of the one before and half its rows and columns. A basic block is two 3x3
    convolutions, a bottleneck is 1x1, 3x3 (which carries the stride) and 1x1 to four times the width. Where a
    block changes the shape its shortcut is a strided 1x1 convolution (option B). Spatial dropout comes after each
    block, dropout before the head.

    Attributes:
        width: channels of the first stage.
        blocks: blocks in each stage: [2,2,2,2] for 18 layers, [3,4,6,3] for 34, or for 50 with bottlenecks.
        bottleneck: blocks of three convolutions rather than two.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    width: Count = 64
    blocks: Counts = (2, 2, 2, 2)
    bottleneck: Flag = False
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout

        inputs, x = start(spec)
        x = convolution(x, self.width, "stem", self.initializer)
        x = norm_relu(x, "stem")
        places = [(stage, block) for stage, count in enumerate(self.blocks) for block in range(count)]
        depth, spatial = (regularization.rates(kind, len(places)) for kind in ("stochastic_depth", "spatial_dropout"))
        for (stage, block), skip, rate in zip(places, depth, spatial, strict=True):
            name, stride = f"stage_{stage}_block_{block}", 2 if stage and not block else 1
            x = self._block(x, self.width * 2**stage, stride, skip, name)
            x = Dropout(rate, spatial=True, name=f"{name}_dropout")(x)
        return pool_and_finish(inputs, x, spec, regularization, name="resnet")

    def _block(self, x: keras.KerasTensor, width: int, stride: int, skip: float, name: str) -> keras.KerasTensor:
        """`relu(shortcut(x) + branch(x))`; `skip` is the chance that the branch is left out in training."""
        from descent.model.layers import StochasticDepth

        y = self._branch(x, width, stride, name)
        if x.shape != y.shape:
            x = convolution(x, y.shape[-1], f"{name}_shortcut", self.initializer, stride, size=1)
            x = norm(x, f"{name}_shortcut")
        y = StochasticDepth(skip, name=f"{name}_depth")(y)
        return keras.layers.ReLU(name=f"{name}_relu_out")(keras.layers.Add(name=f"{name}_add")([x, y]))

    def _branch(self, x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
        """The convolutions of a block, each with its norm, with ReLU between them."""
        shapes = [(width, 3, stride), (width, 3, 1)]
        if self.bottleneck:
            shapes = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        for i, (channels, size, step) in enumerate(shapes, 1):
            x = convolution(x, channels, f"{name}_{i}", self.initializer, step, size)
            x = norm(x, f"{name}_{i}") if i == len(shapes) else norm_relu(x, f"{name}_{i}")
        return x


@part
class WideResNet:
    """The wide residual network of Zagoruyko & Komodakis 2016, table 1: three stages of n blocks, 6n + 4 layers.

    Norm and ReLU come before each convolution (He et al. 2016b). Spatial dropout stands between the two
    convolutions of a block, where the paper has its dropout; dropout before the head.

    Attributes:
        blocks: blocks in each stage (n above).
        widen: channels of a stage as a multiple of the thin network's.
        width: channels of the stem; the thin network's stages have 1, 2 and 4 times as many.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    blocks: Count = 4
    widen: Count = 10
    width: Count = 16
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        inputs, x = start(spec)
        x = convolution(x, self.width, "stem", self.initializer)
        places = [(stage, block) for stage in range(3) for block in range(self.blocks)]
        depth, spatial = (regularization.rates(kind, len(places)) for kind in ("stochastic_depth", "spatial_dropout"))
        for (stage, block), *rates in zip(places, depth, spatial, strict=True):
            stride = 2 if stage and not block else 1
            x = self._block(x, self.width * self.widen * 2**stage, stride, rates, f"stage_{stage}_block_{block}")
        return pool_and_finish(inputs, norm_relu(x, "last"), spec, regularization, name="wide_resnet")

    def _block(
        self, x: keras.KerasTensor, width: int, stride: int, rates: Sequence[float], name: str
    ) -> keras.KerasTensor:
        """`shortcut + branch`; a shortcut that changes the shape starts from the normed input, as the branch does."""
        from descent.model.layers import Dropout, StochasticDepth

        skip, rate = rates
        y = norm_relu(x, f"{name}_1")
        if x.shape[-1] != width or stride > 1:
            x = convolution(y, width, f"{name}_shortcut", self.initializer, stride, size=1)
        y = convolution(y, width, f"{name}_1", self.initializer, stride)
        y = Dropout(rate, spatial=True, name=f"{name}_dropout")(norm_relu(y, f"{name}_2"))
        y = convolution(y, width, f"{name}_2", self.initializer)
        y = StochasticDepth(skip, name=f"{name}_depth")(y)
        return keras.layers.Add(name=f"{name}_add")([x, y])


def convolution(
    x: keras.KerasTensor, width: int, name: str, initializer: Initializer, stride: int = 1, size: int = 3
) -> keras.KerasTensor:
    """A convolution without bias: a norm follows sooner or later, whose offset would swallow it.

    A strided one of 1x1 drops pixels first, which is the same and cheaper; besides, oneDNN's own (TensorFlow 2.21, two
    threads, few channels) writes past the end of its memory in the backward pass.
    """
    from descent.model.convolution import Conv2D

    if size == 1 and stride > 1:
        x, stride = keras.layers.AveragePooling2D(1, stride, padding="same", name=f"{name}_stride")(x), 1
    return Conv2D(
        width,
        size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=kernels(initializer),
        name=f"{name}_conv",
    )(x)


def norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    from descent.model.layers import BatchNormalization

    return BatchNormalization(name=f"{name}_norm")(x)


def norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(norm(x, name))


def pool_and_finish(
    inputs: keras.KerasTensor, x: keras.KerasTensor, spec: Spec, regularization: Regularization, name: str
) -> keras.Model:
    """Means over all positions, dropout, and the head."""
    from descent.model.layers import Dropout

    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = Dropout(regularization.rates("dropout", 1)[0], name="dropout")(x)
    return finish(inputs, x, spec, name=name)

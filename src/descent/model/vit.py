"""The vision transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

from etils import epy

from descent.model.base import Initializer, dense, finish, kernels, layer_norm, start
from descent.types import Count, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class ViT:
    """The vision transformer (Dosovitskiy et al. 2021, section 3.1), its width and heads as in DeiT-Ti (Touvron 2021).

    Patches by a strided convolution, learned positions, then blocks `x + attention(norm(x))` and
    `x + mlp(norm(x))` with GELU. Dropout has `depth + 1` rates: one for the hidden layer of each block's MLP, and
    one before the head. Both branches of a block share its rate of stochastic depth, each with a mask of its own.

    Attributes:
        width: channels of a token; a multiple of `heads`.
        depth: blocks.
        heads: attention heads of a block.
        mlp_ratio: units of an MLP's hidden layer as a multiple of `width`.
        patch: rows and columns of a patch, in pixels; patches at the border are filled with zeros.
        pool: what the head sees: the mean over all tokens, or a learned first token.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    width: Count = 192
    depth: Count = 12
    heads: Count = 3
    mlp_ratio: Count = 4
    patch: Count = 4
    pool: Literal["mean", "token"] = "mean"
    initializer: Initializer = "truncated_normal"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout, FirstToken, Positions

        inputs, x = start(spec)
        x = Positions(token=self.pool == "token", name="positions")(self._patches(x))
        *inside, last = regularization.rates("dropout", self.depth + 1)
        skips = regularization.rates("stochastic_depth", self.depth)
        for i, (rate, skip) in enumerate(zip(inside, skips, strict=True)):
            x = self._branch(x, self._attention, skip, f"block_{i}_attention")
            x = self._branch(x, partial(self._mlp, rate=rate), skip, f"block_{i}_mlp")
        x = layer_norm(x, "last")
        pool = FirstToken(name="pool") if self.pool == "token" else keras.layers.GlobalAveragePooling1D(name="pool")
        return finish(inputs, Dropout(last, name="dropout")(pool(x)), spec, name="vit")

    def _patches(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Images [b h w c] to tokens [b t width], row by row."""
        x = keras.layers.Conv2D(
            self.width,
            self.patch,
            self.patch,
            padding="same",
            kernel_initializer=kernels(self.initializer),
            name="patches",
        )(x)
        return keras.layers.Reshape((-1, self.width), name="tokens")(x)

    def _branch(self, x: keras.KerasTensor, inner: Callable[..., Any], skip: float, name: str) -> keras.KerasTensor:
        """`x + inner(norm(x))`; `skip` is the chance that the branch is left out in training."""
        from descent.model.layers import StochasticDepth

        y = inner(layer_norm(x, name), name=name)
        y = StochasticDepth(skip, name=f"{name}_depth")(y)
        return keras.layers.Add(name=f"{name}_add")([x, y])

    def _attention(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        from descent.model.layers import Attention

        x = dense(x, 3 * self.width, self.initializer, f"{name}_qkv")
        return dense(Attention(self.heads, name=name)(x), self.width, self.initializer, f"{name}_out")

    def _mlp(self, x: keras.KerasTensor, name: str, rate: float) -> keras.KerasTensor:
        from descent.model.layers import Dropout

        x = dense(x, self.mlp_ratio * self.width, self.initializer, f"{name}_1", "gelu")
        return dense(Dropout(rate, name=f"{name}_dropout")(x), self.width, self.initializer, f"{name}_2")

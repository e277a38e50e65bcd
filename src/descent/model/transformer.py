"""The transformer encoder for text."""

from __future__ import annotations

from typing import ClassVar, Literal

from etils import epy

from descent.model.base import Initializer, dense, finish, layer_norm, start
from descent.types import Count, Flag, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class Transformer:
    """Embeddings with positions, then pre-norm blocks `x + attention(norm(x))` and `x + mlp(norm(x))`, norm, pooling.

    Attention as in Vaswani et al. 2017, section 3.2, one product for queries, keys and values; the norm stands before
    each branch (Xiong et al. 2020); the MLP has GELU. Padding is neither attended to nor pooled. Dropout has
    `depth + 2` rates: of the embeddings, of the hidden layer of each block's MLP, and before the head.

    Attributes:
        width: channels of a word; a multiple of `heads`.
        depth: blocks.
        heads: attention heads of a block.
        mlp_ratio: units of an MLP's hidden layer as a multiple of `width`.
        positions: learned vectors, or sines and cosines (Vaswani et al. 2017, section 3.5).
        pool: what the head sees: the mean over words, or a learned first token.
        shortcut: the head sees the mean of the words' vectors too, as in `BagOfEmbeddings`.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("text",)

    width: Count = 64
    depth: Count = 2
    heads: Count = 4
    mlp_ratio: Count = 4
    positions: Literal["learned", "sinusoidal"] = "learned"
    pool: Literal["mean", "first"] = "mean"
    shortcut: Flag = True
    initializer: Initializer = "glorot_uniform"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout, FirstToken
        from descent.model.text_layers import MaskedMean

        inputs, ids = start(spec)
        first, *inside, last = regularization.rates("dropout", self.depth + 2)
        skips = regularization.rates("stochastic_depth", self.depth)
        words, known = self._words(ids, spec.vocabulary, regularization.rates("word_dropout", 1)[0])
        x, mask = self._placed(words, known)
        x = Dropout(first, name="dropout_words")(x)
        for i, (rate, skip) in enumerate(zip(inside, skips, strict=True)):
            x = self._add(
                x, self._attention(layer_norm(x, f"block_{i}_attention"), mask, i), skip, f"block_{i}_attention"
            )
            x = self._add(x, self._mlp(layer_norm(x, f"block_{i}_mlp"), rate, i), skip, f"block_{i}_mlp")
        x = layer_norm(x, "last")
        x = FirstToken(name="pool")(x) if self.pool == "first" else MaskedMean(name="pool")([x, mask])
        if self.shortcut:
            x = keras.layers.Concatenate(name="features")([x, MaskedMean(name="mean")([words, known])])
        return finish(inputs, Dropout(last, name="dropout")(x), spec, name="transformer")

    def _words(
        self, ids: keras.KerasTensor, vocabulary: int, silenced: float
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Vectors, some silenced in training, and the mask."""
        from descent.model.text_layers import WordDropout, Words

        # Beside sines of deviation 0.7 vectors have to be of that size too (Vaswani et al. 2017, section 3.4).
        deviation = 0.02 if self.positions == "learned" else 1.0
        x, mask = Words(vocabulary, self.width, deviation=deviation, name="words")(ids)
        return WordDropout(silenced, name="silenced")(x), mask

    def _placed(self, x: keras.KerasTensor, mask: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Vectors with their positions, and the mask; behind a first token, if there is one."""
        from descent.model.layers import Positions
        from descent.model.text_layers import Token, Waves

        if self.pool == "first":
            x, mask = Token(name="token")([x, mask])
        return (Positions(name="positions") if self.positions == "learned" else Waves(name="positions"))(x), mask

    def _add(self, x: keras.KerasTensor, branch: keras.KerasTensor, skip: float, name: str) -> keras.KerasTensor:
        """`skip` is the chance that the branch is left out in training."""
        from descent.model.layers import StochasticDepth

        return keras.layers.Add(name=f"{name}_add")([x, StochasticDepth(skip, name=f"{name}_depth")(branch)])

    def _attention(self, x: keras.KerasTensor, mask: keras.KerasTensor, i: int) -> keras.KerasTensor:
        from descent.model.text_layers import MaskedAttention

        name = f"block_{i}_attention"
        x = dense(x, 3 * self.width, self.initializer, f"{name}_qkv")
        return dense(MaskedAttention(self.heads, name=name)([x, mask]), self.width, self.initializer, f"{name}_out")

    def _mlp(self, x: keras.KerasTensor, rate: float, i: int) -> keras.KerasTensor:
        from descent.model.layers import Dropout

        name = f"block_{i}_mlp"
        x = dense(x, self.mlp_ratio * self.width, self.initializer, f"{name}_1", "gelu")
        return dense(Dropout(rate, name=f"{name}_dropout")(x), self.width, self.initializer, f"{name}_2")

"""Recurrent networks for text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from etils import epy

from descent.model.base import finish, start
from descent.types import Count, Flag, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class Recurrent:
    """Embeddings, recurrent layers, their outputs pooled, the head; padding changes nothing.

    Dropout has `layers + 1` rates: of the inputs of each layer, and before the head; recurrent dropout has one for
    each layer, which both of its directions share.

    Attributes:
        embedding: width of a word's vector.
        width: units of a layer, in each direction.
        layers: how many, one on the other.
        bidirectional: read forwards and backwards, side by side (Graves & Schmidhuber 2005).
        pool: what the head sees: the mean or the largest of the last layer's outputs over words, or the last output.
        shortcut: the head sees the mean of the words' vectors too, as in `BagOfEmbeddings`: what single words tell need
            not pass through the recurrent layers (Lai et al. 2015 also pool a word's vector beside its context).
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("text",)

    embedding: Count = 128
    width: Count = 128
    layers: Count = 1
    bidirectional: Flag = False
    pool: Literal["mean", "max", "last"] = "max"
    shortcut: Flag = True

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout
        from descent.model.text_layers import MaskedMax, MaskedMean, WordDropout, Words

        inputs, ids = start(spec)
        x, mask = Words(spec.vocabulary, self.embedding, deviation=0.05, name="words")(ids)
        x = words = WordDropout(regularization.rates("word_dropout", 1)[0], name="silenced")(x)
        *rates, last = regularization.rates("dropout", self.layers + 1)
        inside = regularization.rates("recurrent_dropout", self.layers)
        for i, (rate, recurrent) in enumerate(zip(rates, inside, strict=True)):
            x = Dropout(rate, name=f"dropout_{i}")(x)
            x = self._layer(x, mask, recurrent, i)
        if self.pool != "last":
            x = (MaskedMax if self.pool == "max" else MaskedMean)(name="pool")([x, mask])
        if self.shortcut:
            x = keras.layers.Concatenate(name="features")([x, MaskedMean(name="mean")([words, mask])])
        return finish(inputs, Dropout(last, name="dropout")(x), spec, name=type(self).__name__.lower())

    def _layer(self, x: keras.KerasTensor, mask: keras.KerasTensor, rate: float, i: int) -> keras.KerasTensor:
        """One layer, in one direction or in both."""
        directions = ("forwards", "backwards") if self.bidirectional else ("forwards",)
        outputs = [
            self.layer()(
                self.width,
                sequences=i < self.layers - 1 or self.pool != "last",
                backwards=direction == "backwards",
                recurrent_dropout=rate,
                name=f"layer_{i}_{direction}",
            )([x, mask])
            for direction in directions
        ]
        return outputs[0] if len(outputs) == 1 else keras.layers.Concatenate(name=f"layer_{i}")(outputs)

    def layer(self) -> Any:
        raise NotImplementedError


@part
class Lstm(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    Its fields are those of `Recurrent`.
    """

    def layer(self) -> Any:
        from descent.model.recurrent_layers import LSTM

        return LSTM


@part
class Gru(Recurrent):
    """Gated recurrent units (Cho et al. 2014).

    Its fields are those of `Recurrent`.
    """

    def layer(self) -> Any:
        from descent.model.recurrent_layers import GRU

        return GRU

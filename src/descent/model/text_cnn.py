"""Convolutions over words, and the mean of words."""

from __future__ import annotations

from typing import ClassVar

from etils import epy

from descent.model.base import Initializer, finish, kernels, start
from descent.types import Count, Counts, Kind, Regularization, Spec, part

with epy.lazy_imports():
    import keras


@part
class TextCnn:
    """Convolutions of several widths side by side, the largest value of each over the text, the head (Kim 2014).

    Dropout has two rates: of the embeddings, and before the head.

    Attributes:
        embedding: width of a word's vector.
        sizes: words that the convolutions of each kind see.
        filters: convolutions of each kind.
        initializer: how kernels start.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("text",)

    embedding: Count = 128
    sizes: Counts = (3, 4, 5)
    filters: Count = 100
    initializer: Initializer = "he_normal"

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout
        from descent.model.text_layers import MaskedMax, WordDropout, Words

        inputs, ids = start(spec)
        first, last = regularization.rates("dropout", 2)
        x, mask = Words(spec.vocabulary, self.embedding, deviation=0.05, name="words")(ids)
        x = WordDropout(regularization.rates("word_dropout", 1)[0], name="silenced")(x)
        x = Dropout(first, name="dropout_words")(x)
        found = []
        for size in self.sizes:
            begin = kernels(self.initializer)
            y = keras.layers.Conv1D(
                self.filters, size, padding="same", activation="relu", kernel_initializer=begin, name=f"conv_{size}"
            )(x)
            found.append(MaskedMax(name=f"pool_{size}")([y, mask]))
        x = found[0] if len(found) == 1 else keras.layers.Concatenate(name="pools")(found)
        return finish(inputs, Dropout(last, name="dropout")(x), spec, name="text_cnn")


@part
class BagOfEmbeddings:
    """The mean of the words' vectors, then the head (Joulin et al. 2017, "fastText"): the honest baseline.

    Dropout has one rate, before the head.

    Attributes:
        embedding: width of a word's vector.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("text",)

    embedding: Count = 128

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout
        from descent.model.text_layers import MaskedMean, WordDropout, Words

        inputs, ids = start(spec)
        x, mask = Words(spec.vocabulary, self.embedding, deviation=0.05, name="words")(ids)
        x = MaskedMean(name="mean")([WordDropout(regularization.rates("word_dropout", 1)[0], name="silenced")(x), mask])
        x = Dropout(regularization.rates("dropout", 1)[0], name="dropout")(x)
        return finish(inputs, x, spec, name="bag_of_embeddings")

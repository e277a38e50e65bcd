"""Layers of models for text: words to vectors, masks of padding, pooling over words.

Imported when a model is built, never before: subclassing a Keras layer imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from descent.model.layers import Dropout

_mixture: ContextVar[Any] = ContextVar("mixture", default=())


@contextlib.contextmanager
def mixture(partners: Any) -> Iterator[None]:
    """What embeddings are mixed with while a training pass is traced: other ids [b, t] and own shares [b]; or ()."""
    token = _mixture.set(partners)
    try:
        yield
    finally:
        _mixture.reset(token)


@keras.saving.register_keras_serializable("descent")
class Words(keras.layers.Layer):
    """Vectors of words [b t w] and which of them are words [b t], from ids [b t]; padding (id 0) is all zeros.

    In training inside `mixture`, the vectors of two texts are blended, `s e(x_i) + (1 - s) e(x_j)` at each place
    (Guo et al. 2019, "Augmenting data with mixup for sentence classification", wordMixup); a place is a word where
    either text has one.

    Args:
        vocabulary: number of ids.
        width: of a vector.
        deviation: of the normal distribution that vectors start from.
    """

    def __init__(self, vocabulary: int, width: int, *, deviation: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary, self.width, self.deviation = vocabulary, width, deviation

    def build(self, input_shape: Sequence[Any]) -> None:
        start = keras.initializers.RandomNormal(stddev=self.deviation)
        self.embeddings = self.add_weight(shape=[self.vocabulary, self.width], initializer=start, name="embeddings")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        vectors, mask = self._vectors(inputs)
        if training and (partners := _mixture.get()):
            others, share = partners
            own = tf.cast(share[:, None, None], vectors.dtype)
            other, other_mask = self._vectors(others)
            vectors, mask = own * vectors + (1 - own) * other, tf.maximum(mask, other_mask)
        return vectors, mask

    def _vectors(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mask = tf.cast(ids > 0, self.compute_dtype)
        vectors = tf.gather(tf.cast(self.embeddings, self.compute_dtype), ids)
        return vectors * mask[..., None], mask

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return (*input_shape, self.width), tuple(input_shape)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        vectors, mask = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(vectors, self.compute_dtype), keras.KerasTensor(mask, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"vocabulary": self.vocabulary, "width": self.width, "deviation": self.deviation}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("descent")
class WordDropout(Dropout):
    """Silences the whole vectors of some words of each text (Iyyer et al. 2015): [b t w] to [b t w].

    Args:
        rate: share of words silenced in training; the rest are divided by `1 - rate`.
    """

    def noise_shape(self, rank: int) -> list[int | None]:
        return [None, None, *[1] * (rank - 2)]


@keras.saving.register_keras_serializable("descent")
class MaskedMean(keras.layers.Layer):
    """The mean over words, padding left out: [b t w] and mask [b t] to [b w]; zeros for a text without words."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        x, mask = inputs
        count = tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1)
        return tf.reduce_sum(x * mask[..., None], axis=1) / count

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return (input_shape[0][0], input_shape[0][2])


@keras.saving.register_keras_serializable("descent")
class MaskedMax(MaskedMean):
    """The largest value over words, padding left out: [b t w] and mask [b t] to [b w]; zeros for one without words."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        x, mask = inputs
        largest = tf.reduce_max(tf.where(mask[..., None] > 0, x, tf.constant(x.dtype.min, x.dtype)), axis=1)
        return tf.where(tf.reduce_any(mask > 0, axis=1, keepdims=True), largest, tf.zeros_like(largest))


@keras.saving.register_keras_serializable("descent")
class Token(keras.layers.Layer):
    """Puts a learned vector before the words, whose features stand for the text: [b t w] and mask, both one longer."""

    def build(self, input_shape: Sequence[Any]) -> None:
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        self.first = self.add_weight(shape=[1, 1, input_shape[0][2]], initializer=start, name="token")

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        x, mask = inputs
        first = tf.tile(tf.cast(self.first, x.dtype), [tf.shape(x)[0], 1, 1])
        return tf.concat([first, x], axis=1), tf.concat([tf.ones_like(mask[:, :1]), mask], axis=1)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        (batch, length, width), _ = input_shape
        return (batch, length + 1, width), (batch, length + 1)

    def compute_output_spec(self, inputs: Any) -> Any:
        shapes = self.compute_output_shape([x.shape for x in inputs])
        return tuple(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)


@keras.saving.register_keras_serializable("descent")
class Waves(keras.layers.Layer):
    """Adds sines and cosines of the position, with wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, 3.5)."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + tf.cast(waves(inputs.shape[1], inputs.shape[2]), inputs.dtype)


def waves(length: int, width: int) -> tf.Tensor:
    """`sin(p / 10000^(2i/w))` in even channels 2i, the cosine in the odd ones after them: float32 [t, w]."""
    rates = tf.exp(-math.log(10000.0) * tf.cast(tf.range(width) // 2 * 2, tf.float32) / width)
    angles = tf.range(length, dtype=tf.float32)[:, None] * rates
    return tf.where(tf.range(width) % 2 == 0, tf.sin(angles), tf.cos(angles))


@keras.saving.register_keras_serializable("descent")
class MaskedAttention(keras.layers.Layer):
    """`softmax(q k^T / sqrt(d)) v` of several heads (Vaswani et al. 2017, section 3.2); padding is not attended to.

    Takes queries, keys and values beside one another [b t 3w] and a mask [b t], gives [b t w]; the softmax is in
    float32.

    Args:
        heads: how many; each works on `w / heads` channels.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        qkv, mask = inputs
        length, width = qkv.shape[1], qkv.shape[2] // 3
        parts = tf.reshape(qkv, [-1, length, 3, self.heads, width // self.heads])
        queries, keys, values = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        scores = tf.matmul(queries * (width // self.heads) ** -0.5, keys, transpose_b=True)
        # Far below any score, yet finite: a text without words attends evenly rather than giving NaN.
        away = (1 - tf.cast(mask, tf.float32))[:, None, None] * -1e9
        weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32) + away), qkv.dtype)
        mixed = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        return tf.reshape(mixed, [-1, length, width])

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return (*input_shape[0][:2], input_shape[0][2] // 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}

"""Models for text from Keras' own layers, written as a tutorial would."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from descent import UserError
from descent.model import BagOfEmbeddings, Gru, Lstm, Transformer
from descent.model.base import dense, finish, layer_norm, start
from descent.model.layers import Positions
from descent.types import Regularization, Spec

Part = BagOfEmbeddings | Gru | Lstm | Transformer
PARTS = (BagOfEmbeddings, Gru, Lstm, Transformer)


def model(part: Part, spec: Spec, regularization: Regularization) -> keras.Model:
    """The counterpart of `part`, its layers named as Descent's are.

    Raises:
        UserError: the part has an option that is not written here.
    """
    refused = {
        "model.bidirectional": getattr(part, "bidirectional", False),
        "model.pool": getattr(part, "pool", "mean") not in ("mean", "max"),
        "model.positions": getattr(part, "positions", "learned") != "learned",
    }
    if named := [key for key, wrong in refused.items() if wrong]:
        raise UserError(f"benchmark: the peers have texts only with the defaults of {', '.join(named)}")
    inputs, ids = start(spec)
    mask = keras.ops.not_equal(ids, 0)
    embedded = words(part.width if isinstance(part, Transformer) else part.embedding, ids, mask, spec, regularization)
    mean = keras.layers.GlobalAveragePooling1D
    if isinstance(part, Transformer):
        x, last = transformer(part, embedded, mask, regularization)
        x = mean()(x, mask=mask)
    elif isinstance(part, BagOfEmbeddings):
        x, last = mean()(embedded, mask=mask), regularization.rates("dropout", 1)[0]
    else:
        x, last = recurrent(part, embedded, mask, regularization)
        x = mean()(x, mask=mask) if part.pool == "mean" else largest(x, mask)
    if getattr(part, "shortcut", False):
        x = keras.layers.Concatenate()([x, mean()(embedded, mask=mask)])
    return finish(inputs, keras.layers.Dropout(last)(x), spec, name="plain_text")


def largest(x: Any, mask: Any) -> Any:
    """Over words: Keras' own pooling of maxima takes no mask."""
    return keras.layers.GlobalMaxPooling1D()(x + (column(mask) - 1) * 1e9)


def column(mask: Any) -> Any:
    """1 for words and 0 for padding, float32 [b, t, 1]."""
    return keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)


def words(width: int, ids: Any, mask: Any, spec: Spec, regularization: Regularization) -> Any:
    """Vectors, some words' silenced in training."""
    x = keras.layers.Embedding(spec.vocabulary, width, name="words")(ids)
    (rate,) = regularization.rates("word_dropout", 1)
    return x * keras.layers.Dropout(rate)(column(mask)) if rate else x


def recurrent(part: Lstm | Gru, x: Any, mask: Any, regularization: Regularization) -> tuple[Any, float]:
    """Vectors of the last layer at every word, and the rate of dropout after the pooling."""
    layer = keras.layers.LSTM if isinstance(part, Lstm) else keras.layers.GRU
    *rates, last = regularization.rates("dropout", part.layers + 1)
    inside = regularization.rates("recurrent_dropout", part.layers)
    for i, (rate, recurrent_rate) in enumerate(zip(rates, inside, strict=True)):
        made = layer(part.width, return_sequences=True, recurrent_dropout=recurrent_rate, name=f"layer_{i}_forwards")
        x = made(keras.layers.Dropout(rate)(x), mask=mask)
    return x, last


def transformer(part: Transformer, x: Any, mask: Any, regularization: Regularization) -> tuple[Any, float]:
    """The same of the last block."""
    first, *inside, last = regularization.rates("dropout", part.depth + 2)
    x = keras.layers.Dropout(first)(Positions(name="positions")(x))
    attended = keras.ops.expand_dims(mask, 1)
    for i, rate in enumerate(inside):
        y = layer_norm(x, f"block_{i}_attention")
        heads = keras.layers.MultiHeadAttention(part.heads, part.width // part.heads, name=f"block_{i}_attention")
        x = keras.layers.Add()([x, heads(y, y, attention_mask=attended)])
        y = layer_norm(x, f"block_{i}_mlp")
        y = dense(y, part.mlp_ratio * part.width, part.initializer, f"block_{i}_mlp_1", "gelu")
        y = dense(keras.layers.Dropout(rate)(y), part.width, part.initializer, f"block_{i}_mlp_2")
        x = keras.layers.Add()([x, y])
    return layer_norm(x, "last"), last


def attention_weights(source: keras.Model, target: keras.Model) -> None:
    """Keras keeps queries, keys and values apart, with an axis of heads; Descent has them beside one another."""
    for layer in target.layers:
        if isinstance(layer, keras.layers.MultiHeadAttention):
            parts = [source.get_layer(f"{layer.name}_{end}").get_weights() for end in ("qkv", "out")]
            (kernel, bias), (out_kernel, out_bias) = parts
            split = [w for pair in zip(np.split(kernel, 3, 1), np.split(bias, 3), strict=True) for w in pair]
            values = [*split, out_kernel, out_bias]
            shapes = [w.shape for w in layer.get_weights()]
            layer.set_weights([value.reshape(shape) for value, shape in zip(values, shapes, strict=True)])

"""The model of an experiment from Keras' own layers, written as a tutorial would, with the same weights."""

from __future__ import annotations

import keras

from benchmark_peers import plain_texts
from descent.model import Cnn
from descent.model.base import finish, kernels, start
from descent.model.convolution import Conv2D
from descent.model.layers import BatchNormalization, Dropout
from descent.types import Regularization, Spec


def model(part: object, ours: keras.Model, spec: Spec, regularization: Regularization) -> keras.Model:
    """The plain counterpart of `ours`, which `part` built; it starts from the same weights."""
    if isinstance(part, Cnn):
        made = cnn(part, spec, regularization)
    elif isinstance(part, plain_texts.PARTS):
        made = plain_texts.model(part, spec, regularization)
        plain_texts.attention_weights(ours, made)
    else:
        made = keras.models.clone_model(ours, clone_function=_plain)
    copy_weights(ours, made)
    return made


def _plain(layer: keras.Layer) -> keras.Layer:
    """Keras' layer in the place of one of ours."""
    config = layer.get_config()
    if isinstance(layer, BatchNormalization):
        return keras.layers.BatchNormalization.from_config(config)
    if type(layer) is Dropout:
        kind = keras.layers.SpatialDropout2D if config["spatial"] else keras.layers.Dropout
        return kind(config["rate"], name=layer.name)
    if isinstance(layer, Conv2D):
        return keras.layers.Conv2D.from_config(config)
    return type(layer).from_config(config)


def cnn(part: Cnn, spec: Spec, regularization: Regularization) -> keras.Model:
    """As everyone writes it: biases everywhere, the nonlinearity right after the norm, pooling last."""
    layers = keras.layers
    inputs, x = start(spec)
    for i, (width, rate) in enumerate(
        zip(part.widths, regularization.rates("spatial_dropout", len(part.widths)), strict=True)
    ):
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer=kernels(part.initializer), name=f"conv_{i}")(x)
        x = layers.BatchNormalization(name=f"norm_{i}")(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
        x = layers.SpatialDropout2D(rate)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(part.dense, kernel_initializer=kernels(part.initializer), name="dense")(x)
    x = layers.BatchNormalization(name="norm_dense")(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(regularization.rates("dropout", 1)[0])(x)
    return finish(inputs, x, spec, name="plain_cnn")


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies weights between models whose layers have the same names; a bias that only one of them has is zero.

    Keras' attention, which holds the weights of several layers of ours, is left alone.
    """
    attention = keras.layers.MultiHeadAttention
    for layer in (layer for layer in target.layers if layer.weights and not isinstance(layer, attention)):
        found = {v.name: v for v in source.get_layer(layer.name).weights}
        for variable in layer.weights:
            value = found.get(variable.name)
            variable.assign(keras.ops.zeros_like(variable) if value is None else value)

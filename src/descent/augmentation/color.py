"""Changes of colour for a whole batch of float images [b, h, w, c] in [0, top], with one strength an image.

Strength 0 changes no bit. Nothing is cut to the range here but where an operation is defined by it.

The usual changes are affine in the channels of a pixel, so that all of them together are one matrix an image. They
are blends away from an image without the property in question, `x + s (x - without)`: s = -1 is that image, above 0
there is more of the property (Haeberli, "Matrix operations for image processing", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

BYTE = 255
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# The axis (1, 1, 1) / sqrt(3) of greys: the projection onto it, and the cross product with it.
GREY = np.full((3, 3), 1 / 3, np.float32)
CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / np.float32(math.sqrt(3))


# --- affine changes: a matrix [b, c, c] and an offset [b, c] from strengths [b] and each channel's mean [b, c] --------


def luma(channels: int) -> np.ndarray:
    """What each channel adds to the brightness of a pixel; the weights sum to 1."""
    return np.array(LUMA if channels == 3 else [1 / channels] * channels, np.float32)


def _eye(strength: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.eye(channels), strength[:, None, None]


def brightness(strength: tf.Tensor, mean: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Away from black: `x (1 + s)`."""
    eye, s = _eye(strength, mean.shape[-1])
    return eye + s * eye, tf.zeros_like(mean)


def contrast(strength: tf.Tensor, mean: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Away from the image's mean luma."""
    matrix, _ = brightness(strength, mean)
    grey = tf.reduce_sum(mean * luma(mean.shape[-1]), axis=-1, keepdims=True)
    return matrix, -strength[:, None] * grey * tf.ones_like(mean)


def saturation(strength: tf.Tensor, mean: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Away from each pixel's own luma."""
    eye, s = _eye(strength, 3)
    return eye + s * (eye - luma(3)[None]), tf.zeros_like(mean)


def hue(turn: tf.Tensor, mean: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turned about the axis of greys by a share of the full circle: `x + sin a (k cross x) + (1 - cos a) (grey - x)`.

    Rodrigues' rotation: it keeps the mean of the channels; a third of a turn takes red to green to blue.
    """
    eye, angle = _eye(2 * math.pi * turn, 3)
    return eye + tf.sin(angle) * CROSS + (1 - tf.cos(angle)) * (GREY - eye), tf.zeros_like(mean)


AFFINE: dict[str, Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}
OF_COLOURS = ("saturation", "hue")  # the identity on images that are not of three channels


def recolored(x: tf.Tensor, plan: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The affine changes a plan has strengths [b] for, made one after another in the order of `AFFINE`."""
    channels = x.shape[-1]
    names = [name for name in AFFINE if name in plan and (channels == 3 or name not in OF_COLOURS)]
    if not names:
        return x
    mean = tf.reduce_mean(x, axis=[1, 2])
    matrix, offset = tf.eye(channels)[None], tf.zeros_like(mean)
    for name in names:
        change, shift = AFFINE[name](plan[name], mean)
        matrix, offset, mean = change @ matrix, _times(change, offset) + shift, _times(change, mean) + shift
    return affine(x, matrix, offset)


def affine(x: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Every pixel p of an image as `matrix p + offset`; exactly p for the unit matrix and 0."""
    # A sum over the few channels, not a product: XLA makes one loop of it and of what is around it.
    parts = [x[..., i, None] * matrix[:, None, None, :, i] for i in range(x.shape[-1])]
    return tf.add_n(parts) + offset[:, None, None]


def _times(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    return tf.squeeze(matrix @ vector[..., None], -1)


# --- the rest: images, one number an image [b], and the largest value ------------------------------------------------


def where(chosen: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """`first` for the images where `chosen` [b], else `second`; flat, as four dimensions take ten times longer."""
    size = math.prod(second.shape[1:])
    flat = tf.where(chosen[:, None], tf.reshape(first, [-1, size]), tf.reshape(second, [-1, size]))
    return tf.reshape(flat, [-1, *second.shape[1:]])


def _each(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]


def sharpness(x: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Away from the smoothed image: above 0 sharper, below 0 softer."""
    return x + _each(strength) * (x - smoothed(x))


def smoothed(x: tf.Tensor) -> tf.Tensor:
    """The mean of 3x3 pixels, the middle one with weight 5 of 13; the outermost pixels stay as they are."""
    if min(x.shape[1:3]) < 3:
        return x
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    boxes = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (boxes + 4 * x[:, 1:-1, 1:-1]) / 13
    middle = tf.concat([x[:, 1:-1, :1], inner, x[:, 1:-1, -1:]], axis=2)
    return tf.concat([x[:, :1], middle, x[:, -1:]], axis=1)


def posterize(x: tf.Tensor, bits: tf.Tensor, top: float) -> tf.Tensor:
    """The lowest `bits` (a whole number, [b]) of 8 set to zero; [0, top] is taken as the range of a byte."""
    step = _each(2**bits) * (top / BYTE)
    return where(bits > 0, tf.floor(x / step) * step, x)


def solarize(x: tf.Tensor, strength: tf.Tensor, top: float) -> tf.Tensor:
    """Values from a threshold up are inverted; it falls from just above white to black as strengths go from 0 to 1."""
    flat = tf.reshape(x, [-1, math.prod(x.shape[1:])])
    threshold = (1 - strength[:, None]) * (top * (BYTE + 1) / BYTE)
    return tf.reshape(tf.where(flat >= threshold, top - flat, flat), [-1, *x.shape[1:]])


def autocontrast(x: tf.Tensor, chosen: tf.Tensor, top: float) -> tf.Tensor:
    """Each channel stretched to the whole range, `top (x - min) / (max - min)`; one of a single value is kept."""
    low, high = tf.reduce_min(x, axis=[1, 2]), tf.reduce_max(x, axis=[1, 2])
    stretched = chosen[:, None] & (high > low)
    scale = tf.where(stretched, tf.math.divide_no_nan(top, high - low), 1.0)
    return affine(x, tf.linalg.diag(scale), tf.where(stretched, -low * scale, 0.0))


def equalize(x: tf.Tensor, chosen: tf.Tensor, top: float) -> tf.Tensor:
    """Each channel's histogram levelled, over 256 levels: `top (F(x) - F(min)) / (n - F(min))` (Gonzalez & Woods).

    F(v) counts the channel's n pixels of at most v. A channel of a single value is kept.
    """
    height, width, channels = x.shape[1:]
    count, levels = height * width, BYTE + 1
    flat = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, count])
    rows = tf.shape(flat)[0]
    level = tf.cast(tf.round(tf.clip_by_value(flat * (BYTE / top), 0, BYTE)), tf.int32)
    place = level + levels * tf.range(rows)[:, None]
    found = tf.math.unsorted_segment_sum(tf.ones_like(flat), place, rows * levels)
    below = tf.cumsum(tf.reshape(found, [-1, levels]), axis=1)
    rank = tf.gather(tf.reshape(below, [-1]), place)
    first = tf.reduce_min(rank, axis=1, keepdims=True)
    spread = tf.where(first < count, (rank - first) * (top / tf.maximum(count - first, 1)), flat)
    images = tf.transpose(tf.reshape(spread, [-1, channels, height, width]), [0, 2, 3, 1])
    return where(chosen, images, x)

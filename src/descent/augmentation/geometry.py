"""Flips, zooms, rotations, shears and shifts as one affine transform an image, for the whole batch at once.

Moves are 3x3 matrices in pixels about the image's centre, x to the right and y down. A matrix maps *backwards*:
from a place in the new image to where its value is taken in the old one. The moves made one after another
are therefore the product of their matrices in the order they are made, and pixels are interpolated only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

FillMode = Literal["constant", "reflect", "nearest", "wrap"]
Interpolation = Literal["bilinear", "nearest"]


def _matrix(*entries: tf.Tensor) -> tf.Tensor:
    """[b, 3, 3] from the six entries [b] of the upper two rows."""
    zero, one = tf.zeros_like(entries[0]), tf.ones_like(entries[0])
    return tf.reshape(tf.stack([*entries, zero, zero, one], axis=1), [-1, 3, 3])


def flip(flips: tf.Tensor) -> tf.Tensor:
    """A left-right mirror image where `flips` [b] is true."""
    zero = tf.zeros(tf.shape(flips))
    return _matrix(tf.where(flips, -1.0, 1.0), zero, zero, zero, zero + 1, zero)


def zoom(logarithm: tf.Tensor) -> tf.Tensor:
    """Enlarged by the factor e^logarithm [b]: below 0 the image shrinks."""
    scale, zero = tf.exp(-logarithm), tf.zeros_like(logarithm)
    return _matrix(scale, zero, zero, zero, scale, zero)


def rotation(angle: tf.Tensor) -> tf.Tensor:
    """Turned counterclockwise by `angle` [b], in radians."""
    cos, sin, zero = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
    return _matrix(cos, -sin, zero, sin, cos, zero)


def shear(slopes: tf.Tensor) -> tf.Tensor:
    """Rows slide by `slopes[:, 0]` pixels for each pixel down, then columns by `slopes[:, 1]` for each to the right."""
    zero = tf.zeros_like(slopes[:, 0])
    along_x = _matrix(zero + 1, -slopes[:, 0], zero, zero, zero + 1, zero)
    return along_x @ _matrix(zero + 1, zero, zero, -slopes[:, 1], zero + 1, zero)


def translation(pixels: tf.Tensor) -> tf.Tensor:
    """Moved by `pixels` [b, 2]: down and to the right."""
    zero = tf.zeros_like(pixels[:, 0])
    return _matrix(zero + 1, zero, -pixels[:, 1], zero, zero + 1, -pixels[:, 0])


MOVES = {"flip": flip, "zoom": zoom, "rotation": rotation, "shear": shear, "translation": translation}


def composed(plan: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
    """All moves of a plan as one matrix [b, 3, 3], made in the order of `MOVES`; None if it has none."""
    product = None
    for name in (name for name in MOVES if name in plan):
        matrix = MOVES[name](plan[name])
        product = matrix if product is None else product @ matrix
    return product


def warp(
    images: tf.Tensor,
    matrix: tf.Tensor,
    *,
    interpolation: Interpolation = "bilinear",
    fill_mode: FillMode = "constant",
    fill: float = 0.0,
) -> tf.Tensor:
    """Float32 images [b, h, w, c] moved by `matrix` [b, 3, 3]; the identity changes no bit.

    Outside the image "constant" is `fill`, "reflect" mirrors with the edge pixel doubled, "nearest" repeats the
    edge, "wrap" starts again at the other side. Gathers, which XLA makes one loop of: four times as fast as the kernel
    `ImageProjectiveTransformV3`.
    """
    pixels = _Pixels(images, fill_mode, fill)
    row, column = _origins(matrix, *images.shape[1:3])
    if interpolation == "nearest":
        return pixels(tf.floor(row + 0.5), tf.floor(column + 0.5))
    top, left = tf.floor(row), tf.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]

    def along(y: tf.Tensor) -> tf.Tensor:
        first = pixels(y, left)
        return first + (pixels(y, left + 1) - first) * right

    first = along(top)
    return first + (along(top + 1) - first) * down


def _origins(matrix: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The row and the column that each pixel's value is taken from, float32 [b, h, w]."""
    one = tf.ones([1])
    centre = translation(one[:, None] * [(height - 1) / 2, (width - 1) / 2])
    back = translation(one[:, None] * [(1 - height) / 2, (1 - width) / 2])
    # Backwards: from the corner to the centre, the move, and to the corner again.
    whole = (back @ matrix @ centre)[..., None, None]
    x, y = tf.range(width, dtype=tf.float32), tf.range(height, dtype=tf.float32)[:, None]
    column, row = (whole[:, i, 0] * x + whole[:, i, 1] * y + whole[:, i, 2] for i in (0, 1))
    return row, column


class _Pixels:
    """Images that go on for ever: their pixels [b, h, w, c] by whole rows and columns, float32 [b, h, w]."""

    def __init__(self, images: tf.Tensor, mode: FillMode, fill: float) -> None:
        self.mode = mode
        if mode == "constant":
            images = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=fill)
        self.height, self.width = images.shape[1:3]
        count = tf.shape(images)[0]
        self.first = tf.range(count)[:, None, None] * (self.height * self.width)
        self.flat = tf.reshape(images, [count * self.height * self.width, images.shape[3]])

    def __call__(self, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        y, x = self._inside(row, self.height), self._inside(column, self.width)
        return tf.gather(self.flat, self.first + y * self.width + x)

    def _inside(self, place: tf.Tensor, size: int) -> tf.Tensor:
        index = tf.cast(place, tf.int32)
        if self.mode == "constant":
            return tf.clip_by_value(index + 1, 0, size - 1)  # the image has a border
        if self.mode == "nearest":
            return tf.clip_by_value(index, 0, size - 1)
        if self.mode == "wrap":
            return index % size
        index %= 2 * size
        return tf.minimum(index, 2 * size - 1 - index)

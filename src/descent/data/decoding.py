"""Image files decoded inside the graph, brought upright and to one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from etils import epy

from descent.types import Plan, Spec, Split

with epy.lazy_imports():
    import tensorflow as tf

Fit = Literal["crop", "pad"]


class Samples(NamedTuple):
    """Files of one split, in the order of their paths: paths, class numbers and EXIF orientations, each [m]."""

    paths: np.ndarray
    labels: np.ndarray
    orientations: np.ndarray

    def at(self, which: np.ndarray) -> Samples:
        return Samples(*(column[which] for column in self))


class OpenFolder:
    """An open folder: files are read and decoded as they are asked for."""

    def __init__(self, spec: Spec, splits: Mapping[Split, Samples], fit: Fit) -> None:
        self.spec, self.fit = spec, fit
        with tf.device("CPU"):
            self.splits = {
                split: Samples(*(tf.constant(column) for column in samples)) for split, samples in splits.items()
            }

    def content(self, place: tf.Tensor) -> tf.Tensor:
        """The bytes of a file."""
        return tf.io.read_file(place)

    def gather(self, split: Split, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images uint8 [m, h, w, c] and labels int32 [m] at `indices` [m]."""
        return self.gather_cut(split, indices, {}, lambda image, _, size: fit(image, size, self.fit))

    def gather_cut(
        self, split: Split, indices: tf.Tensor, windows: Plan, cut: Callable[..., tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same, each image brought to its size by `cut(image, window, size)`; every window tensor is [m, ...]."""
        paths, labels, orientations = (tf.gather(column, indices) for column in self.splits[split])
        images = tf.map_fn(
            lambda one: decoded(
                self.content(one[0]), one[1], self.spec.shape, lambda image, size: cut(image, one[2], size)
            ),
            (paths, orientations, windows),
            fn_output_signature=tf.TensorSpec(self.spec.shape, tf.uint8),
        )
        return images, labels


class OpenContents(OpenFolder):
    """The same of files whose contents are held in memory: they stand where the paths do."""

    def content(self, place: tf.Tensor) -> tf.Tensor:
        return place


def decoded(
    content: tf.Tensor, orientation: tf.Tensor, shape: tuple[int, ...], bring: Callable[..., tf.Tensor]
) -> tf.Tensor:
    """The image in the bytes of a file, upright, uint8 of `shape` [h, w, c]; `bring(image, size)` sees to the size."""
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    fitted = bring(upright(image, orientation), shape[:2])
    if shape[-1] == 1:
        fitted = tf.image.rgb_to_grayscale(fitted)
    return tf.ensure_shape(tf.cast(tf.round(tf.clip_by_value(fitted, 0.0, 255.0)), tf.uint8), shape)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image [h, w, c] as it was seen through the camera (EXIF 2.32, tag 0x0112).

    5 to 8 are transposed; then 3, 4, 7 and 8 are upside down, and 2, 3, 6 and 7 left side right.
    """
    image = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    flipped = [tf.reduce_any(orientation == [3, 4, 7, 8]), tf.reduce_any(orientation == [2, 3, 6, 7])]
    return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack(flipped)))


def fit(image: tf.Tensor, size: tuple[int, ...], how: Fit) -> tf.Tensor:
    """The image [h, w, c], scaled about its middle, to [*size, c] in float32: bilinear, antialiased, aspect kept."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    ratios = tf.constant(size, tf.float32) / shape
    scale = tf.reduce_max(ratios) if how == "crop" else tf.reduce_min(ratios)
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=tf.stack([scale, scale]),
        translation=(tf.constant(size, tf.float32) - scale * shape) / 2,
        kernel_type="triangle",
        antialias=True,
    )[0]

"""Random-resized crop: a window of random size, shape and place, brought back to the size of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from descent import seeds
from descent.augmentation import pixels
from descent.types import FlagOrAuto, Kind, Plan, Positive, Spec, part

with epy.lazy_imports():
    import tensorflow as tf

ATTEMPTS = 10  # as torchvision draws
Interval = tuple[Positive, Positive]


@part
class RandomResizedCrop:
    """Windows of random area and aspect (Szegedy et al. 2015, section 6; torchvision's `RandomResizedCrop`), and flips.

    The area is uniform in `area`, the aspect uniform in its logarithm; sides are `sqrt(area * aspect)` and
    `sqrt(area / aspect)` in whole pixels, and the window lies anywhere in the image. One that does not fit is drawn
    again, at most 9 times; then it is the largest window in the middle of an allowed aspect. From an image folder the
    window is cut out of the image as it is in its file, before that is brought to the data's size.

    Attributes:
        area: smallest and largest area, as shares of the image.
        aspect: smallest and largest width / height, in pixels.
        flip: flip half of the images; "auto": only where a mirror image keeps its label, as the data says.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    cuts: ClassVar[bool] = True

    area: Interval = (0.08, 1.0)
    aspect: Interval = (3 / 4, 4 / 3)
    flip: FlagOrAuto = "auto"

    def __post_init__(self) -> None:
        if not self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area={list(self.area)} should be the smaller share, then the larger, at most 1")
        if not self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect={list(self.aspect)} should be the smaller ratio, then the larger")

    def resolved(self, spec: Spec) -> RandomResizedCrop:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For b = `shape[0]` images: `flip` [b] bool, and `window`, of which `box` makes pixels.

        `area` [b, 10], `aspect` [b, 10], `place` [b, 2] down and right in [0, 1).
        """
        areas, aspects, places, flips = seeds.split(seed, 4)
        tries = [shape[0], ATTEMPTS]
        low, high = (math.log(ratio) for ratio in self.aspect)
        window = {
            "area": self.area[0] + seeds.uniform(areas, tries) * (self.area[1] - self.area[0]),
            "aspect": tf.exp(low + seeds.uniform(aspects, tries) * (high - low)),
            "place": seeds.uniform(places, [shape[0], 2]),
        }
        flip = seeds.uniform(flips, [shape[0]]) < (0.5 if self.flip is True else 0.0)
        return {"window": window, "flip": flip}

    def window(self, plan: Plan) -> Plan:
        """What of a plan `cut` takes, for all images."""
        return plan["window"]

    def rest(self, plan: Plan) -> Plan:
        """What of a plan is left when the windows are cut already."""
        return {"flip": plan["flip"]}

    def cut(self, image: tf.Tensor, window: Plan, size: tuple[int, ...]) -> tf.Tensor:
        """The window of one image [h, w, c], brought to [*size, c] in float32: bilinear, antialiased."""
        top, left, height, width = tf.unstack(box(window, tf.shape(image)[0], tf.shape(image)[1], self.aspect))
        inside = tf.cast(image[top : top + height, left : left + width], tf.float32)
        return tf.raw_ops.ScaleAndTranslate(
            images=inside[None],
            size=size,
            scale=tf.constant(size, tf.float32) / tf.cast(tf.stack([height, width]), tf.float32),
            translation=[0.0, 0.0],
            kernel_type="triangle",
            antialias=True,
        )[0]

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        """The windows, where the plan has them, of images [b, h, w, c]; then the flips."""
        if "window" in plan:
            size, dtype = inputs.shape[1:3], inputs.dtype
            cut = tf.map_fn(
                lambda pair: self.cut(pair[0], pair[1], tuple(size)),
                (inputs, plan["window"]),
                fn_output_signature=tf.TensorSpec(inputs.shape[1:], tf.float32),
            )
            inputs = tf.cast(tf.round(cut) if dtype.is_integer else cut, dtype)
        return tf.where(plan["flip"][:, None, None, None], tf.reverse(inputs, [2]), inputs)


def box(window: Plan, height: tf.Tensor, width: tf.Tensor, aspect: Interval) -> tf.Tensor:
    """Top, left, height and width (int32 [4]) of the window in an image of so many rows and columns.

    `window`: `area` [t], `aspect` [t], `place` [2]. The first of the t that fits; none: the middle.
    """
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = window["area"] * rows * columns
    tall, wide = tf.round(tf.sqrt(area / window["aspect"])), tf.round(tf.sqrt(area * window["aspect"]))
    fits = (tall >= 1) & (tall <= rows) & (wide >= 1) & (wide <= columns)
    first = tf.argmax(fits)
    drawn = tf.stack([tf.gather(tall, first), tf.gather(wide, first)])
    whole = tf.stack([rows, columns])
    # No draw fits: all of the image, cut where it is wider or taller than allowed.
    middle = tf.maximum(1.0, tf.stack([tf.minimum(rows, tf.round(columns / aspect[0])),
                                       tf.minimum(columns, tf.round(rows * aspect[1]))]))  # fmt: skip
    sides = tf.where(tf.reduce_any(fits), drawn, middle)
    anywhere = tf.floor(window["place"] * (whole - sides + 1))
    corner = tf.where(tf.reduce_any(fits), anywhere, tf.floor((whole - sides) / 2))
    return tf.cast(tf.concat([tf.minimum(corner, whole - sides), sides], axis=0), tf.int32)

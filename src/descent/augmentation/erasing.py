"""Boxes of an image erased: random erasing and cutout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from etils import epy

from descent import seeds
from descent.augmentation import pixels
from descent.augmentation.mixing import outside_box
from descent.augmentation.pixels import Fill, Largest
from descent.types import Fraction, Kind, Plan, Positive, Spec, part

with epy.lazy_imports():
    import tensorflow as tf

ATTEMPTS = 10
Interval = tuple[Positive, Positive]


@part
class RandomErasing:
    """Random erasing (Zhong et al. 2020, algorithm 1): a box of random size, shape and place is overwritten.

    The area is uniform in `area`; the aspect r is uniform in its logarithm, so that a tall box is as likely as a wide
    one (the paper's uniform draw prefers tall ones); sides are `sqrt(area r)` and `sqrt(area / r)` in whole
    pixels, and the box lies anywhere in the image. One that does not fit is drawn again, at most 9 times.

    Attributes:
        probability: chance that an image is erased at all.
        area: smallest and largest area, as shares of the image.
        aspect: smallest and largest height / width.
        fill: noise (uniform for each pixel and channel) or constant (`value`).
        value: for fill constant: from 0 (black) to 1 (white), or the data's mean, which the model sees as zero.
        largest: the largest raw value; "auto": as the data says (255 for bytes).
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    probability: Fraction = 0.5
    area: Interval = (0.02, 0.4)
    aspect: Interval = (0.3, 3.3)
    fill: Literal["noise", "constant"] = "noise"
    value: Fill = 0.0
    largest: Largest = "auto"

    def __post_init__(self) -> None:
        if not self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area={list(self.area)} should be the smaller share, then the larger, at most 1")
        if not self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect={list(self.aspect)} should be the smaller ratio, then the larger")

    def resolved(self, spec: Spec) -> RandomErasing:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For images of `shape` [b, h, w, c]: `box` [b, 4] (top, bottom, left, right), empty where nothing is erased.

        With noise also `noise` [b, h, w, c] in [0, 1).
        """
        coins, sizes, places, noise = seeds.split(seed, 4)
        tall, wide, fits = self._sides(sizes, shape)
        rows, columns = tf.unstack(seeds.uniform(places, [shape[0], 2]), axis=1)
        # A uniform place among those where the box lies inside.
        top = tf.floor(rows * (shape[1] - tall + 1))
        left = tf.floor(columns * (shape[2] - wide + 1))
        box = tf.stack([top, top + tall, left, left + wide], axis=1)
        erased = fits & (seeds.uniform(coins, [shape[0]]) < self.probability)
        box = tf.where(erased[:, None], tf.cast(box, tf.int32), 0)
        return {"box": box} | ({"noise": seeds.uniform(noise, shape)} if self.fill == "noise" else {})

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        return erase(inputs, plan["box"], plan.get("noise", self.value), pixels.top(self.largest, inputs.dtype))

    def _sides(self, seed: tf.Tensor, shape: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Height and width of the first attempt that fits, in whole pixels, and whether one did: three times [b]."""
        areas, aspects = seeds.split(seed, 2)
        attempts = [shape[0], ATTEMPTS]
        area = _between(self.area[0], self.area[1], seeds.uniform(areas, attempts)) * (shape[1] * shape[2])
        aspect = tf.exp(_between(math.log(self.aspect[0]), math.log(self.aspect[1]), seeds.uniform(aspects, attempts)))
        tall = tf.maximum(1.0, tf.round(tf.sqrt(area * aspect)))
        wide = tf.maximum(1.0, tf.round(area / tall))  # of the rounded height: the area stays as close as it can
        fits = (tall <= shape[1]) & (wide <= shape[2])
        first = tf.argmax(fits, axis=1)
        return (*(tf.gather(side, first, batch_dims=1) for side in (tall, wide)), tf.reduce_any(fits, axis=1))


@part
class Cutout:
    """Cutout (DeVries & Taylor 2017): a square about a uniform pixel, cut where it crosses the border.

    Attributes:
        size: side of the square, as a share of the image's shorter side.
        value: what it becomes: from 0 (black) to 1 (white), or the data's mean (the paper's choice: the model sees
            zero).
        largest: the largest raw value; "auto": as the data says (255 for bytes).
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    size: Fraction = 0.5
    value: Fill = "mean"
    largest: Largest = "auto"

    def resolved(self, spec: Spec) -> Cutout:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For images of `shape` [b, h, w, c]: `box` [b, 4] (top, bottom, left, right)."""
        count, height, width = shape[:3]
        side = round(self.size * min(height, width))
        keys = seeds.split(seed, 2)

        def edges(key: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
            low = seeds.integers(key, [count], 0, size) - side // 2
            return tf.maximum(low, 0), tf.minimum(low + side, size)

        return {"box": tf.stack([*edges(keys[0], height), *edges(keys[1], width)], axis=1)}

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        return erase(inputs, plan["box"], self.value, pixels.top(self.largest, inputs.dtype))


def _between(low: float, high: float, share: tf.Tensor) -> tf.Tensor:
    """From `low` to `high` as `share` goes from 0 to 1."""
    return low + (high - low) * share


def erase(inputs: tf.Tensor, box: tf.Tensor, fill: Fill | tf.Tensor, top: float) -> tf.Tensor:
    """Images with `fill` (shares of `top`; a number, one for each channel, or one for each value) in their boxes."""
    if isinstance(fill, str):
        raise ValueError("value=mean is decided by the data: use the part that resolved(spec) returns")
    values = pixels.restored(tf.convert_to_tensor(fill, tf.float32) * top, inputs.dtype, top)
    outside = outside_box(box, inputs.shape[1], inputs.shape[2]) > 0
    return tf.where(outside, inputs, values)

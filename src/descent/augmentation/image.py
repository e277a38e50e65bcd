"""Image augmentation per sample, done for the whole batch at once on raw (uint8) pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from descent import seeds
from descent.types import FlagOrAuto, Kind, Plan, Spec, Whole, part

with epy.lazy_imports():
    import tensorflow as tf


@part
class NoSampleAugmentation:
    """Samples as they are."""

    def resolved(self, spec: Spec) -> NoSampleAugmentation:
        return self

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        return {}

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        return inputs


@part
class FlipCrop:
    """Random shifts (a crop from the zero-padded image) and left-right flips (He et al. 2016, section 4.2).

    Attributes:
        shift: largest shift up, down, left or right, in pixels.
        flip: flip half of the images; "auto": only where a mirror image keeps its label, as the data says.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    shift: Whole = 2
    flip: FlagOrAuto = "auto"

    def resolved(self, spec: Spec) -> FlipCrop:
        return dataclasses.replace(self, flip=spec.mirrors) if self.flip == "auto" else self

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For images of `shape` [b, h, w, c]: `flip` [b] bool, `shift` [b, 2] rows and columns."""
        flips, shifts = seeds.split(seed, 2)
        flip = seeds.uniform(flips, [shape[0]]) < (0.5 if self.flip is True else 0.0)
        shift = seeds.integers(shifts, [shape[0], 2], -self.shift, self.shift + 1)
        return {"flip": flip, "shift": shift}

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        """Two gathers: rows, then columns (which also flips)."""
        height, width = inputs.shape[1], inputs.shape[2]
        padding = [[0, 0], [self.shift] * 2, [self.shift] * 2, [0, 0]]
        rows = tf.range(height)[None] + self.shift + plan["shift"][:, :1]
        columns = tf.range(width)[None] + self.shift + plan["shift"][:, 1:]
        columns = tf.where(plan["flip"][:, None], columns[:, ::-1], columns)
        shifted = tf.gather(tf.pad(inputs, padding), rows, axis=1, batch_dims=1)
        return tf.gather(shifted, columns, axis=2, batch_dims=1)

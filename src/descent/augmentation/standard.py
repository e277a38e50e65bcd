"""The usual moves and colour changes, each with a range of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

from etils import epy
from pydantic import Field

from descent import seeds
from descent.augmentation import color, geometry, pixels
from descent.augmentation.geometry import FillMode, Interpolation
from descent.augmentation.pixels import Largest
from descent.types import FlagOrAuto, Fraction, Kind, NonNegative, Plan, Spec, part

with epy.lazy_imports():
    import tensorflow as tf


@part
class Standard:
    """Flips, zooms, rotations, shears and shifts as one warp, then changes of colour as one matrix.

    Every amount is drawn for each image by itself, uniformly and symmetrically about "no change"; 0 turns it off.
    Pixels are interpolated once for all moves together, and rounded and cut to the range once at the end.

    Attributes:
        flip: mirror half of the images left-right; "auto": only where that keeps the label, as the data says.
        zoom: largest enlargement: a factor between 1 / (1 + zoom) and 1 + zoom, uniform in its logarithm.
        rotation: largest turn either way, in degrees.
        shear: largest slide along x and along y, in pixels for each pixel across.
        translation: largest shift either way, as a share of the height and of the width.
        brightness: largest change of brightness: a factor of 1 - brightness to 1 + brightness.
        contrast: largest change of the distance from the mean grey, as a factor in the same way.
        saturation: largest change of the distance from grey, in the same way; does nothing to grey images.
        hue: largest turn of the colours either way, as a share of the full circle; does nothing to grey images.
        interpolation: of moved pixels.
        fill_mode: what comes in from outside: `fill_value`, the mirror image, the edge, or the other side.
        fill_value: for fill_mode constant, from 0 (black) to 1 (white).
        largest: the largest raw value; "auto": as the data says (255 for bytes).
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)

    flip: FlagOrAuto = "auto"
    zoom: NonNegative = 0.1
    rotation: Annotated[NonNegative, Field(le=180)] = 10.0
    shear: NonNegative = 0.1
    translation: Fraction = 0.1
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: Annotated[NonNegative, Field(le=0.5)] = 0.05
    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "constant"
    fill_value: Fraction = 0.0
    largest: Largest = "auto"

    def resolved(self, spec: Spec) -> Standard:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For images of `shape` [b, h, w, c], only what is on; the rest draws nothing else.

        `flip` [b] bool, `zoom` [b] logarithm of the factor, `rotation` [b] radians, `shear` [b, 2] x and y,
        `translation` [b, 2] pixels down and right; `brightness`, `contrast`, `saturation`, `hue` [b].
        """
        ranges = self._ranges(shape)
        keys = dict(zip(["flip", *ranges], seeds.split(seed, 1 + len(ranges)), strict=True))
        plan = {name: symmetric(keys[name], shape[0], limit) for name, limit in ranges.items() if _on(limit)}
        return plan | ({"flip": seeds.uniform(keys["flip"], [shape[0]]) < 0.5} if self.flip is True else {})

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        """One warp, then the colours: what the plan holds, and nothing else."""
        return pixels.compiled(self._applied)(plan, inputs)

    def _applied(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        top = pixels.top(self.largest, inputs.dtype)
        x, matrix = tf.cast(inputs, tf.float32), geometry.composed(plan)
        if matrix is not None:
            fill = self.fill_value * top
            x = geometry.warp(x, matrix, interpolation=self.interpolation, fill_mode=self.fill_mode, fill=fill)
        return pixels.restored(color.recolored(x, plan), inputs.dtype, top)

    def _ranges(self, shape: Sequence[int]) -> dict[str, float | list[float]]:
        """The largest amounts in the units of the plan."""
        return {
            "zoom": math.log1p(self.zoom),
            "rotation": math.radians(self.rotation),
            "shear": [self.shear] * 2,
            "translation": [self.translation * shape[1], self.translation * shape[2]],
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }


def _on(limit: float | list[float]) -> bool:
    return any(limit) if isinstance(limit, list) else limit > 0


def symmetric(seed: tf.Tensor, count: int, limit: float | list[float]) -> tf.Tensor:
    """Uniform in [-limit, limit): float32 [count], or [count, m] for m limits."""
    shape = [count, len(limit)] if isinstance(limit, list) else [count]
    return (2 * seeds.uniform(seed, shape) - 1) * limit

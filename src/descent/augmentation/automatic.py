"""Automatic augmentation without a search: RandAugment and TrivialAugment.

Both draw an operation for each image and apply it with a strength. Of one round, all geometric operations are one
warp of the batch (the identity where another was drawn), and so are the affine changes of colour one product with a
matrix; the other operations are computed for the batch and kept where they were drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from etils import epy
from pydantic import BeforeValidator, Field

from descent import seeds
from descent.augmentation import color, geometry, pixels
from descent.augmentation.geometry import FillMode, Interpolation
from descent.augmentation.pixels import Largest
from descent.types import Count, Fraction, Kind, NonNegative, Plan, Spec, part

with epy.lazy_imports():
    import tensorflow as tf

Operation = Literal[
    "identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y", "brightness", "contrast", "saturation",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
]  # fmt: skip
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


def _operations(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("should name at least one operation")
    return tuple(value) if isinstance(value, list) else value


Operations = Annotated[tuple[Operation, ...], BeforeValidator(_operations)]
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
LEVELS = 30  # full strength, as in TrivialAugment and in torchvision; RandAugment's paper goes to 10


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What full strength is.

    Attributes:
        rotate: degrees.
        shear: pixels for each pixel across.
        translate: share of the image's size.
        blend: change of brightness, contrast, saturation and sharpness, as a share.
        posterize: bits of 8 that are lost.
    """

    rotate: float
    shear: float
    translate: float
    blend: float
    posterize: int


# Cubuk et al. 2020 take the ranges of AutoAugment (Cubuk et al. 2019); translations are 150 of 331 pixels.
NARROW = Ranges(rotate=30, shear=0.3, translate=150 / 331, blend=0.9, posterize=4)
# Mueller & Hutter 2021, the "wide" ones. Their 32 pixels, all of a small image, are the share above here.
WIDE = Ranges(rotate=135, shear=0.99, translate=150 / 331, blend=0.99, posterize=6)


@part
class Automatic:
    """What RandAugment and TrivialAugment share: everything but the draw."""

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    ranges: ClassVar[Ranges] = NARROW

    operations: Operations = OPERATIONS
    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "constant"
    fill_value: Fraction = 0.0
    largest: Largest = "auto"

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        """`plan`: `operation` [b, rounds], places in `OPERATIONS`; `magnitude` [b, rounds] in [-1, 1].

        Operations without a direction take the absolute value; identity, autocontrast and equalize take none.
        Values are cut to the range in each round, and rounded once at the end.
        """
        top, x = pixels.top(self.largest, inputs.dtype), tf.cast(inputs, tf.float32)

        def change(x: tf.Tensor, operation: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
            return self._recoloured(self._moved(x, operation, magnitude, top), operation, magnitude, top)

        compiled = pixels.compiled(change)
        for operation, magnitude in zip(
            tf.unstack(plan["operation"], axis=1), tf.unstack(plan["magnitude"], axis=1), strict=True
        ):
            x = compiled(x, operation, magnitude)
            if "equalize" in self.operations:  # by itself: XLA counts a histogram slowly
                x = color.equalize(x, operation == OPERATIONS.index("equalize"), top)
        return pixels.restored(x, inputs.dtype, top)

    def _moved(self, x: tf.Tensor, operation: tf.Tensor, magnitude: tf.Tensor, top: float) -> tf.Tensor:
        if not set(self.operations) & set(MOVES):
            return x
        rotate, shear_x, shear_y, right, down = (
            tf.where(operation == OPERATIONS.index(name), magnitude, 0.0) for name in MOVES
        )
        full, (height, width) = self.ranges, x.shape[1:3]
        moves = {
            "rotation": rotate * math.radians(full.rotate),
            "shear": tf.stack([shear_x, shear_y], axis=1) * full.shear,
            "translation": tf.stack([down * height, right * width], axis=1) * full.translate,
        }
        matrix = geometry.composed(moves)
        return geometry.warp(
            x, matrix, interpolation=self.interpolation, fill_mode=self.fill_mode, fill=self.fill_value * top
        )

    def _recoloured(self, x: tf.Tensor, operation: tf.Tensor, magnitude: tf.Tensor, top: float) -> tf.Tensor:
        """All but `equalize`, each the identity where its magnitude is zero, or it is not the chosen one."""
        full, affine = self.ranges, [name for name in self.operations if name in color.AFFINE]
        drawn = {name: operation == OPERATIONS.index(name) for name in self.operations}
        size = {name: tf.where(chosen, magnitude, 0.0) for name, chosen in drawn.items()}
        x = color.recolored(x, {name: size[name] * full.blend for name in affine})
        if "sharpness" in drawn:
            x = color.sharpness(x, size["sharpness"] * full.blend)
        x = tf.clip_by_value(x, 0.0, top)  # what follows stays within the range, and takes it for granted
        if "posterize" in drawn:
            x = color.posterize(x, tf.round(tf.abs(size["posterize"]) * full.posterize), top)
        if "solarize" in drawn:
            x = color.solarize(x, tf.abs(size["solarize"]), top)
        return color.autocontrast(x, drawn["autocontrast"], top) if "autocontrast" in drawn else x

    def _drawn(self, seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """Uniform among the chosen operations, as places in `OPERATIONS`."""
        places = tf.constant([OPERATIONS.index(name) for name in self.operations])
        return tf.gather(places, seeds.integers(seed, shape, 0, len(self.operations)))


def signs(seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """-1 or 1, equally likely."""
    return tf.where(seeds.uniform(seed, shape) < 0.5, -1.0, 1.0)


@part
class RandAugment(Automatic):
    """RandAugment (Cubuk et al. 2020): N operations for each image, all of the same magnitude M, either way.

    Attributes:
        rounds: N, operations one after another; the same one may come twice.
        magnitude: M, from 0 (none) to 30 (full strength: 30 degrees, slides of 0.3, shifts of 45 %, blends of 90 %).
        operations: those that are drawn from.
        interpolation: of moved pixels.
        fill_mode: what comes in from outside: `fill_value`, the mirror image, the edge, or the other side.
        fill_value: for fill_mode constant, from 0 (black) to 1 (white).
        largest: the largest raw value; "auto": as the data says (255 for bytes).
    """

    ranges: ClassVar[Ranges] = NARROW

    rounds: Count = 2
    magnitude: Annotated[NonNegative, Field(le=LEVELS)] = 9.0

    def resolved(self, spec: Spec) -> RandAugment:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For b = `shape[0]` images: `operation` [b, rounds] int32, `magnitude` [b, rounds]: M / 30 or -M / 30."""
        operations, directions = seeds.split(seed, 2)
        drawn = [shape[0], self.rounds]
        magnitude = signs(directions, drawn) * (self.magnitude / LEVELS)
        return {"operation": self._drawn(operations, drawn), "magnitude": magnitude}


@part
class TrivialAugment(Automatic):
    """TrivialAugment (Mueller & Hutter 2021, algorithm 1): one operation for each image, of uniform magnitude.

    The ranges are the paper's wide ones; the magnitude is one of 31 levels from none to full strength, either way.

    Attributes:
        operations: those that are drawn from.
        interpolation: of moved pixels.
        fill_mode: what comes in from outside: `fill_value`, the mirror image, the edge, or the other side.
        fill_value: for fill_mode constant, from 0 (black) to 1 (white).
        largest: the largest raw value; "auto": as the data says (255 for bytes).
    """

    ranges: ClassVar[Ranges] = WIDE

    def resolved(self, spec: Spec) -> TrivialAugment:
        return pixels.resolved(self, spec)

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For b = `shape[0]` images: `operation` [b, 1] int32, `magnitude` [b, 1] in [-1, 1]."""
        operations, levels, directions = seeds.split(seed, 3)
        drawn = [shape[0], 1]
        level = tf.cast(seeds.integers(levels, drawn, 0, LEVELS + 1), tf.float32)
        magnitude = signs(directions, drawn) * level / LEVELS
        return {"operation": self._drawn(operations, drawn), "magnitude": magnitude}

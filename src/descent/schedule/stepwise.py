"""Shapes that are constant but for drops. These are counted from the start of the run, warm-up and all."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from descent.schedule.base import LAST, Schedule
from descent.types import Fraction, Length, Lengths, is_zero, part


@part
class Step(Schedule):
    """`gamma ** floor(x / every)`: a drop at regular intervals, counted from the start of the run.

    Attributes:
        every: length between drops; the new value holds from the step of the drop on.
        gamma: factor of each drop.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown", "every")
    lowest: ClassVar[float] = -math.inf

    every: Length = 1 / 3
    gamma: Fraction = 0.1

    def __post_init__(self) -> None:
        if is_zero(self.every):
            raise ValueError("every should be above 0")

    def shape(self, u: np.ndarray) -> np.ndarray:
        # The last drop of `every: 1/3` would fall on the very end; none may be a step late by a rounding.
        drops = np.floor(np.minimum(self.elapsed(u), LAST) / float(self.every) * (1 + 1e-12))
        return self.gamma**drops


@part
class MultiStep(Schedule):
    """`gamma ** (number of milestones at or before x)`, x the fraction of the run.

    He et al. 2016 (section 4.2, CIFAR-10) divide by 10 at 32 and 48 of 64 thousand steps: the defaults.

    Attributes:
        milestones: lengths from the start of the run, in any order and any units; the new value holds from the
            step of a milestone on, and one past the end never comes.
        gamma: factor of each drop.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown", "milestones")
    lowest: ClassVar[float] = -math.inf

    milestones: Lengths = (0.5, 0.75)
    gamma: Fraction = 0.1

    def shape(self, u: np.ndarray) -> np.ndarray:
        x = np.minimum(self.elapsed(u), LAST)
        # A milestone in epochs may be the very middle of a step; rounding must not decide whether it holds there.
        milestones = np.array(self.milestones, np.float64) - 1e-12
        return self.gamma ** np.sum(x[..., None] >= milestones, axis=-1)

"""What every schedule has: a warm-up before its shape, a cool-down over its end, and a floor."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from descent.types import Fraction, Length, part

# A drop or a new epoch that would fall on the very end of the run, where no step is, never comes.
LAST = 1 - 1e-9


@part
class Schedule:
    """A shape with a linear warm-up before it, a linear cool-down over its end, and a floor.

    `rise(x) * (floor + (1 - floor) * shape(u) * fall(x))`, where x is the fraction of the run, u the fraction of
    what follows the warm-up, `rise` goes from 0 to 1 during the warm-up (Goyal et al. 2017, section 2.2) and
    `fall` from 1 to 0 during the cool-down (Zhai et al. 2022, section 3.5). Past the end it keeps its end value.

    Attributes:
        warmup: length of the linear rise from zero.
        cooldown: length of the linear fall to the floor, over the end of the run.
        floor: fraction of the peak that the shape's zero is mapped to.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown")
    # Of what `shape` is given: below 0 during the warm-up, for shapes that count from the start of the run.
    lowest: ClassVar[float] = 0.0

    warmup: Length = 0.0
    cooldown: Length = 0.0
    floor: Fraction = 0.0

    def __call__(self, progress: np.ndarray) -> np.ndarray:
        x = np.clip(np.asarray(progress, np.float64), 0.0, 1.0)
        warmup, cooldown = float(self.warmup), float(self.cooldown)
        u = np.clip((x - warmup) / (1 - warmup), self.lowest, 1.0) if warmup < 1 else np.zeros_like(x)
        rise = np.minimum(1.0, x / warmup) if warmup else 1.0
        fall = self.fall(np.minimum(1.0, (1 - x) / cooldown)) if cooldown else 1.0
        return rise * (self.floor + (1 - self.floor) * self.shape(u) * fall)

    def shape(self, u: np.ndarray) -> np.ndarray:
        """The shape proper: from [0, 1], the run after its warm-up, to [0, 1]."""
        raise NotImplementedError

    def fall(self, left: np.ndarray) -> np.ndarray:
        """The form of the cool-down: from what is left of it, 1 to 0, to a factor from 1 to 0."""
        return left

    def elapsed(self, u: np.ndarray) -> np.ndarray:
        """The fraction of the whole run, warm-up and all, for shapes that count from its start."""
        return float(self.warmup) + u * (1 - float(self.warmup))

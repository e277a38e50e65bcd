"""Shapes that rise again, or rise by themselves."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from descent.schedule.base import Schedule
from descent.types import Count, Fraction, Length, Number, part

AtLeastOne = Annotated[Number, Field(ge=1)]


@part
class CosineRestarts(Schedule):
    """Half cosine waves that start over, each longer than the one before (Loshchilov & Hutter 2017, SGDR, eq. 5).

    Cycle i = 0, 1, ... of n has the length m^i / (1 + m + ... + m^(n-1)) of what follows the warm-up; at the
    fraction v of it the rate is `decay^i (1 + cos(pi v)) / 2`. A new cycle holds from its first step on, and the
    last one ends with the run. The paper's lowest rate is `floor`.

    Attributes:
        cycles: number of waves, n.
        multiplier: length of a cycle in lengths of the one before, m (the paper's T_mult).
        decay: peak of a cycle as a fraction of the peak before.
    """

    cycles: Count = 3
    multiplier: AtLeastOne = 2.0
    decay: Fraction = 1.0

    def shape(self, u: np.ndarray) -> np.ndarray:
        # Relative to the last cycle, as powers below 1 cannot overflow.
        lengths = self.multiplier ** np.arange(1.0 - self.cycles, 1.0)
        lengths /= lengths.sum()
        starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
        cycle = np.searchsorted(starts, u, side="right") - 1
        v = np.minimum(1.0, (u - starts[cycle]) / lengths[cycle])
        return self.decay**cycle * 0.5 * (1 + np.cos(np.pi * v))


@part
class OneCycle(Schedule):
    """From 1 / div up to the peak, then down to 1 / final_div (Smith & Topin 2018, super-convergence).

    With `ease(t) = t` (linear, as in the paper) or `(1 - cos(pi t)) / 2` (cosine, as in later libraries), p the
    share of the rise, `up = min(1, u / p)` and `down = max(0, (u - p) / (1 - p))`:
    `(1/div + (1 - 1/div) ease(up)) * (1 - (1 - 1/final_div) ease(down))`.
    It rises by itself: `warmup` comes on top and is best left at zero. The momentum is not cycled.

    Attributes:
        rise: length of the rise to the peak.
        div: the peak over the first rate.
        final_div: the peak over the last rate (in some libraries: the first rate over the last).
        anneal: form of the rise and of the fall.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown", "rise")

    rise: Length = 0.3
    div: AtLeastOne = 25.0
    final_div: AtLeastOne = 1e4
    anneal: Literal["cosine", "linear"] = "cosine"

    def shape(self, u: np.ndarray) -> np.ndarray:
        warmup, rise = float(self.warmup), float(self.rise)
        p = min(1.0, rise / (1 - warmup)) if warmup < 1 else 1.0
        up = np.minimum(1.0, u / p) if p else np.ones_like(u)
        down = np.maximum(0.0, (u - p) / (1 - p)) if p < 1 else np.zeros_like(u)
        first, last = 1 / self.div, 1 / self.final_div
        return (first + (1 - first) * self._ease(up)) * (1 - (1 - last) * self._ease(down))

    def _ease(self, t: np.ndarray) -> np.ndarray:
        return 0.5 * (1 - np.cos(np.pi * t)) if self.anneal == "cosine" else t

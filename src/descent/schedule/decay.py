"""Shapes that fall smoothly from the peak, and the one that stays there."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from descent.schedule.base import Schedule
from descent.types import Fraction, Length, Positive, is_zero, part


@part
class Constant(Schedule):
    """The peak throughout."""

    def shape(self, u: np.ndarray) -> np.ndarray:
        return np.ones_like(u)


@part
class Linear(Schedule):
    """`1 - (1 - end) u`: a straight line from the peak to `end` (Defazio et al. 2023, with `end` 0).

    Attributes:
        end: fraction of the peak at the end of the run.
    """

    end: Fraction = 0.0

    def shape(self, u: np.ndarray) -> np.ndarray:
        return 1 - (1 - self.end) * u


@part
class Polynomial(Schedule):
    """`end + (1 - end) (1 - u)^power`: power 2 in LARS (You et al. 2017), 0.9 in DeepLab (Chen et al. 2018).

    Attributes:
        power: above 1 it falls fast at first and flattens, below 1 the other way round.
        end: fraction of the peak at the end of the run.
    """

    power: Positive = 2.0
    end: Fraction = 0.0

    def shape(self, u: np.ndarray) -> np.ndarray:
        return self.end + (1 - self.end) * (1 - u) ** self.power


@part
class Cosine(Schedule):
    """Half a cosine wave, `(1 + cos(pi u)) / 2` (Loshchilov & Hutter 2017, SGDR, eq. 5, one cycle)."""

    def shape(self, u: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + np.cos(np.pi * u))


@part
class Exponential(Schedule):
    """`end ** u`: falls by the same factor in every equal part of the run, to `end` at its end.

    Attributes:
        end: fraction of the peak at the end of the run.
    """

    end: Positive = 0.01

    def __post_init__(self) -> None:
        if self.end > 1:
            raise ValueError("end should be at most 1 (a fraction of the peak)")

    def shape(self, u: np.ndarray) -> np.ndarray:
        return self.end**u


@part
class InverseSqrt(Schedule):
    """`1 / sqrt(1 + t / timescale)`, t the length since the warm-up's end (Vaswani et al. 2017, eq. 3).

    With `timescale` equal to `warmup` = w it is the paper's: x / w during the warm-up, then sqrt(w / x), x the
    fraction of the run. The end is not zero, so a run of unknown length can be cut anywhere with a `cooldown`
    (Zhai et al. 2022, section 3.5).

    Attributes:
        timescale: length after the warm-up in which the rate falls to 1 / sqrt(2) = 71 % of the peak.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown", "timescale")

    timescale: Length = 0.05

    def __post_init__(self) -> None:
        if is_zero(self.timescale):
            raise ValueError("timescale should be above 0")

    def shape(self, u: np.ndarray) -> np.ndarray:
        since = u * (1 - float(self.warmup))
        return 1 / np.sqrt(1 + since / float(self.timescale))


@part
class WSD(Schedule):
    """Warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4.2): the peak, and a cool-down of a chosen form.

    With r the part of the cool-down that is left, the rate falls as r (linear), as (1 - cos(pi r)) / 2 (cosine),
    or as 1 - sqrt(1 - r) (the form that Hägele et al. 2024 found best). The linear form is `Constant` with a
    `cooldown`.

    Attributes:
        cooldown: length of the decay, over the end of the run.
        form: of the decay.
    """

    cooldown: Length = 0.2
    form: Literal["linear", "cosine", "1-sqrt"] = "1-sqrt"

    def shape(self, u: np.ndarray) -> np.ndarray:
        return np.ones_like(u)

    def fall(self, left: np.ndarray) -> np.ndarray:
        if self.form == "cosine":
            return 0.5 * (1 - np.cos(np.pi * left))
        return 1 - np.sqrt(1 - left) if self.form == "1-sqrt" else left

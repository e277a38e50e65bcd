"""Callbacks: pure functions of their memory and an evaluation's record. The memory is JSON and in every checkpoint.

What a callback decides (stop, keep the best weights, save) the session carries out.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from descent.types import (
    Count,
    Fraction,
    Length,
    NonNegative,
    Positive,
    ProperFraction,
    Record,
    Verdict,
    Whole,
    is_zero,
    part,
)

Mode = Literal["auto", "min", "max"]


def higher_is_better(monitor: str, mode: Mode) -> bool:
    """Losses and errors are better when lower, all else when higher."""
    if mode != "auto":
        return mode == "max"
    return monitor.rsplit("/", 1)[-1] not in ("loss", "mse", "mae", "log_loss", "ece")


def improves(value: float, best: float | None, *, higher: bool, by: float = 0.0) -> bool:
    """Whether a value beats the best so far by more than `by`; what is not a number never does."""
    if value != value:
        return False
    if best is None:
        return True
    return value > best + by if higher else value < best - by


@part
class EarlyStopping:
    """Stops when the monitored value has not improved for `patience` evaluations (Prechelt 1998).

    Attributes:
        monitor: name of an evaluated metric.
        patience: evaluations without improvement after which the run stops.
        min_delta: smallest change that counts as one.
        mode: whether lower or higher is better; "auto": by the metric's name.
    """

    monitor: str = "val/loss"
    patience: Count = 20
    min_delta: NonNegative = 0.0
    mode: Mode = "auto"

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        if self.monitor not in record:
            return Verdict(memory)
        value, best = record[self.monitor], memory.get("best")
        if improves(value, best, higher=higher_is_better(self.monitor, self.mode), by=self.min_delta):
            return Verdict({"best": value, "waited": 0})
        waited = memory.get("waited", 0) + 1
        stop = f"{self.monitor} has not improved for {waited} evaluations" if waited >= self.patience else ""
        return Verdict({"best": best, "waited": waited}, stop=stop)


@part
class Checkpoint:
    """Keeps the best weights by the monitored value, and says when and how many checkpoints are kept.

    Attributes:
        monitor: name of the evaluated metric whose best weights are kept, tested and exported.
        mode: whether lower or higher is better; "auto": by the metric's name.
        every: how often a checkpoint is written; also at the end and on an interruption.
        every_minutes: minutes after which one is written in any case; None: by `every` alone.
        keep: how many are kept.
        top_k: how many of the best weights are kept, each in a folder of its own; 1: the best alone.
    """

    monitor: str = "val/loss"
    mode: Mode = "auto"
    every: Length = 0.1
    every_minutes: Positive | None = None
    keep: Count = 2
    top_k: Count = 1

    def __post_init__(self) -> None:
        if is_zero(self.every):
            raise ValueError("every should be above 0")

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        if self.monitor not in record:
            return Verdict(memory)
        value, step = record[self.monitor], int(record["step"])
        higher = higher_is_better(self.monitor, self.mode)
        better = improves(value, memory.get("value"), higher=higher)
        if better:
            memory = {**memory, "monitor": self.monitor, "value": value, "step": step}
        if self.top_k > 1 and value == value:
            ranked = sorted([*memory.get("top", []), [value, step]], key=lambda pair: -pair[0] if higher else pair[0])
            memory = {**memory, "top": ranked[: self.top_k]}
        return Verdict(memory, best=better)


@runtime_checkable
class Watcher(Protocol):
    """A callback that also sees the loss of every step, logged or not."""

    def watch(self, memory: dict[str, Any], losses: np.ndarray) -> tuple[dict[str, Any], dict[int, str]]:
        """The new memory, and what is wrong with which of the losses (by index)."""
        ...


@part
class Spike:
    """Notes batches whose loss is far above those before: mislabelled or broken samples, or a rate at its limit.

    A loss is suspicious where it exceeds the median of the last `window` by `factor` times their typical spread,
    1.4826 MAD (the standard deviation of a normal distribution; Leys et al. 2013), and by a tenth of the median.

    Attributes:
        window: steps before, that a loss is compared with; earlier steps are not judged.
        factor: spreads above the median that are suspicious.
    """

    window: Count = 64
    factor: Positive = 10.0

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        return Verdict(memory)

    def watch(self, memory: dict[str, Any], losses: np.ndarray) -> tuple[dict[str, Any], dict[int, str]]:
        """See `Watcher`. Losses that are not finite are another matter, and left out."""
        recent, found = list(memory.get("recent", [])), {}
        for i, loss in enumerate(losses.tolist()):
            if not np.isfinite(loss):
                continue
            if len(recent) == self.window:
                median = float(np.median(recent))
                spread = 1.4826 * float(np.median(np.abs(np.array(recent) - median)))
                if loss - median > max(self.factor * spread, 0.1 * abs(median)):
                    found[i] = f"a loss of {loss:.4g} where {median:.4g} is usual"
            recent = [*recent, loss][-self.window :]
        return {"recent": recent}, found


@part
class Plateau:
    """Lowers the learning rate when the monitored value no longer improves: a factor on top of any schedule.

    Attributes:
        monitor: name of an evaluated metric.
        factor: the rate is multiplied by it, again at each plateau.
        patience: evaluations without improvement that make a plateau.
        min_delta: smallest change that counts as improvement.
        cooldown: evaluations after a reduction that are not counted.
        floor: smallest product of all reductions.
        mode: whether lower or higher is better; "auto": by the metric's name.
    """

    monitor: str = "val/loss"
    factor: ProperFraction = 0.5
    patience: Count = 5
    min_delta: NonNegative = 0.0001
    cooldown: Whole = 0
    floor: Fraction = 0.001
    mode: Mode = "auto"

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        if self.monitor not in record:
            return Verdict(memory)
        value, best, factor = record[self.monitor], memory.get("best"), memory.get("factor", 1.0)
        cooling = max(0, memory.get("cooling", 0) - 1)
        better = improves(value, best, higher=higher_is_better(self.monitor, self.mode), by=self.min_delta)
        waited = 0 if better or memory.get("cooling", 0) else memory.get("waited", 0) + 1
        if waited >= self.patience:
            factor, waited, cooling = max(self.floor, factor * self.factor), 0, self.cooldown
        memory = {"best": value if better else best, "waited": waited, "cooling": cooling, "factor": factor}
        return Verdict(memory, rate_factor=factor)

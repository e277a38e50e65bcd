"""Callbacks: pure functions of their memory and a record. The memory is JSON and part of every checkpoint.

What a callback decides (stop, keep the best weights, save) the session carries out.
"""

from __future__ import annotations

from typing import Any, Literal

from descent.types import Count, Fraction, Length, NonNegative, ProperFraction, Record, Verdict, Whole, is_zero, part

Mode = Literal["auto", "min", "max"]


def higher_is_better(monitor: str, mode: Mode) -> bool:
    """Losses and errors are better when lower, all else when higher."""
    if mode != "auto":
        return mode == "max"
    return monitor.rsplit("/", 1)[-1] not in ("loss", "mse", "mae")


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
        keep: how many are kept.
    """

    monitor: str = "val/loss"
    mode: Mode = "auto"
    every: Length = 0.1
    keep: Count = 2

    def __post_init__(self) -> None:
        if is_zero(self.every):
            raise ValueError("every should be above 0")

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        if self.monitor not in record:
            return Verdict(memory)
        value = record[self.monitor]
        if improves(value, memory.get("value"), higher=higher_is_better(self.monitor, self.mode)):
            return Verdict({"monitor": self.monitor, "value": value, "step": int(record["step"])}, best=True)
        return Verdict(memory)


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

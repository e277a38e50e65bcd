"""What a study is asked to do: the keys of `hydra/sweeper=optuna`, checked before anything starts."""

from __future__ import annotations

from typing import Literal

from descent.types import Count, Whole, part

Sampler = Literal["tpe", "cmaes", "random", "grid", "qmc"]
Pruner = Literal["none", "median", "hyperband", "asha"]
Storage = Literal["sqlite", "journal"]


@part
class Settings:
    """The keys, but for the space.

    Attributes:
        trials: in all.
        sampler: what chooses them.
        pruner: what ends those that are behind.
        storage: where the study is kept: a database, or a log for file systems on which SQLite's locks do not work.
        objective: metrics of the summary; none: the monitored one.
        seed: of the sampler.
    """

    trials: Count = 20
    sampler: Sampler = "tpe"
    pruner: Pruner = "none"
    storage: Storage = "sqlite"
    objective: tuple[str, ...] = ()
    seed: Whole = 0

    def __post_init__(self) -> None:
        if len(self.objective) < 2:
            return
        if self.pruner != "none":
            raise ValueError(f"pruner={self.pruner} needs one objective, and there are {len(self.objective)}; use none")
        if self.sampler == "cmaes":
            raise ValueError(f"sampler=cmaes needs one objective, and there are {len(self.objective)}; use tpe")

"""What a study and the launchers are asked to do: the keys of `hydra/sweeper=optuna` and `hydra/launcher`, checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from descent.types import Count, CountOrAuto, Positive, Whole, part

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


@part
class BasicLauncher:
    """It has no keys."""


@part
class PoolLauncher:
    """Warm worker processes, each running job after job.

    Attributes:
        workers: processes at a time; "auto": the cores over the threads of a job (`trainer.threads`).
        jobs_per_worker: after so many a worker is replaced.
        memory_mb: and after a job that leaves it with more memory; "auto": its part of half of the machine's.
        time_limit: seconds after which a job is ended, and has failed; None: never.
    """

    workers: CountOrAuto = "auto"
    jobs_per_worker: Count = 50
    memory_mb: Positive | Literal["auto"] = "auto"
    time_limit: Positive | None = None


@part
class RayLauncher:
    """Warm workers wherever Ray has them.

    Attributes:
        address: of the cluster, "auto" for the one this machine is part of; None: one of this machine alone.
        workers: jobs at a time; "auto": the cluster's cores over the threads of a job.
        jobs_per_worker: after so many a worker is replaced.
    """

    address: str | None = None
    workers: CountOrAuto = "auto"
    jobs_per_worker: Count = 50


@part
class SubmititLauncher:
    """A process for each job, on Slurm or here.

    Attributes:
        executor: "slurm", or "local": processes of this machine.
        workers: jobs at a time; "auto": all on Slurm, here the cores over the threads of a job.
        timeout_min: minutes a job may take in one go; then it is saved and queued again.
        signal_delay_s: seconds before that at which it is asked to; on Slurm.
        requeues: how often.
        parameters: more for submitit, those of an executor by its name: `{slurm_partition: gpu, mem_gb: 8}`.
    """

    executor: Literal["slurm", "local"] = "slurm"
    workers: CountOrAuto = "auto"
    timeout_min: Count = 240
    signal_delay_s: Whole = 120
    requeues: Whole = 20
    parameters: dict[str, Any] = Field(default_factory=dict)

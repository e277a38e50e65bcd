"""The same sweeps on a cluster, through submitit."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hydra_plugins.descent_launcher.launcher import SweepLauncher

if TYPE_CHECKING:
    from descent.sweep.job import Job
    from descent.sweep.running import Executor


class SubmititLauncher(SweepLauncher):
    """A process for each job, on Slurm or here.

    Args:
        executor: "slurm", or "local": processes of this machine.
        workers: jobs at a time; "auto": all on Slurm, here the cores over the threads of a job.
        timeout_min: minutes a job may take in one go; then it is saved and queued again.
        signal_delay_s: seconds before that at which it is asked to; on Slurm.
        requeues: how often.
        parameters: more for submitit, those of an executor by its name: `{slurm_partition: gpu, mem_gb: 8}`.
    """

    def __init__(
        self,
        executor: Literal["slurm", "local"] = "slurm",
        workers: int | str = "auto",
        timeout_min: int = 240,
        signal_delay_s: int = 120,
        requeues: int = 20,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind, self.workers, self.requeues = executor, workers, requeues
        self.parameters = {"timeout_min": timeout_min, "slurm_signal_delay_s": signal_delay_s, **(parameters or {})}

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep import cluster

        workers = cluster.at_once(list(jobs), self.kind) if self.workers == "auto" else int(self.workers)
        return contextlib.nullcontext(
            cluster.Cluster(
                self.sweep,
                executor=self.kind,
                workers=workers,
                requeues=self.requeues,
                parameters=self.parameters,
            )
        )

"""The same sweeps on a cluster of Ray's."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra_plugins.descent_launcher.launcher import SweepLauncher

if TYPE_CHECKING:
    from descent.sweep.job import Job
    from descent.sweep.running import Executor


class RayLauncher(SweepLauncher):
    """Warm workers wherever Ray has them.

    Args:
        address: of the cluster, "auto" for the one this machine is part of; None: one of this machine alone.
        workers: jobs at a time; "auto": the cluster's cores over the threads of a job.
        jobs_per_worker: after so many a worker is replaced.
    """

    def __init__(self, address: str | None = None, workers: int | str = "auto", jobs_per_worker: int = 50) -> None:
        self.address, self.workers, self.jobs_per_worker = address, workers, jobs_per_worker

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep import ray_cluster

        return ray_cluster.RayCluster(
            self.sweep,
            address=self.address,
            workers=None if self.workers == "auto" else int(self.workers),
            threads=max((job.traits.threads for job in jobs), default=1),
            calls=self.jobs_per_worker,
        )

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
    """Warm workers wherever Ray has them."""

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep import ray_cluster

        return ray_cluster.RayCluster(
            self.sweep,
            address=self.settings.address,
            workers=None if self.settings.workers == "auto" else self.settings.workers,
            threads=max((job.traits.threads for job in jobs), default=1),
            calls=self.settings.jobs_per_worker,
        )

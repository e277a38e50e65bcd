"""The same sweeps on a cluster, through submitit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra_plugins.descent_launcher.launcher import SweepLauncher

if TYPE_CHECKING:
    from descent.sweep.job import Job
    from descent.sweep.running import Executor


class SubmititLauncher(SweepLauncher):
    """A process for each job, on Slurm or here."""

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep import cluster

        asked = self.settings
        workers = cluster.at_once(list(jobs), asked.executor) if asked.workers == "auto" else asked.workers
        own = {"timeout_min": asked.timeout_min, "slurm_signal_delay_s": asked.signal_delay_s}
        return contextlib.nullcontext(
            cluster.Cluster(
                self.sweep,
                executor=asked.executor,
                workers=workers,
                requeues=asked.requeues,
                parameters={**own, **asked.parameters},
            )
        )

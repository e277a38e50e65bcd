"""Jobs placed by Ray: on a cluster of its, or on this machine. Its workers stay warm, as the pool's do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from descent.sweep import worker
from descent.sweep.job import Job, Outcome
from descent.sweep.remote import Remote
from descent.types import UserError

FOLDER = ".ray"  # in the sweep's: how far the jobs are


def task(job: Job, progress: Path, origin: worker.Origin) -> Outcome:
    """What runs in a worker of Ray's: TensorFlow once, then job after job."""
    origin.take()
    worker.warm(job.traits.environment)
    return worker.run(job, progress)


class RayCluster(Remote):
    """Runs jobs through Ray; see `conf/hydra/launcher/ray.yaml` for the arguments.

    Raises:
        UserError: Ray is not installed, or there is no cluster at that address.
    """

    def __init__(self, sweep: Path, *, address: str | None, workers: int | None, threads: int, calls: int) -> None:
        self.ray = _ray()
        self.task = self.ray.remote(max_calls=calls, max_retries=0)(task)  # it is we who try again
        given: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
        try:
            self.ray.init(**given, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"hydra.launcher.address={address}: {' '.join(str(error).split())}") from error
        cores = int(self.ray.cluster_resources().get("CPU", 1))
        super().__init__(sweep / FOLDER, workers or max(1, cores // threads))

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def place(self, job: Job) -> Any:
        """A worker serves only jobs of the same traits: Ray keeps one kind of worker for each environment."""
        self.progress(job).unlink(missing_ok=True)
        traits = {"DESCENT_TRAITS": f"{job.traits.threads} {job.traits.deterministic}", **dict(job.traits.environment)}
        remote = self.task.options(num_cpus=job.traits.threads, runtime_env={"env_vars": traits})
        return remote.remote(job, self.progress(job), worker.Origin.here())

    def over(self, handle: Any) -> bool:
        return bool(self.ray.wait([handle], timeout=0)[0])

    def result(self, handle: Any) -> Outcome:
        outcome: Outcome = self.ray.get(handle)
        return outcome

    def ask(self, handle: Any, at_once: bool) -> None:
        """Ray raises SIGINT in the worker, which the run heeds by a checkpoint."""
        self.ray.cancel(handle, force=at_once)


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else each start warns of a change to come
    try:
        import ray
    except ImportError as error:
        raise UserError("hydra/launcher=ray needs Ray: pip install -e '.[ray]'") from error
    return ray

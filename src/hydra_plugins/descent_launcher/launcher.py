"""The launchers of a sweep: every job's config is checked before the first job starts, and no job is ever lost."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

# In the place of Hydra's own of that name, which would number the folders and start over.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="basic",
    node={"_target_": "hydra_plugins.descent_launcher.launcher.BasicLauncher"},
    provider="descent",
)

if TYPE_CHECKING:
    from descent.sweep.job import Environment, Job
    from descent.sweep.running import Executor


class SweepLauncher(Launcher):
    """What the launchers share: checking, folders, what is done already, the table and the report.

    Their arguments are those of the parts of the same names in `descent.sweep.settings`.
    """

    def __init__(self, **given: Any) -> None:
        self.given = given

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.sweep = Path(str(config.hydra.sweep.dir)).absolute()
        places = (self.sweep / "multirun.yaml", self.sweep, *self.sweep.parents)
        self.missing = [place for place in places if not place.exists()]  # the innermost first

    @abstractmethod
    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        """What runs the jobs."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self.checked(job_overrides, initial_job_idx)
        self.leave(self.conduct(jobs, self.sweep))
        return [_returned(job) for job in jobs]

    def conduct(self, jobs: Sequence[Job], folder: Path) -> int:
        """Runs jobs whose folders lie in this one, and reports; returns the exit code. Jobs of one config are one."""
        from descent.folder import locked
        from descent.sweep import closing, running
        from descent.sweep.board import Board

        with locked(folder):
            board, retry = Board(()), self.config.retry is True
            once = {job.folder: job for job in reversed(jobs)}
            todo = [job for job in reversed(once.values()) if running.admit(job, board, retry)]
            board.opening(folder)
            if not todo:
                return closing.complete(folder, closing.close(folder, board, stopped=False))
            waves = iter([todo])
            return running.conduct(self.executor(todo), board, folder, lambda _: next(waves, []))

    def leave(self, code: int) -> None:
        """Ends the sweep with an exit code, its callbacks first: Hydra would not tell them of an end that raises.

        Raises:
            SystemExit: the code is not 0.
        """
        from descent.sweep.closing import FAILED

        if code == FAILED:
            self.hydra_context.callbacks.on_multirun_end(config=self.config, config_name=None)
        if code:
            raise SystemExit(code)

    def checked(
        self,
        job_overrides: Sequence[Sequence[str]],
        first: int,
        *,
        named: Sequence[Sequence[str]] | None = None,
        folder: Path | None = None,
    ) -> list[Job]:
        """Every job, composed and validated; the first that is wrong ends the sweep with its name.

        Args:
            job_overrides: of each job.
            first: number of the first.
            named: what each is called; None: its overrides that not all of them have.
            folder: where their folders are; None: the sweep's own.
        """
        from descent.entry import fail
        from descent.sweep.job import distinct, merged
        from descent.types import UserError

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        try:
            self.settings = self._built()
            named = named or distinct(job_overrides)
            return merged([self.job(words, first + i, named[i], folder) for i, words in enumerate(job_overrides)])
        except UserError as error:
            self._leave_nothing()
            fail(str(error))

    def _leave_nothing(self) -> None:
        """Takes back what Hydra's sweeper wrote before it called the launcher, and no more than that."""
        for place in self.missing:
            with contextlib.suppress(OSError):  # it was never made, or something else is in it
                place.unlink() if place.name == "multirun.yaml" else place.rmdir()

    def _built(self) -> Any:
        """The launcher's arguments, checked.

        Raises:
            UserError: a value is wrong.
        """
        from descent import wording
        from descent.sweep import settings

        return wording.built(getattr(settings, type(self).__name__), self.given, "hydra.launcher")

    def job(self, words: Sequence[str], index: int, named: Sequence[str], folder: Path | None = None) -> Job:
        """The job of some overrides, called by those of them that are its own, or as it is told.

        Raises:
            UserError: they are wrong.
        """
        from descent import initial
        from descent.config import check_course, reworded, to_experiment
        from descent.sweep import job
        from descent.types import UserError

        where = f"job {index + 1} ({' '.join(words)})"
        try:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
            check_course(config)
            if config.resume:
                raise UserError("resume: a sweep continues by itself; give the same command again")
            experiment = initial.checked(to_experiment(config))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except Exception as error:  # composition: whatever Hydra raises is reworded
            raise UserError(f"{where}: {reworded(error, words)}") from error
        given = [word for word in words if not word.startswith("retry=")]
        place = job.folder(folder or self.sweep, named, experiment)
        made = job.make(index + 1, given, _plain(config), experiment, place, _environment(config))
        return dataclasses.replace(made, label=" ".join(named))


def _plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain data, resolved, without Hydra's own part: what makes the same run elsewhere."""
    masked = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    made = OmegaConf.to_container(masked, resolve=True)
    assert isinstance(made, dict)
    return {str(key): value for key, value in made.items()}


def _environment(config: DictConfig) -> Environment:
    """The variables that `hydra.job.env_set` sets."""
    return tuple(sorted((str(key), str(value)) for key, value in config.hydra.job.env_set.items()))


def _returned(job: Job) -> JobReturn:
    """A completed job as Hydra wants it."""
    from descent.sweep.board import best

    return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=best(job))


class PoolLauncher(SweepLauncher):
    """Warm worker processes, each running job after job."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Starts the first worker: it imports TensorFlow while the jobs are checked."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        from descent.sweep.pool import Slot

        self.early: Slot | None = Slot()
        atexit.register(self.early.leave)
        self.early.warm(_environment(config))

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep import pool

        early, self.early = self.early, None
        asked = self.settings
        workers = pool.workers_for(list(jobs)) if asked.workers == "auto" else asked.workers
        return pool.Pool(
            workers,
            jobs_per_worker=asked.jobs_per_worker,
            memory_mb=pool.memory_for(workers) if asked.memory_mb == "auto" else asked.memory_mb,
            limit=asked.time_limit,
            early=early,
        )


class BasicLauncher(SweepLauncher):
    """One job after the other in this process, on this terminal."""

    def executor(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Executor]:
        from descent.sweep.here import Here

        return contextlib.nullcontext(Here())

"""Jobs placed by submitit, each in a process of its own: on Slurm, or on this machine to try it.

A job that is asked to go (Slurm's time limit, preemption) writes its checkpoint and is queued again by submitit, by
its `checkpoint` hook; it goes on from there. A job whose launcher is gone runs on: the same command finds it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from descent.folder import RunFolder
from descent.sweep import worker
from descent.sweep.job import Job, Outcome
from descent.sweep.pool import workers_for
from descent.sweep.remote import Remote
from descent.types import UserError

if TYPE_CHECKING:
    import submitit

FOLDER = ".submitit"  # in the sweep's: what submitit writes, and how far the jobs are
PLACED = "placed.json"  # in a job's: where it was placed
ASKED = signal.SIGUSR1  # what Slurm is told to send before it ends a job: runs heed it by a checkpoint


class Preempted(BaseException):
    """The process is to go, and its run has not begun to listen."""


class Task:
    """What runs in the process of a job.

    Args:
        job: what is to be run, or continued.
        progress: the file in which it says how far it is.
        stop: a file that is there when the sweep itself was stopped: then the job is not queued again.
    """

    def __init__(self, job: Job, progress: Path, stop: Path) -> None:
        self.job, self.progress, self.stop = job, progress, stop
        self.origin = worker.Origin.here()

    def __call__(self) -> Outcome:
        before = {number: signal.signal(number, _preempt) for number in (ASKED, signal.SIGTERM)}
        self.origin.take()
        try:
            worker.warm(self.job.traits.environment)
            outcome = worker.run(self.job, self.progress)
        except Preempted:
            outcome = Outcome("stopped")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if outcome.state == "stopped" and not self.stop.exists():
            # To submitit's own handler: it calls `checkpoint`, queues the job again, and ends this process.
            signal.raise_signal(ASKED)
        return outcome

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues in the place of a job that has to go: the same, which goes on from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _preempt(_: int, __: FrameType | None) -> None:
    raise Preempted


class Cluster(Remote):
    """Runs jobs through submitit; see `conf/hydra/launcher/submitit.yaml` for the arguments.

    Raises:
        UserError: submitit is not installed, or knows no such parameter.
    """

    def __init__(
        self,
        sweep: Path,
        *,
        executor: Literal["slurm", "local"],
        workers: int,
        requeues: int,
        parameters: Mapping[str, Any],
    ) -> None:
        super().__init__(sweep / FOLDER, workers)
        self.kind, self.stop_file = executor, self.folder / "stop"
        self.stop_file.unlink(missing_ok=True)
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = ASKED.name.removeprefix("SIG")  # read when submitit is imported
        submitit = _submitit()
        made: dict[str, Any] = {f"{executor}_max_num_timeout": requeues}
        try:
            self.submitit = submitit.AutoExecutor(self.folder, cluster=executor, **made)
            self.submitit.update_parameters(**parameters)
        except (AssertionError, NameError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from error

    def place(self, job: Job) -> submitit.Job[Outcome]:
        """Submits a job, or finds it where an earlier launcher did and it is still there."""
        if handle := self._found(job):
            return handle
        self.progress(job).unlink(missing_ok=True)
        self.submitit.update_parameters(name=job.folder.name[:60], cpus_per_task=job.traits.threads)
        with _unheard(signal.SIGINT):  # of the terminal: it is the launcher that is asked
            handle = self.submitit.submit(Task(job, self.progress(job), self.stop_file))
        job.folder.mkdir(parents=True, exist_ok=True)
        RunFolder(job.folder).write_json(PLACED, {"executor": self.kind, "id": handle.job_id})
        return handle

    def _found(self, job: Job) -> submitit.Job[Outcome] | None:
        if not (job.folder / PLACED).exists() or job.number in self.deaths:
            return None
        placed = RunFolder(job.folder).read_json(PLACED)
        if placed["executor"] != self.kind:
            return None
        handle = self.submitit._executor.job_class(self.folder, placed["id"])
        return None if self.over(handle) else handle

    def over(self, handle: submitit.Job[Outcome]) -> bool:
        if self.kind == "local" and getattr(handle, "_process", None) is None:  # another launcher's
            return not _alive(int(handle.job_id))
        return handle.done()

    def result(self, handle: submitit.Job[Outcome]) -> Outcome:
        return handle.result()

    def stop(self, at_once: bool = False) -> list[Job]:
        self.stop_file.touch()
        return super().stop(at_once)

    def ask(self, handle: submitit.Job[Outcome], at_once: bool) -> None:
        if self.kind == "local":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle.job_id), signal.SIGTERM)  # passed on; a second one ends the run at once
        elif at_once:
            handle.cancel()
        else:
            handle._interrupt()  # type: ignore[attr-defined]


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("hydra/launcher=submitit needs submitit: pip install -e '.[submitit]'") from error
    return submitit


def at_once(jobs: list[Job], executor: str) -> int:
    """Jobs that are placed at a time where nobody says how many: all on Slurm, which has a queue of its own."""
    return workers_for(jobs) if executor == "local" else max(1, len(jobs))


@contextlib.contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Blocks a signal: processes started inside never hear it, and this one does so afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _alive(pid: int) -> bool:
    """Whether that is a process of submitit's, and not one that got its number later."""
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

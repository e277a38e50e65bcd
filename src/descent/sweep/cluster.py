"""Jobs placed by submitit, each in a process of its own: on Slurm, or on this machine to try it.

A job that is asked to go (Slurm's time limit, preemption) writes its checkpoint and is queued again by submitit, by
its `checkpoint` hook; it goes on from there. A job whose launcher is gone runs on: the same command finds it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from descent.folder import RunFolder
from descent.sweep import worker
from descent.sweep.board import Running
from descent.sweep.job import Job, Outcome
from descent.sweep.pool import ATTEMPTS, workers_for
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
        self.path = tuple(sys.path)  # where a user's own modules are

    def __call__(self) -> Outcome:
        before = {number: signal.signal(number, _preempt) for number in (ASKED, signal.SIGTERM)}
        sys.path.extend(place for place in self.path if place not in sys.path)
        try:
            worker.warm(self.job.traits)
            outcome = worker.run(self.job, self.progress)
        except Preempted:
            outcome = Outcome("stopped")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if outcome.state == "stopped" and not self.stop.exists():
            signal.raise_signal(
                ASKED
            )  # submitit's own handler: it calls `checkpoint`, queues again and ends this process
        return outcome

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues in the place of a job that has to go: the same, which goes on from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _preempt(_: int, __: FrameType | None) -> None:
    raise Preempted


class Placed:
    """A job that was handed to submitit, and when."""

    def __init__(self, job: Job, handle: submitit.Job[Outcome]) -> None:
        self.job, self.handle, self.began = job, handle, time.monotonic()


class Cluster:
    """Runs jobs through submitit; see `conf/hydra/launcher/submitit.yaml` for the arguments.

    Raises:
        UserError: submitit is not installed, or knows no such parameter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        executor: Literal["slurm", "local"],
        workers: int,
        requeues: int,
        parameters: Mapping[str, Any],
    ) -> None:
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = ASKED.name.removeprefix("SIG")  # read when submitit is imported
        submitit = _submitit()
        self.folder, self.kind, self.workers = folder / FOLDER, executor, workers
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stop_file = self.folder / "stop"
        self.stop_file.unlink(missing_ok=True)
        made: dict[str, Any] = {f"{executor}_max_num_timeout": requeues}
        try:
            self.submitit = submitit.AutoExecutor(self.folder, cluster=executor, **made)
            self.submitit.update_parameters(**parameters)
        except (AssertionError, NameError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from error
        self.queue: deque[Job] = deque()
        self.placed: list[Placed] = []
        self.deaths: dict[int, int] = {}
        self.stopping = False

    @property
    def free(self) -> int:
        return max(0, self.workers - len(self.placed) - len(self.queue))

    @property
    def idle(self) -> bool:
        return not self.placed and not self.queue

    def submit(self, job: Job) -> None:
        self.queue.append(job)
        self._fill()

    def running(self) -> Running:
        now, found = time.monotonic(), {}
        for one in self.placed:
            if said := worker.read_note(self._progress(one.job)):  # else it waits in the queue
                found[one.job.number] = (now - one.began, said)
        return found

    def stop(self, at_once: bool = False) -> list[Job]:
        """Asks all jobs to save and end, not to be queued again; returns those that were not placed."""
        self.stopping, waiting = True, list(self.queue)
        self.queue.clear()
        self.stop_file.touch()
        for one in self.placed:
            if self.kind == "local":
                _tell(int(one.handle.job_id), signal.SIGTERM)  # passed on; a second one ends the run at once
            elif at_once:
                one.handle.cancel()
            else:
                one.handle._interrupt()  # type: ignore[attr-defined]
        return waiting

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        time.sleep(seconds)
        ended = [one for one in self.placed if self._ended(one.handle)]
        self.placed = [one for one in self.placed if one not in ended]
        outcomes = [(one.job, self._outcome(one)) for one in ended]
        self._fill()
        return [(job, outcome) for job, outcome in outcomes if outcome is not None]

    def _fill(self) -> None:
        while self.queue and len(self.placed) < self.workers and not self.stopping:
            job = self.queue.popleft()
            self.placed.append(Placed(job, self._found(job) or self._place(job)))

    def _place(self, job: Job) -> submitit.Job[Outcome]:
        self._progress(job).unlink(missing_ok=True)
        self.submitit.update_parameters(name=job.folder.name[:60], cpus_per_task=job.traits.threads)
        with _unheard(signal.SIGINT):  # of the terminal: it is the launcher that is asked
            handle = self.submitit.submit(Task(job, self._progress(job), self.stop_file))
        job.folder.mkdir(parents=True, exist_ok=True)
        RunFolder(job.folder).write_json(PLACED, {"executor": self.kind, "id": handle.job_id})
        return handle

    def _found(self, job: Job) -> submitit.Job[Outcome] | None:
        """The job where an earlier launcher placed it, if it is still there."""
        place = RunFolder(job.folder)
        if not (job.folder / PLACED).exists() or job.number in self.deaths:
            return None
        placed = place.read_json(PLACED)
        handle = self._handle(placed["id"]) if placed["executor"] == self.kind else None
        return handle if handle is not None and not self._ended(handle) else None

    def _handle(self, number: str) -> submitit.Job[Outcome]:
        made: submitit.Job[Outcome] = self.submitit._executor.job_class(self.folder, number)
        return made

    def _ended(self, handle: submitit.Job[Outcome]) -> bool:
        if self.kind == "local" and getattr(handle, "_process", None) is None:  # another launcher's
            return not _alive(int(handle.job_id))
        return handle.done()

    def _outcome(self, one: Placed) -> Outcome | None:
        """How a job ended; None where it is to be tried again."""
        try:
            outcome: Outcome = one.handle.result()
        except Exception as error:  # no result: its process was killed, or its machine is gone
            outcome = Outcome("stopped", (str(error).strip().splitlines() or [type(error).__name__])[0])
        if outcome.state != "stopped" or self.stopping:
            return outcome
        deaths = self.deaths[one.job.number] = self.deaths.get(one.job.number, 0) + 1
        if deaths < ATTEMPTS:
            self.queue.appendleft(one.job)
            return None
        return Outcome("failed", f"its process ended without a result, twice: {outcome.message}")

    def _progress(self, job: Job) -> Path:
        return self.folder / f"{job.folder.name}.json"


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("hydra/launcher=submitit needs submitit: pip install 'descent[submitit]'") from error
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


def _tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _alive(pid: int) -> bool:
    """Whether that is a process of submitit's, and not one that got its number later."""
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

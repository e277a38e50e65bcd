"""Warm worker processes that run jobs one after the other; whatever befalls one ends only the job it has."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import deque
from concurrent.futures import TimeoutError as OverLimit
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from pebble import ProcessFuture, ProcessPool

from descent.folder import RunFolder
from descent.signals import LEFT
from descent.sweep import worker
from descent.sweep.illustrator import Illustrator, process
from descent.sweep.job import Environment, Job, Outcome, Traits

ATTEMPTS = 2  # of a job whose worker is killed: it goes on from its last checkpoint
STARTS = 5  # of a worker that is killed before it has taken its job


class Slot:
    """A place for one worker at a time, in a pool of its own: no lock or pipe that a killed neighbour could leave held.

    Attributes:
        progress: the file in which the worker says how far it is.
        environment: of the worker.
        traits: of the worker's jobs; None before its first.
        program: of its last one.
        job: what it runs; None where it is free.
        illustrator: draws what its jobs leave, while it runs others.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="descent-")
        self.progress, self.illustrator = Path(self.folder.name) / "progress.json", Illustrator()
        self.pool: ProcessPool | None = None
        self.environment: Environment = ()
        self.traits: Traits | None = None
        self.program = ""
        self.job: Job | None = None
        self.future: ProcessFuture | None = None
        self.jobs, self.began = 0, 0.0

    def warm(self, environment: Environment) -> ProcessPool:
        """Starts a worker, which imports TensorFlow at once."""
        self.environment, self.pool = environment, process(worker.prepare, environment, self.progress)
        _ = self.pool.active  # asking starts it
        return self.pool

    def start(self, job: Job, limit: float | None) -> None:
        """Gives a job to the worker, to a new one where the old has other traits."""
        pool, traits = self.pool, job.traits
        if pool is None or self.environment != traits.environment or self.traits not in (None, traits):
            self.close()
            pool = self.warm(traits.environment)
        self.traits, self.program, self.job, self.began = traits, job.program, job, time.monotonic()
        self.future = pool.schedule(worker.run_undrawn, args=(job, self.progress), timeout=limit)
        self.illustrator.warm()

    def fits(self, job: Job) -> tuple[bool, bool]:
        """How well a job suits the worker there is: the more, the larger."""
        return self.traits == job.traits, self.program == job.program

    def close(self) -> None:
        """Ends the worker at once."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
        self.pool, self.traits, self.program, self.jobs = None, None, "", 0
        self.progress.unlink(missing_ok=True)

    def leave(self) -> None:
        """Ends all that is of this place at once."""
        self.close()
        self.illustrator.close()
        self.folder.cleanup()

    def ask_to_stop(self) -> None:
        """Lets the worker write a checkpoint and end its job."""
        if pid := self.said().get("pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        else:  # it has not begun
            self.close()

    def said(self) -> dict[str, Any]:
        """The last note of the worker."""
        return worker.read_note(self.progress)


class Pool:
    """Runs jobs in so many workers; use it as a context.

    Args:
        workers: processes at a time. No result depends on it.
        jobs_per_worker: after so many a worker is replaced.
        memory_mb: after a job that leaves it with more, too.
        limit: seconds a job may take; None: as long as it likes.
        early: a place whose worker has been started before; it becomes the pool's.
    """

    def __init__(
        self, workers: int, *, jobs_per_worker: int, memory_mb: float, limit: float | None, early: Slot | None = None
    ) -> None:
        self.slots = [early or Slot(), *(Slot() for _ in range(workers - 1))]
        self.jobs_per_worker, self.memory_mb, self.limit = jobs_per_worker, memory_mb, limit
        self.queue: deque[Job] = deque()
        self.deaths: dict[int, int] = {}
        self.stopping = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Ends the workers, and waits for the last figures unless something is wrong or it was asked to stop."""
        for slot in self.slots:
            slot.close()
        for slot in self.slots:
            if kind is None and not self.stopping:
                slot.illustrator.settle()
            slot.leave()

    @property
    def free(self) -> int:
        """Workers for which there is nothing to do."""
        return max(0, sum(slot.job is None for slot in self.slots) - len(self.queue))

    @property
    def idle(self) -> bool:
        return not self.queue and all(slot.job is None for slot in self.slots)

    def submit(self, job: Job) -> None:
        self.queue.append(job)
        self._fill()

    def running(self) -> dict[int, tuple[float, dict[str, Any]]]:
        """Seconds since its start, and the last note, of each job that is running, by number."""
        now, found = time.monotonic(), {}
        for slot in self.slots:
            if slot.job is not None:
                said = slot.said()
                found[slot.job.number] = (now - slot.began, said if said.get("job") == slot.job.number else {})
        return found

    def stop(self, at_once: bool = False) -> list[Job]:
        """Asks all workers to save and end; returns the jobs that had not begun."""
        self.stopping, waiting = True, list(self.queue)
        self.queue.clear()
        for slot in self.slots:
            if slot.job is not None:
                (slot.close if at_once else slot.ask_to_stop)()
            if at_once:
                slot.illustrator.close()
        return waiting

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Waits so long for jobs to end; returns those that have, and gives their workers new ones."""
        for slot in self.slots:
            slot.illustrator.look()
        futures = [slot.future for slot in self.slots if slot.future is not None]
        if futures:
            wait_for(futures, timeout=seconds, return_when="FIRST_COMPLETED")
        ended = [self._collect(slot) for slot in self.slots if slot.future is not None and slot.future.done()]
        self._fill()
        return [pair for pair in ended if pair is not None]

    def _collect(self, slot: Slot) -> tuple[Job, Outcome] | None:
        """How the slot's job ended; None where it is to be tried again."""
        job, future = slot.job, slot.future
        assert job is not None
        assert future is not None
        slot.job = slot.future = None
        slot.jobs += 1
        try:
            outcome: Outcome = future.result()
        except OverLimit:
            return job, Outcome("failed", f"over its limit of {self.limit:g} s (hydra.launcher.time_limit)")
        except BaseException as error:
            return self._died(slot, job, error)
        if outcome.state == "stopped" and not self.stopping:  # a signal from elsewhere
            return self._died(slot, job, InterruptedError("stopped from outside"))
        if RunFolder(job.folder).undrawn.exists():
            slot.illustrator.draw(job.folder)
        if slot.jobs >= self.jobs_per_worker or outcome.memory_mb > self.memory_mb:
            slot.close()
        return job, outcome

    def _died(self, slot: Slot, job: Job, error: BaseException) -> tuple[Job, Outcome] | None:
        """What to do about a job whose worker is gone."""
        code = getattr(error, "exitcode", None)
        slot.close()
        if self.stopping:
            return job, Outcome("stopped")
        killed = code is None or code < 0 or code == LEFT
        deaths = self.deaths[job.number] = self.deaths.get(job.number, 0) + 1
        if deaths < (STARTS if code is None else ATTEMPTS) and killed:
            self.queue.appendleft(job)
            return None
        return job, Outcome("failed", _cause(code, error))

    def _fill(self) -> None:
        """Gives jobs to free workers, first those whose program a worker has, then those it can take as it is."""
        for slot in self.slots:
            if slot.job is None and self.queue and not self.stopping:
                job = max(self.queue, key=slot.fits)
                self.queue.remove(job)
                slot.start(job, self.limit)


def _cause(code: int | None, error: BaseException) -> str:
    if code is None:
        return f"its worker could not be kept alive: {error}"
    if code == LEFT:
        return "its process was asked to end, twice"
    if code >= 0:
        return f"its process ended by itself, with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was killed by {name}, twice{' (out of memory?)' if name == 'SIGKILL' else ''}"


def workers_for(jobs: list[Job]) -> int:
    """As many workers as the cores allow, none of them sharing a core."""
    threads = max((job.traits.threads for job in jobs), default=1)
    return max(1, min(len(jobs), len(os.sched_getaffinity(0)) // threads))


def memory_for(workers: int) -> float:
    """A worker's part of half of the machine's memory, in MB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**21 / workers

"""Jobs that run elsewhere: what is common to those who place them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from pathlib import Path
from typing import Any

from descent.sweep import worker
from descent.sweep.board import Running
from descent.sweep.job import Job, Outcome
from descent.sweep.pool import ATTEMPTS


class Placed:
    """A job that was handed over, by what it is known there, and when that was."""

    def __init__(self, job: Job, handle: Any) -> None:
        self.job, self.handle, self.began = job, handle, time.monotonic()


class Remote:
    """Hands jobs over, so many at a time; one whose process dies is handed over once more, and goes on.

    Args:
        folder: in the sweep's, where the jobs say how far they are; all machines must see it.
        workers: jobs at a time.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers
        self.folder.mkdir(parents=True, exist_ok=True)
        self.queue: deque[Job] = deque()
        self.placed: list[Placed] = []
        self.deaths: dict[int, int] = {}
        self.stopping = False

    @abstractmethod
    def place(self, job: Job) -> Any:
        """Hands a job over; returns its handle."""

    @abstractmethod
    def over(self, handle: Any) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def result(self, handle: Any) -> Outcome:
        """Its outcome; raises whatever where it ended without one."""

    @abstractmethod
    def ask(self, handle: Any, at_once: bool) -> None:
        """Asks it to save and end."""

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
        """Seconds since it was handed over, and the last note, of each job that has begun."""
        now, found = time.monotonic(), {}
        for one in self.placed:
            if said := worker.read_note(self.progress(one.job)):
                found[one.job.number] = (now - one.began, said)
        return found

    def stop(self, at_once: bool = False) -> list[Job]:
        """Asks all jobs to save and end; returns those that were not handed over."""
        self.stopping, waiting = True, list(self.queue)
        self.queue.clear()
        for one in self.placed:
            self.ask(one.handle, at_once)
        return waiting

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        time.sleep(seconds)
        ended = [one for one in self.placed if self.over(one.handle)]
        self.placed = [one for one in self.placed if one not in ended]
        outcomes = [(one.job, self._outcome(one)) for one in ended]
        self._fill()
        return [(job, outcome) for job, outcome in outcomes if outcome is not None]

    def progress(self, job: Job) -> Path:
        """The file in which a job says how far it is."""
        return self.folder / f"{job.folder.name}.json"

    def _fill(self) -> None:
        while self.queue and len(self.placed) < self.workers and not self.stopping:
            job = self.queue.popleft()
            self.placed.append(Placed(job, self.place(job)))

    def _outcome(self, one: Placed) -> Outcome | None:
        """How a job ended; None where it is to be tried again."""
        try:
            outcome = self.result(one.handle)
        except Exception as error:  # its process was killed, or its machine is gone
            outcome = Outcome("stopped", (str(error).strip().splitlines() or [type(error).__name__])[0])
        if outcome.state != "stopped" or self.stopping:
            return outcome
        deaths = self.deaths[one.job.number] = self.deaths.get(one.job.number, 0) + 1
        if deaths < ATTEMPTS:
            self.queue.appendleft(one.job)
            return None
        return Outcome("failed", f"its process ended without a result, twice: {outcome.message}")

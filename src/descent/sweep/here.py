"""Jobs one after the other in this process and on this terminal: for a debugger."""

from __future__ import annotations

import time
from collections import deque

from descent.sweep import worker
from descent.sweep.board import Running
from descent.sweep.job import Job, Outcome


class Here:
    """Runs a job whenever it is waited for."""

    def __init__(self) -> None:
        self.queue: deque[Job] = deque()
        self.count = 0

    @property
    def free(self) -> int:
        return 0 if self.queue else 1

    @property
    def idle(self) -> bool:
        return not self.queue

    def submit(self, job: Job) -> None:
        self.queue.append(job)

    def running(self) -> Running:
        return {}

    def stop(self, at_once: bool = False) -> list[Job]:
        waiting = list(self.queue)
        self.queue.clear()
        return waiting

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        if not self.queue:
            time.sleep(seconds)
            return []
        job = self.queue.popleft()
        print(f"\njob {job.number}: {' '.join(job.overrides)}", flush=True)
        return [(job, worker.run_here(job))]

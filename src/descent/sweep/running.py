"""The course of a sweep: what is done already, what is left, and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from descent.sweep import closing
from descent.sweep import job as jobs_of
from descent.sweep.board import Board, Running
from descent.sweep.job import Job, Outcome

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
TICK = 0.25  # seconds between two looks


class Executor(Protocol):
    """What runs jobs: the pool, or this process itself."""

    @property
    def free(self) -> int: ...

    @property
    def idle(self) -> bool: ...

    def submit(self, job: Job) -> None: ...

    def running(self) -> Running: ...

    def stop(self, at_once: bool = False) -> list[Job]: ...

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]: ...


class Wishes:
    """While this context is open, SIGINT, SIGTERM and SIGUSR1 are counted."""

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Wishes:
        self.before = {number: signal.signal(number, self._receive) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, _: int, __: FrameType | None) -> None:
        self.received += 1


def admit(job: Job, board: Board, retry: bool) -> bool:
    """Whether a job is to be run; enters it on the board with what earlier sweeps left of it."""
    outcome = jobs_of.before(job)
    if retry and outcome.state in ("failed", "halted"):
        jobs_of.forget_failure(job)
        outcome = Outcome("waiting")
    board.add(job, outcome)
    return outcome.state == "waiting"


def conduct(
    workers: AbstractContextManager[Executor],
    board: Board,
    sweep: Path,
    more: Callable[[int], Sequence[Job]],
    ended: Callable[..., None] = lambda *_: None,
) -> int:
    """Runs the jobs of a sweep and says how it ended, while the last figures are drawn; returns the exit code."""
    with workers as executor:
        closing.preload()
        with board:
            stopped = drive(executor, board, more, ended)
        code = closing.close(sweep, board, stopped)
    return closing.complete(sweep, code)


def drive(executor: Executor, board: Board, more: Callable[[int], Sequence[Job]], ended: Callable[..., None]) -> bool:
    """Runs jobs until there are no more; returns whether it was stopped.

    Args:
        executor: what runs them.
        board: what shows them.
        more: gives new jobs when so many workers are free; none: there are no more, or not until one ends.
        ended: told of each job and its outcome.
    """
    heeded = 0
    with Wishes() as wishes:
        while True:
            if wishes.received > heeded:
                heeded = wishes.received
                _stop(executor, board, at_once=heeded > 1)
            new = [] if heeded or not executor.free else more(executor.free)
            for job in new:
                executor.submit(job)
            for job, outcome in executor.wait(TICK):
                if outcome.state == "failed":
                    jobs_of.note_failure(job, outcome.message)
                board.ended(job, outcome)
                ended(job, outcome)
                if outcome.state == "stopped" and not heeded:  # the signal went to the run itself
                    wishes.received += 1
            board.refresh(executor.running())
            if executor.idle and not new and wishes.received == heeded:
                return bool(heeded)


def _stop(executor: Executor, board: Board, at_once: bool) -> None:
    if executor.running() and not at_once:
        board.say("stopping: the running jobs write a checkpoint (once more: at once)")
    for job in executor.stop(at_once):
        board.outcomes[job.number] = Outcome("waiting")

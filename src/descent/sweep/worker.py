"""What runs in a worker process: TensorFlow once, then job after job, each from a clean Keras state."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from descent.folder import lock
from descent.sweep.job import LOG, Environment, Job, Outcome, finished
from descent.types import Record, UserError
from descent.watching import Watch, watching

ORPHAN_SECONDS = 60.0  # for the checkpoint of a run whose launcher is gone
BUSY_SECONDS = 90.0  # how long the worker of a killed launcher may still hold a folder
SHOWN_SECONDS = 0.2  # between two notes of how far a job is


def prepare(environment: Environment, progress: Path) -> None:
    """Makes this process a worker, with TensorFlow."""
    bind()
    note(progress, {"pid": os.getpid()})
    warm(environment)


def bind() -> None:
    """Puts this process out of reach of the terminal's Ctrl-C, and ends it with its launcher."""
    os.setsid()
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


class Origin(NamedTuple):
    """What a process of another program takes over from the launcher: its command, and where a user's modules are."""

    command: tuple[str, ...]
    path: tuple[str, ...]

    @classmethod
    def here(cls) -> Origin:
        return cls(tuple(sys.argv), tuple(sys.path))

    def take(self) -> None:
        sys.argv[:] = self.command
        sys.path.extend(place for place in self.path if place not in sys.path)


def warm(environment: Environment) -> None:
    """Sets the variables that the jobs of this process share, and imports TensorFlow."""
    os.environ.update(environment)
    from descent.environment import load

    load()
    from descent import session  # noqa: F401


def _leave_with(launcher: int) -> None:
    """Ends this process when its launcher has: a checkpoint first, if a run is under way."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def note(progress: Path, content: Record | dict[str, int]) -> None:
    """Says how far this worker is; the launcher never sees half of it."""
    temporary = progress.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(progress)


def read_note(progress: Path) -> dict[str, Any]:
    """The last note of a worker; nothing before its first."""
    try:
        content: dict[str, Any] = json.loads(progress.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def run(job: Job, progress: Path) -> Outcome:
    """Runs, or continues, a job in its folder; whatever goes wrong is its outcome."""
    try:
        with logged(job.folder):
            outcome = _caught(job, watcher(job, progress))
    except UserError as error:  # the folder is another's
        outcome = Outcome("failed", str(error))
    _clear()
    return outcome._replace(memory_mb=memory_mb())


def run_undrawn(job: Job, progress: Path) -> Outcome:
    """As `run`; the figures of a completed run are left to `draw`."""
    from descent import report

    with report.drawn_apart():
        return run(job, progress)


def draw(folder: Path) -> None:
    """Draws what a job has left undrawn; it is complete with that.

    Raises:
        UserError: another process has the folder.
        OSError: the disk does not take it.
    """
    from descent import report

    with logged(folder):
        report.complete(folder)


def run_here(job: Job) -> Outcome:
    """As `run`, in this process and on its terminal."""
    job.folder.mkdir(parents=True, exist_ok=True)
    return _caught(job, job.pruning.watch() if job.pruning else lambda _: "")


def _caught(job: Job, watch: Watch) -> Outcome:
    try:
        return _run(job, watch)
    except UserError as error:
        message = str(error)
    except SystemExit as error:
        message = f"the run left with exit code {error.code}"
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        message = f"{type(error).__name__}: {first}"[:300]
    print(f"failed: {message}", flush=True)
    return Outcome("failed", message)


def _run(job: Job, watch: Watch) -> Outcome:
    from descent.config import to_experiment
    from descent.session.programs import HERE

    experiment = to_experiment(job.config)
    with watching(watch), HERE.used():
        result = experiment.run(job.folder, overrides=list(job.overrides), mismatch=job.config["resume_mismatch"])
    status = result.summary["status"]
    if status == "failed":
        HERE.forget()
    if status == "completed":
        return finished(job)
    if status == "halted":
        return Outcome("halted", "at a number that was not finite")
    return Outcome("stopped") if status == "interrupted" else Outcome("failed", result.summary["reason"])


def watcher(job: Job, progress: Path) -> Watch:
    """Notes progress, at most five times a second, and asks the study whether to go on."""
    shown, value = 0.0, float("nan")
    prune = job.pruning.watch() if job.pruning else None

    def watch(record: Record) -> str:
        nonlocal shown, value
        value = record.get(job.monitor, value)
        if time.monotonic() - shown > SHOWN_SECONDS:
            shown = time.monotonic()
            note(progress, {"pid": os.getpid(), "job": job.number, "step": record["step"], "value": value})
        return prune(record) if prune else ""

    return watch


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Sends all that is written inside to the job's log, and keeps other processes' jobs out of the folder.

    Raises:
        UserError: another process stays in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    with (folder / LOG).open("a", encoding="utf-8") as log:
        lock(log.fileno(), folder, BUSY_SECONDS)  # the folder's own lock is the run's
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in enumerate(kept, start=1):
                os.dup2(handle, number)
                os.close(handle)


def _clear() -> None:
    """Frees what the last run left, but for its program, and gives the memory back."""
    from tensorflow.python.framework import ops

    with contextlib.suppress(AttributeError):  # no public name; without it memory grows, and nothing else
        registry = ops.gradient_registry._registry  # where each trace of a custom gradient leaves its graph
        for name in [name for name in registry if name.startswith("CustomGradient-")]:
            del registry[name]
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)


def memory_mb() -> int:
    """Memory of this process that is in RAM now; where the system does not say, the most there ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

"""Trains in several processes of this machine: python scripts/launch.py [workers=2] [restarts=3] [KEY=VALUE ...]

Each is `python train.py strategy=multi_worker KEY=VALUE ...` with a TF_CONFIG on 127.0.0.1. Where one is lost (killed,
stopped, out of memory, out of reach), all are ended and started again, and the run goes on from its last checkpoint, up
to `restarts` times. Any overrides of `train.py` may follow; `hydra.run.dir=FOLDER` names the run's folder, and one that
holds a part of the run is continued. The cores are shared out evenly, and each worker keeps to its own.

Ends with the code of the run: 0 completed, 2 a mistake in the command, 3 halted, 4 failed, 5 a worker was lost and no
restart is left, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from descent import compose
from descent.cluster import Lost, free_ports, held_to, shares_of_cores, tf_config
from descent.command import parted, script_words
from descent.config import PROJECT, new_folder
from descent.entry import run_main
from descent.types import Count, Positive, UserError, Whole, part

# Codes that say what a new start would not change.
FINAL = (2, 3, 4, 130)


@part
class Launch:
    """How the processes are run.

    Attributes:
        workers: how many.
        restarts: how often all are started again after one was lost.
        patience: seconds the others have to end by themselves, before they are killed.
    """

    workers: Count = 2
    restarts: Whole = 3
    patience: Positive = 30.0


def start(workers: int, overrides: list[str]) -> list[subprocess.Popen[bytes]]:
    """One process a worker, on 127.0.0.1."""
    return start_at([f"127.0.0.1:{port}" for port in free_ports(workers)], [[]] * workers, overrides)


def start_at(
    addresses: Sequence[str], before: Sequence[Sequence[str]], overrides: list[str]
) -> list[subprocess.Popen[bytes]]:
    """One process an address, its command after the words `before` it; they share this one's output."""
    processes = []
    for task, (prefix, cores) in enumerate(zip(before, shares_of_cores(len(before)), strict=True)):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        words = ["strategy=multi_worker", "resume=auto", *overrides]
        command = [*prefix, sys.executable, str(PROJECT / "train.py"), *words]
        environment = {**quiet, "TF_CONFIG": tf_config(addresses, task)}
        # A session of its own: Ctrl-C reaches it once, through this process.
        with held_to(cores):
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
    return processes


def ended(processes: list[subprocess.Popen[bytes]], patience: float) -> list[int]:
    """Waits for all, and for at most so long once one has ended badly; returns their codes."""
    until = float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        if any(process.returncode for process in processes):
            until = min(until, time.monotonic() + patience)
        time.sleep(0.1)
    for process in processes:
        if process.poll() is None:
            process.kill()  # it ends a stopped process too
    return [process.wait() for process in processes]


@contextlib.contextmanager
def forwarding(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """A wish to stop goes to every worker; none is left behind."""

    def pass_on(number: int, _: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            process.kill()
            process.wait()


def verdict(codes: list[int]) -> int:
    """The code of the whole: that of the chief, or of the first that says why; else that of `Lost`."""
    if codes[0] == 0:
        return 0
    return next((code for code in codes if code in FINAL), Lost.code)


def launch(how: Launch, overrides: list[str]) -> int:
    """Runs to the end; returns the exit code."""
    for attempt in range(how.restarts + 1):
        processes = start(how.workers, overrides)
        with forwarding(processes):
            codes = ended(processes, how.patience)
        if (code := verdict(codes)) != Lost.code:
            return code
        told = ", ".join(f"worker {i} ended with {code}" for i, code in enumerate(codes))
        left = how.restarts - attempt
        print(f"launch: {told}; {f'starting again, {left} left' if left else 'no restart is left'}", flush=True)
    return Lost.code


def main() -> None:
    how, overrides = parted(Launch, script_words(__doc__))
    # Composed here, so that a mistake is told once.
    compose(
        "strategy=multi_worker",
        *(word for word in overrides if not word.startswith("hydra") or word.startswith("hydra.searchpath=")),
    )
    keys = {word.split("=")[0]: word.partition("=")[2] for word in overrides}
    if keys.get("resume", "auto") != "auto":
        raise UserError(f"resume={keys['resume']}: write hydra.run.dir={keys['resume']}; what is there is continued")
    if "hydra.run.dir" not in keys:
        overrides.append(f"hydra.run.dir={new_folder(keys.get('name', 'run'))}")
    raise SystemExit(launch(how, overrides))


if __name__ == "__main__":
    run_main(main)

"""Kills a sweep again and again, and runs it again each time: python scripts/sweep_campaign.py kills=20 jobs=24.

At random moments (while it composes, imports, trains, saves, draws, reports) the launcher, a worker, or the launcher
and all workers get SIGKILL; a dead launcher is started again at once, with the same command. At the end every config
must have one folder, done, with the config, the log, the summary (wall-clock fields aside) and the weights of a sweep
that was left alone. `kind=optuna` kills a study instead: every trial must be finished once, with the value of its run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from descent import UserError, part
from descent.command import run_script
from descent.config import PROJECT
from descent.sweep.closing import FAILED
from descent.types import Count, Whole

COMMON = (
    "model=cnn", "model.widths=[4,8]", "augmentation=mixup_cutmix", "averaging=ema", "trainer.jit=false",
    "trainer.threads=1", "callback.checkpoint.every=20st", "logger.tensorboard=null", "retry=true",
)  # fmt: skip
VICTIMS = ("launcher", "worker", "both")
FEW = 4  # trials of the study that is left alone: it shows only how long one takes, for no two studies are equal
TICK = 0.02  # seconds between two looks at how far the sweep is
LATER = 0.4  # at most so many seconds after its moment a kill follows
EARLY = 0.3  # so many of the kills by the clock, the others by how far the sweep is


@part
class SweepCampaign:
    """See the module.

    Attributes:
        kind: a sweep of every combination, or a study.
        jobs: how many it has.
        kills: how often something of it is killed.
        epochs: length of a job.
        seed: of the moments and the victims.
        out: a folder for the runs; None: a temporary one, which stays where something was wrong.
    """

    kind: Literal["grid", "optuna"] = "grid"
    jobs: Count = 24
    kills: Count = 20
    epochs: Count = 10
    seed: Whole = 0
    out: str | None = None

    def __call__(self) -> None:
        folder = Path(self.out or tempfile.mkdtemp(prefix="sweeps-")).absolute()
        began, draw = time.monotonic(), random.Random(self.seed)
        alone = self.jobs if self.kind == "grid" else min(self.jobs, FEW)
        quiet = Sweep(folder / "quiet", self.words(alone))
        quiet.start()
        startup = quiet.until_begun()
        if code := quiet.wait():
            raise UserError(f"the sweep that was left alone ended with {code}; see {quiet.log}")
        killed = Sweep(folder / "killed", self.words(self.jobs))
        counts = torment(killed, quiet.size * self.jobs // alone, self.kills, startup, draw)
        told = finished(killed, self.jobs) if self.kind == "optuna" else alike(quiet, killed, self.jobs)
        kinds = ", ".join(f"{counts[victim]} {victim}" for victim in VICTIMS)
        seconds = time.monotonic() - began
        print(f"{counts.total()} kills ({kinds}) in {killed.starts} starts: {told} ({seconds:.0f} s)")
        shutil.rmtree(folder)

    def words(self, jobs: int) -> list[str]:
        varied = [f"seed=range(0,{jobs})"]
        if self.kind == "optuna":
            rate = "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))"
            varied = ["hydra/sweeper=optuna", f"hydra.sweeper.trials={jobs}", rate]
        return [*COMMON, f"trainer.epochs={self.epochs}", "hydra.launcher.workers=2", *varied]


class Sweep:
    """A command that can be started again."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder, self.log, self.starts = folder, Path(f"{folder}.log"), 0
        self.command = [sys.executable, str(PROJECT / "train.py"), "-m", *words, f"hydra.sweep.dir={folder}"]
        folder.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        self.starts, self.began = self.starts + 1, time.monotonic()
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> int:
        return self.process.wait()

    def until_begun(self) -> float:
        """Seconds to the first row of a log."""
        while not self.size and self.process.poll() is None:
            time.sleep(TICK)
        return time.monotonic() - self.began

    @property
    def size(self) -> int:
        """Bytes of all logs: how far the sweep is."""
        total = 0
        for path in self.folder.glob("*/metrics.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def workers(self) -> list[int]:
        """Process ids of the launcher's workers."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
        return [int(pid) for pid, parent, *args in rows if int(parent) == self.process.pid and "spawn_main" in args[0]]

    def kill(self, victim: str, draw: random.Random) -> bool:
        """Kills the launcher, one worker, or all; returns whether there was such a process."""
        workers = self.workers()
        chosen = {"launcher": [], "worker": draw.sample(workers, min(1, len(workers))), "both": workers}[victim]
        if victim != "worker":
            chosen = [self.process.pid, *chosen]
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(chosen)


def torment(sweep: Sweep, size: int, kills: int, startup: float, draw: random.Random) -> Counter[str]:
    """Runs a sweep to its end under so many kills, some of them before a job is under way; returns them by victim.

    Args:
        sweep: what is killed, and started again where its launcher is gone.
        size: bytes of all logs at its end.
        kills: how many.
        startup: seconds until its first job is under way.
        draw: chooses moments and victims.

    Raises:
        UserError: it ended with an error, or before it could be killed so often.
    """
    counts: Counter[str] = Counter()
    sweep.start()
    while counts.total() < kills:
        victim, until = draw.choice(VICTIMS), _moment(sweep, size, kills - counts.total(), startup, draw)
        while sweep.process.poll() is None and not until():
            time.sleep(TICK)
        time.sleep(draw.uniform(0, LATER))
        if sweep.process.poll() is None and sweep.kill(victim, draw):
            counts[victim] += 1
        if victim != "worker" or sweep.process.poll() is not None:
            again(sweep)
    while sweep.wait():
        again(sweep)
    return counts


def _moment(sweep: Sweep, size: int, left: int, startup: float, draw: random.Random) -> Callable[[], bool]:
    """When the next kill is due: in the seconds of a start, or when the sweep has come so much further."""
    if draw.random() < EARLY:
        seconds = time.monotonic() + draw.uniform(0, startup)
        return lambda: time.monotonic() > seconds
    now = sweep.size
    bytes_ = now + draw.uniform(0, max(0, size - now) / left)
    return lambda: sweep.size > bytes_


def again(sweep: Sweep) -> None:
    """Starts a sweep again that was killed, or in which a job has failed because its worker was killed twice."""
    if (code := sweep.wait()) not in (-signal.SIGKILL, FAILED):
        raise UserError(f"the sweep ended with {code} after {sweep.starts} starts; see {sweep.log}")
    sweep.start()


def alike(quiet: Sweep, killed: Sweep, jobs: int) -> str:
    """What is equal.

    Raises:
        UserError: something is not.
    """
    expected, found = fingerprints(quiet.folder), fingerprints(killed.folder)
    if len(expected) != jobs:
        raise UserError(f"{quiet.folder}: {len(expected)} folders of {jobs} jobs")
    if wrong := sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name)):
        raise UserError(f"{killed.folder}: {len(wrong)} folders are not those of the sweep left alone, as {wrong[0]}")
    return f"{jobs} configs, each once, equal to those of the sweep that was left alone"


def fingerprints(folder: Path) -> dict[str, list[Any]]:
    """Of each job that is done, under its folder's name: its config, log, summary and kept weights."""
    return {path.parent.name: _fingerprint(path.parent) for path in folder.glob("*/done.json")}


def _fingerprint(folder: Path) -> list[Any]:
    from descent.session.finishing import WALL_CLOCK

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    plain = {key: value for key, value in summary.items() if key not in WALL_CLOCK}
    files = ("config.yaml", "metrics.jsonl", "checkpoints/best/model.npz")
    hidden = [path.name for path in folder.rglob(".*")]
    return [plain, hidden, *(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files)]


def finished(killed: Sweep, jobs: int) -> str:
    """What a study that was killed has come to.

    Raises:
        UserError: a trial is missing, not finished, or has not the value of its run.
    """
    from descent.sweep import study

    known = study.read(killed.folder)
    trials = known.get_trials() if known else []
    states = Counter(trial.state.name for trial in trials if trial.params)
    if states.total() != jobs or states["RUNNING"] or states["WAITING"]:
        raise UserError(f"{killed.folder}: {dict(states)} of {jobs} trials")
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in killed.folder.glob("*/summary.json")]
    values = sorted(run["best"]["value"] for run in runs if run["status"] == "completed")
    if values != sorted(trial.values[0] for trial in trials if trial.state.name == "COMPLETE"):
        raise UserError(f"{killed.folder}: the trials have not the values of their runs")
    kinds = ", ".join(f"{count} {name.lower()}" for name, count in sorted(states.items()))
    return f"{jobs} trials, each once ({kinds}), with the values of their runs"


if __name__ == "__main__":
    run_script(SweepCampaign)

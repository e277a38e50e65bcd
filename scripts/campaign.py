"""Kills runs at random moments and continues them: python scripts/campaign.py kills=200 [seed=N] [out=FOLDER].

Each run is killed with SIGKILL again and again, at random times or at a chosen point of a save, an evaluation or the
first call, and continued until it is done. Its final state (model, optimizer, averages, host state), `metrics.jsonl`
and `summary.json` (wall-clock fields aside) must then be those of a run that was never killed, to the bit.
Every start is a fork of one process that has imported TensorFlow but made no tensor, which saves the import.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from descent import Experiment, UserError, checkpoint, compose, part
from descent.command import run_script
from descent.types import Count, Whole

COMMON = (
    "data=synthetic", "trainer.steps=48", "trainer.log_every=1", "trainer.eval_every=7st", "trainer.steps_per_call=5",
    "trainer.threads=1", "callback.checkpoint.every=4st", "callback.checkpoint.top_k=2", "logger.tensorboard=null",
)  # fmt: skip
CNN = ("model=cnn", "model.widths=[4,8]", "model.dense=8", "trainer.jit=false")
ALL = "callback=[checkpoint,early_stopping,plateau,spike]"
RUNS = {
    "batch norm, dropout, mixing, ema": (*CNN, "regularization=dropout", "augmentation=mixup_cutmix", "averaging=ema"),
    "plateau, early stopping, spikes": (
        ALL, "trainer.jit=false", "callback.plateau.patience=1", "callback.early_stopping.patience=3",
        "callback.early_stopping.min_delta=0.02", "callback.spike.window=4", "averaging=swa",
    ),
    "bfloat16, accumulation": (*CNN, "trainer.precision=mixed_bfloat16", "trainer.accumulate=2", "optimizer=nesterov"),
    "xla, lookahead, cutmix": ("trainer.jit=true", "augmentation=cutmix", "averaging=lookahead", "sharpness=sam"),
    "float16, skipped steps": (*CNN, "trainer.precision=mixed_float16", "trainer.nonfinite=skip", "clipping=adaptive"),
}  # fmt: skip
MOST = 10  # kills of one run, so that it ends
SITES = ("fsync", "rename", "evaluation", "call")


@part
class Campaign:
    """See the module.

    Attributes:
        kills: how many at least.
        seed: of the moments.
        out: a folder for the runs; None: a temporary one. Those that differ are kept in any case.
    """

    kills: Count = 200
    seed: Whole = 0
    out: str | None = None

    def __call__(self) -> None:
        folder = Path(self.out or tempfile.mkdtemp(prefix="campaign-"))
        began, counts, runs = time.monotonic(), Counter[str](), 0
        prepared: dict[str, Prepared] = {}
        prepare(folder)
        draw = random.Random(self.seed)
        while counts.total() < self.kills:
            name = list(RUNS)[runs % len(RUNS)]
            place = folder / f"run-{runs}"
            if name not in prepared:  # a short campaign does not come to all
                prepared[name] = Prepared(compose(*COMMON, *RUNS[name]), folder / f"unbroken-{runs}")
            counts += prepared[name].torment(place, draw)
            runs += 1
            shutil.rmtree(place)
            print(f"{counts.total()} kills, {runs} runs done and equal", flush=True)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        seconds = time.monotonic() - began
        print(f"{counts.total()} kills ({kinds}) in {runs} runs of {len(prepared)} kinds: all equal ({seconds:.0f} s)")
        shutil.rmtree(folder)


class Prepared:
    """A kind of run, and what an unbroken one left."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment = experiment
        began = time.monotonic()
        if code := wait(start(experiment, folder, lambda: None)):
            raise UserError(f"the unbroken run ended with {code}; see {folder}.log")
        self.seconds = time.monotonic() - began
        self.expected = fingerprint(folder)

    def torment(self, folder: Path, draw: random.Random) -> Counter[str]:
        """Kills and continues one run until it is done; returns the kills by kind.

        Raises:
            UserError: it is not the unbroken one.
        """
        counts: Counter[str] = Counter()
        while True:
            kind = draw.choice(("time", *SITES)) if counts.total() < MOST else "none"
            trap = Trap(kind, draw.randint(1, 1 if kind == "call" else 12), draw.random() < 0.5)
            process = start(self.experiment, folder, trap.set)
            if kind == "time":
                time.sleep(draw.uniform(0, self.seconds))
                os.kill(process, signal.SIGKILL)
            code = wait(process)
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise UserError(f"a continued run ended with {code}; see {folder}.log")
            counts[kind] += 1
        if differing := [key for key, value in fingerprint(folder).items() if value != self.expected[key]]:
            raise UserError(f"{folder}: {', '.join(differing)} differ after {dict(counts)}")
        return counts


class Trap:
    """Kills its own process at the n-th call of something, before or after it."""

    def __init__(self, kind: str, count: int, after: bool) -> None:
        self.kind, self.left, self.after = kind, count, after

    def set(self) -> None:
        from descent.step import Step
        from descent.trainer import Evaluator

        owners: dict[str, tuple[Any, str]] = {
            "fsync": (os, "fsync"),
            "rename": (Path, "rename"),
            "evaluation": (Evaluator, "outcome"),
            "call": (Step, "update"),
        }
        if self.kind in owners:
            owner, name = owners[self.kind]
            setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **more: Any) -> Any:
            self.left -= 1
            if not self.left and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **more)
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return inner


def prepare(folder: Path) -> None:
    """Imports what every start needs."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    from descent import report, session  # noqa: F401

    report.draw = lambda *_: None  # figures are made from the rest, and take a second
    folder.mkdir(parents=True, exist_ok=True)


def start(experiment: Experiment, folder: Path, trap: Callable[[], None]) -> int:
    """Starts or continues the run in a fork; returns its process id."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 99
    try:
        log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        trap()
        code = experiment.run(folder).exit_code
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """The exit code; minus the signal of one that was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def fingerprint(folder: Path) -> dict[str, str]:
    """Digests of all that must be equal, and what should not be there."""
    from descent.session.finishing import WALL_CLOCK

    saved, passed = checkpoint.newest(folder / "checkpoints")
    if saved is None or passed:
        raise UserError(f"{folder}: the last checkpoint is not valid: {passed}")
    digests = {kind: digest(*(a.tobytes() for a in arrays)) for kind, arrays in saved.arrays.items()}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    plain = {key: value for key, value in summary.items() if key not in WALL_CLOCK}
    texts = {"host state": saved.host, "summary.json": plain, "step": saved.step}
    return {
        **digests,
        **{key: digest(json.dumps(value, sort_keys=True).encode()) for key, value in texts.items()},
        "metrics.jsonl": digest((folder / "metrics.jsonl").read_bytes()),
        "weights kept": digest(*(p.read_bytes() for p in sorted(folder.glob("checkpoints/[bt]*/model.npz")))),
        "leftovers": " ".join(sorted(p.name for p in folder.rglob(".*"))),
    }


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


if __name__ == "__main__":
    run_script(Campaign)

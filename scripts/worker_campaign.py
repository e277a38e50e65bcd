"""Takes workers from each other at random moments: python scripts/worker_campaign.py kills=20 [seed=N] [out=FOLDER].

Each run trains in two processes, as `scripts/launch.py` starts them. At a random moment after a new checkpoint a random
one of them is killed (SIGKILL) or stopped (SIGSTOP), or, where network namespaces can be made (as root), the network
between them is cut. The other, of a cut network both, has to notice, and to end with code 5 within 30 seconds.
All are started again, until the run is done. Its final state (model, optimizer, averages, host state) and its log
`metrics.jsonl` must then be those of a run in two processes that nobody disturbed, to the bit.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import cable
import launch
from cable import Cable
from descent import UserError, checkpoint, part
from descent.command import run_script
from descent.types import Count, Whole

WORDS = (
    "data=synthetic", "model=cnn", "model.widths=[4,8]", "model.dense=8", "trainer.batch_size=16", "trainer.steps=3000",
    "trainer.threads=1", "trainer.eval_every=150st", "trainer.steps_per_call=10", "callback.checkpoint.every=100st",
    "callback=[checkpoint]", "logger=[]", "averaging=ema", "augmentation=mixup_cutmix", "regularization=dropout",
    "clipping=global_norm",
)  # fmt: skip
WITHIN = 30.0  # seconds in which the loss is to be noticed
START = 180.0  # seconds a start may take until there is a new checkpoint
MOST = 8  # kills of one run, so that it ends
CUT = "cut network"
KINDS = (signal.SIGKILL.name, signal.SIGSTOP.name, CUT)


@part
class WorkerCampaign:
    """See the module.

    Attributes:
        kills: how many.
        seed: of the moments and the workers; the kinds of loss take turns.
        out: a folder for the runs; None: a temporary one. Those that differ are kept in any case.
    """

    kills: Count = 20
    seed: Whole = 0
    out: str | None = None

    def __call__(self) -> None:
        folder = Path(self.out or tempfile.mkdtemp(prefix="worker-campaign-"))
        draw, found, runs = random.Random(self.seed), list[tuple[str, float]](), 0
        kinds = KINDS if cable.possible() else KINDS[:2]
        finish(folder / "whole")
        while len(found) < self.kills:
            place = folder / f"run-{runs}"
            for _ in range(min(MOST, self.kills - len(found))):
                kind = kinds[len(found) % len(kinds)]
                found.append((kind, disturbed(place, kind, draw)))
                print(f"{len(found)}: {kind}, noticed after {found[-1][1]:.1f} s", flush=True)
            finish(place)
            compare(folder / "whole", place)
            shutil.rmtree(place)
            runs += 1
        counts = Counter(kind for kind, _ in found)
        told = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
        slowest = max(seconds for _, seconds in found)
        print(f"{len(found)} losses ({told}) in {runs} runs, noticed within {slowest:.1f} s: all equal")
        shutil.rmtree(folder)


def begun(place: Path, joined: Cable | None = None) -> list[subprocess.Popen[bytes]]:
    words = [*WORDS, f"hydra.run.dir={place}"]
    return launch.start_at(joined.addresses, joined.before, words) if joined else launch.start(2, words)


def finish(place: Path) -> None:
    processes = begun(place)
    with launch.forwarding(processes):
        codes = launch.ended(processes, WITHIN)
    if any(codes):
        raise UserError(f"{place}: the workers ended with {codes}")


def disturbed(place: Path, kind: str, draw: random.Random) -> float:
    """Goes on until a random moment, and disturbs; returns after how many seconds all had ended that should."""
    before = newest(place)
    with cable.cable() if kind == CUT else contextlib.nullcontext() as joined:
        processes = begun(place, joined)
        with launch.forwarding(processes):
            await_checkpoint(place, before, processes)
            time.sleep(draw.uniform(0, 1))
            victim, other = draw.sample(processes, 2)
            if joined:
                joined.cut()
                return noticed(processes)
            victim.send_signal(signal.Signals[kind])
            return noticed([other])


def await_checkpoint(place: Path, before: int, processes: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + START
    while newest(place) == before:
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            raise UserError(f"{place}: no new checkpoint, {[process.poll() for process in processes]}")
        time.sleep(0.05)


def noticed(left: list[subprocess.Popen[bytes]]) -> float:
    """Seconds until the workers that are left have ended.

    Raises:
        UserError: one has not in time, or with another code.
    """
    began = time.monotonic()
    for process in left:
        try:
            code = process.wait(began + WITHIN - time.monotonic())
        except subprocess.TimeoutExpired as error:
            raise UserError(f"the loss of a worker was not noticed in {WITHIN:g} s") from error
        if code != launch.Lost.code:
            raise UserError(f"a worker whose other was lost ended with {code}, not {launch.Lost.code}")
    return time.monotonic() - began


def newest(place: Path) -> int:
    """The step of the newest checkpoint; 0 before the first."""
    return max(checkpoint.steps(place / "checkpoints"), default=0)


def compare(whole: Path, place: Path) -> None:
    """Whether two runs ended alike.

    Raises:
        UserError: they did not.
    """
    a, b = (checkpoint.newest(path / "checkpoints")[0] for path in (whole, place))
    assert a
    assert b
    same = (a.step, a.host) == (b.step, b.host) and all(
        np.array_equal(x, y, equal_nan=True)
        for kind, arrays in a.arrays.items()
        for x, y in zip(arrays, b.arrays[kind], strict=True)
    )
    if not same or (whole / "metrics.jsonl").read_bytes() != (place / "metrics.jsonl").read_bytes():
        raise UserError(f"{place} is not what {whole} is")


if __name__ == "__main__":
    run_script(WorkerCampaign)

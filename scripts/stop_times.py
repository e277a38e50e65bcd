"""How long a run takes to stop: python scripts/stop_times.py [moments=20] [seed=N] [KEY=VALUE ...].

Starts `train.py` with the other words, waits until its first call is over and then a random time, sends SIGTERM, and
measures until the process has ended. What it left must be a valid checkpoint and the documented exit code.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field

from descent import UserError, checkpoint, compose, part
from descent.command import parted, script_words
from descent.config import PROJECT
from descent.entry import run_main
from descent.signals import LEFT
from descent.types import Count, Whole

FIRST_CALL = 300.0  # seconds that it may take
# Tells through a pipe when the first call is over, which nothing on disk does.
CHILD = """
import os, runpy, sys
from descent.session.run import Pace
count, told = Pace.count, []
def telling(self, segment):
    count(self, segment)
    if not told:
        told.append(os.write({pipe}, b"!"))
Pace.count = telling
sys.argv = [{script!r}, *{words!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


@part
class StopTimes:
    """See the module.

    Attributes:
        moments: how many runs are stopped.
        seed: of the moments.
        within: seconds after the first call in which the signal comes.
    """

    moments: Count = 20
    seed: Whole = 0
    within: Annotated[float, Field(gt=0)] = 8.0


def main() -> None:
    asked, rest = parted(StopTimes, script_words(__doc__))
    compose(*rest)
    draw, times = random.Random(asked.seed), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(asked.moments):
            times.append(stopped(rest, Path(folder) / str(i), draw.uniform(0, asked.within)))
            print(f"{i + 1}: {times[-1]:.2f} s", flush=True)
    print(f"SIGTERM to exit, {len(times)} moments: median {statistics.median(times):.2f} s, most {max(times):.2f} s")


def stopped(words: list[str], folder: Path, delay: float) -> float:
    """Seconds from the signal to the end of one run.

    Raises:
        UserError: it ended before, or did not leave what it should.
    """
    reading, writing = os.pipe()
    code = CHILD.format(pipe=writing, script=str(PROJECT / "train.py"), words=[*words, f"hydra.run.dir={folder}"])
    with (folder.with_suffix(".log")).open("w", encoding="utf-8") as log:
        run = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, pass_fds=(writing,))
    os.close(writing)
    try:
        if not (select.select([reading], [], [], FIRST_CALL)[0] and os.read(reading, 1)):
            raise UserError(f"the run did not come to its second call:\n{Path(log.name).read_text()[-2000:]}")
        time.sleep(delay)
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        run.wait(60)
        seconds = time.monotonic() - began
    finally:
        os.close(reading)
        if run.poll() is None:
            run.kill()
    if run.returncode != LEFT:
        raise UserError(f"the run ended with {run.returncode}; more trainer.epochs would keep it going")
    saved, passed = checkpoint.newest(folder / "checkpoints")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if saved is None or passed or summary["status"] != "interrupted" or summary["steps"] != saved.step:
        raise UserError(f"the run left no whole state: {passed or summary}")
    return seconds


if __name__ == "__main__":
    run_main(main)

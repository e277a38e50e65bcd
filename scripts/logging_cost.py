"""What the log costs: python scripts/logging_cost.py [pairs=1000] [evaluations=10] [KEY=VALUE ...].

One run in pairs of short blocks, each of so many evaluations. One of a pair is logged as always (rows, TensorBoard,
progress), the other not at all: not even norms that only the log shows are computed. Which is first is drawn. So
neither the state of the machine counts, nor what comes at intervals, nor where a process lies in memory. Rows that
wait to be handed out do so in a block that is logged. Prints the geometric mean over the pairs, and the interval that
holds that of all such pairs in 95 % of the cases. Any overrides of `train.py` may follow.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from descent import Experiment, compose, display, part, trainer
from descent.command import parted, script_words
from descent.entry import run_main
from descent.folder import RunFolder
from descent.session import Session
from descent.session.observing import Observer
from descent.trainer import Segment, Trainer
from descent.types import Count

WARM = 2  # pairs that do not count
# What a run for this must have: no end but its own, and nothing that stops it.
ALWAYS = ("callback=[checkpoint]", "trainer.epochs=null")


@part
class LoggingCost:
    """See the module.

    Attributes:
        pairs: how many count.
        evaluations: of a block, each with the steps before it.
    """

    pairs: Count = 1000
    evaluations: Count = 10

    def __call__(self, overrides: Sequence[str]) -> None:
        words, pairs = [*ALWAYS, *overrides], WARM + self.pairs
        long = compose(*words, "trainer.steps=1000000")
        size = self.evaluations * long.clock.in_steps(long.trainer.eval_every)
        run = compose(*words, f"trainer.steps={math.ceil(2 * size * pairs)}")
        logged = np.random.default_rng(0).permuted(np.tile([True, False], (pairs, 1)), axis=1).ravel()
        times = Blocks(run, self.evaluations, logged).times()[: 2 * pairs]
        on, off = (times[which][WARM:] for which in (logged, ~logged))
        low, middle, high = (100 * (ratio - 1) for ratio in mean(on / off))
        step = 1e6 * float(np.median(off)) / size
        print(f"logging takes {middle:.1f} % ({low:.1f} to {high:.1f}) of {step:.1f} us a step, {len(on)} pairs")


class Blocks:
    """A run in blocks of so many evaluations, of which some are logged; what is left after them is not."""

    def __init__(self, run: Experiment, evaluations: int, logged: Sequence[bool] | np.ndarray) -> None:
        self.run, self.now, self.ends = run, 0, [0.0]
        self.logged = np.array([*logged, False])
        self.last = np.array(run.trainer.evaluations(run.clock))[evaluations - 1 :: evaluations]  # step of each block

    def times(self) -> np.ndarray:
        """Seconds of each block."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            for owner, name, toggled in (
                (Trainer, "logged", self._logged),
                (Observer, "_record", self._due),
                (Observer, "flush", self._due),
                (display.Ticker, "step", self._due),
                (display.Ticker, "evaluated", self._due),
            ):
                plain = getattr(owner, name)
                stack.enter_context(mock.patch.object(owner, name, _bound(toggled, plain)))
            stack.enter_context(mock.patch("descent.session.running.train", self._train))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            Session(self.run, RunFolder(Path(folder) / "run"), []).run()
        return np.diff(self.ends)

    def _train(self, *arguments: Any) -> Iterator[Segment]:
        self.ends = [time.perf_counter()]
        for segment in trainer.train(*arguments):
            self.now = segment.step
            yield segment
            if segment.step in self.last:
                self.ends.append(time.perf_counter())

    def _on(self, step: Any) -> Any:
        return self.logged[np.minimum(np.searchsorted(self.last, step), len(self.logged) - 1)]

    def _logged(self, plain: Any, trainer: Trainer, clock: Any) -> np.ndarray:
        steps = np.arange(1, clock.steps + 1)
        return (plain(trainer, clock) & self._on(steps)) | np.isin(steps, trainer.evaluations(clock))

    def _due(self, plain: Any, *arguments: Any) -> None:
        if self._on(self.now):
            plain(*arguments)


def _bound(toggled: Any, plain: Any) -> Any:
    return lambda *arguments: toggled(plain, *arguments)


def mean(ratios: np.ndarray) -> tuple[float, float, float]:
    """The geometric mean, between the ends of its 95 % interval (the logarithms' mean is normal for many)."""
    logs = np.log(ratios)
    middle, error = float(logs.mean()), 1.96 * float(logs.std()) / math.sqrt(len(logs))
    return math.exp(middle - error), math.exp(middle), math.exp(middle + error)


def main() -> None:
    asked, overrides = parted(LoggingCost, script_words(__doc__))
    asked(overrides)


if __name__ == "__main__":
    run_main(main)

"""What starting, observing, saving and finishing a run all need."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etils import epy
from rich.console import Console

from descent.callback import Checkpoint
from descent.data import Remembered
from descent.folder import RunFolder
from descent.session import programs
from descent.session.inspecting import Inspector
from descent.session.peers import peers, watched
from descent.trainer import Segment

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.experiment import Experiment


class Pace:
    """Where the time goes.

    Attributes:
        seconds, samples: of training; the first call, which compiles, is left out.
        spent: seconds by kind: `start`, `first_call`, `input` (waiting for it), `steps`, and what is timed with `on`.
    """

    def __init__(self, batch_size: int, began: float) -> None:
        self.batch_size, self.began, self.seconds, self.samples = batch_size, began, 0.0, 0
        self.spent: dict[str, float] = collections.defaultdict(float)

    def count(self, segment: Segment) -> None:
        if "first_call" not in self.spent:
            self.spent["start"] = time.monotonic() - self.began - segment.seconds
            self.spent["first_call"] = segment.seconds
            return
        self.seconds += segment.seconds
        self.samples += len(segment.rows) * self.batch_size
        self.spent["input"] += segment.waited
        self.spent["steps"] += segment.seconds - segment.waited

    @contextlib.contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Adds the time spent in the context to a kind, and names it in a trace."""
        began = time.perf_counter()
        with tf.profiler.experimental.Trace(kind):
            yield
        self.spent[kind] += time.perf_counter() - began

    def kinds(self) -> dict[str, float]:
        """Seconds by kind until now; `python` is the rest: records, callbacks, display."""
        rest = time.monotonic() - self.began - sum(self.spent.values())
        return {kind: round(value, 3) for kind, value in {**self.spent, "python": max(0.0, rest)}.items()}

    @property
    def rate(self) -> float:
        """Samples a second; 0 before the second call."""
        return self.samples / self.seconds if self.seconds else 0.0


class Run:
    """A run in its folder, and how fast it is.

    Attributes:
        given: the experiment as composed; `experiment` has its lengths resolved.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, overrides: list[str]) -> None:
        self.began = time.monotonic()
        if isinstance(experiment.data, Remembered):
            experiment.data.prepare()
        self.given, self.experiment = experiment, experiment.resolved()
        self.folder, self.overrides = folder, overrides
        where = experiment.strategy
        with watched(where.worker(), folder.path) if where.workers() > 1 else contextlib.nullcontext():
            built = programs.obtain(self.experiment)
        self.flops, self.state, self.step = built.flops, built.state, built.step
        self.pipeline, self.evaluator = built.pipeline, built.evaluator
        self.pace = Pace(experiment.trainer.batch_size, self.began)
        step = built.step
        self.peers = peers(step.strategy, step.worker, step.workers, folder.path)
        self.console = Console(soft_wrap=True, quiet=not self.peers.chief)

    @property
    def replicas(self) -> int:
        """Devices that compute together."""
        return self.step.replicas

    @property
    def keeper(self) -> Checkpoint | None:
        return next((c for c in self.experiment.callback.values() if isinstance(c, Checkpoint)), None)

    @property
    def best(self) -> dict[str, Any]:
        """Monitor, value and step of the best weights; of the last step where nothing was monitored."""
        return self.state.host.get("best") or {"monitor": None, "value": None, "step": self.now}

    @property
    def now(self) -> int:
        """Updates done so far."""
        return int(self.state.step.numpy())

    @cached_property
    def inspector(self) -> Inspector:
        return Inspector(self.state, self.step, self.pipeline, self.folder)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

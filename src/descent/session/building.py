"""From an experiment to what runs: data, variables, the compiled step, the pipeline."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etils import epy
from rich.console import Console

from descent import environment, metric, precision, seeds
from descent.callback import Checkpoint
from descent.data import Fitted
from descent.data.pipeline import Pipeline
from descent.folder import RunFolder
from descent.gradient import Gradient
from descent.session.inspecting import Inspector
from descent.state import State
from descent.step import Step
from descent.trainer import Evaluator, Segment

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.experiment import Experiment

EVALUATION_BATCH = 256  # forward passes need little memory; larger batches gained nothing on 2 cores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """What an experiment becomes when its run starts.

    Attributes:
        flops: of one sample's forward pass.
    """

    flops: int
    state: State
    step: Step
    pipeline: Pipeline
    evaluator: Evaluator


def build(experiment: Experiment) -> Built:
    """Opens the data and makes the variables, the compiled step and the pipeline of a resolved experiment."""
    environment.prepare(experiment.trainer)
    source, spec, trainer = experiment.data.open(), experiment.data.spec, experiment.trainer
    with experiment.strategy.build().scope(), seeds.initialization(experiment.seed):
        state = _state(experiment)
    step, flops = _step(experiment, state), metric.flops(state.model)
    pipeline = Pipeline(
        source=source,
        spec=spec,
        sample=experiment.augmentation.sample,
        mixing=experiment.augmentation.batch,
        batch_size=trainer.batch_size,
        samples=trainer.used(spec.sizes["train"]),
        steps=experiment.clock.steps,
        chunk=trainer.chunk(experiment.clock, math.prod(spec.shape), flops),
        seed=experiment.seed,
    )
    evaluator = Evaluator(step=step, pipeline=pipeline, batch_size=max(EVALUATION_BATCH, trainer.batch_size))
    return Built(flops=flops, state=state, step=step, pipeline=pipeline, evaluator=evaluator)


def _state(experiment: Experiment) -> State:
    model = experiment.model.build(experiment.data.spec, experiment.regularization)
    return State(
        model=model,
        optimizer=experiment.optimizer.build(model.trainable_variables, experiment.clock.steps),
        averager=experiment.averaging.build(model, experiment.clock.steps),
        scaling=precision.scaling(experiment.trainer.precision),
        step=tf.Variable(0, dtype=tf.int64, trainable=False),
        rate_factor=tf.Variable(1.0, trainable=False),
        skipped=tf.Variable(0, dtype=tf.int64, trainable=False),
    )


def _step(experiment: Experiment, state: State) -> Step:
    gradient = Gradient(
        model=state.model,
        spec=experiment.data.spec,
        loss=experiment.loss,
        regularization=experiment.regularization,
        seed=experiment.seed,
        accumulate=experiment.trainer.accumulate,
    )
    return Step(
        state=state,
        spec=experiment.data.spec,
        mixing=experiment.augmentation.batch,
        gradient=gradient,
        sharpness=experiment.sharpness,
        regularization=experiment.regularization,
        clipping=experiment.clipping,
        rates=experiment.rates(),
        jit=experiment.trainer.jits(state.model),
        allowed=experiment.trainer.allowed,
    )


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
    """What starting, observing, saving and finishing a run all need.

    Attributes:
        given: the experiment as composed; `experiment` has its lengths resolved.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, overrides: list[str]) -> None:
        self.began = time.monotonic()
        if isinstance(experiment.data, Fitted):
            experiment.data.fit()
        self.given, self.experiment = experiment, experiment.resolved()
        self.folder, self.overrides = folder, overrides
        built = build(self.experiment)
        self.flops, self.state, self.step = built.flops, built.state, built.step
        self.pipeline, self.evaluator = built.pipeline, built.evaluator
        self.pace = Pace(experiment.trainer.batch_size, self.began)
        self.console = Console(soft_wrap=True)

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

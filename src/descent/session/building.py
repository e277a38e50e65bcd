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

from descent import environment, metric, precision, replicas, seeds
from descent.callback import Checkpoint
from descent.data import Fitted
from descent.data.pipeline import Pipeline
from descent.folder import RunFolder
from descent.gradient import Gradient
from descent.session.inspecting import Inspector
from descent.session.peers import peers, watched
from descent.state import State
from descent.step import Step
from descent.trainer import Evaluator, Segment

with epy.lazy_imports():
    import keras
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
    strategy = experiment.strategy.build()  # first: it says which devices there are
    count = strategy.num_replicas_in_sync
    experiment.check_batch(count)
    source, spec, trainer = experiment.data.open(), experiment.data.spec, experiment.trainer
    with scope(strategy), seeds.initialization(experiment.seed):
        state = _state(experiment, first=experiment.strategy.worker() * count // experiment.strategy.workers())
    flops = metric.flops(state.model)
    step = _step(experiment, state, strategy, flops)
    pipeline = Pipeline(
        source=source,
        spec=spec,
        sample=experiment.augmentation.sample,
        mixing=experiment.augmentation.batch,
        batch_size=trainer.batch_size,
        samples=trainer.used(spec.sizes["train"]),
        steps=experiment.clock.steps,
        chunk=trainer.chunk(experiment.clock, math.prod(spec.shape), flops, experiment.strategy.workers()),
        seed=experiment.seed,
        own=_rows(experiment, strategy),
    )
    evaluator = Evaluator(step=step, pipeline=pipeline, batch_size=max(EVALUATION_BATCH, trainer.batch_size))
    return Built(flops=flops, state=state, step=step, pipeline=pipeline, evaluator=evaluator)


def _rows(experiment: Experiment, strategy: tf.distribute.Strategy) -> tuple[int, ...] | None:
    """The rows of each batch that the replicas of this process compute; None: all, in order."""
    count, trainer, where = strategy.num_replicas_in_sync, experiment.trainer, experiment.strategy
    if count == 1:
        return None
    local = count // where.workers()
    own = range(where.worker() * local, (where.worker() + 1) * local)
    return tuple(int(i) for r in own for i in replicas.rows(trainer.batch_size, trainer.accumulate, count, r))


@contextlib.contextmanager
def scope(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Where variables are made: each replica has its own copy, and assigns to it by itself."""
    if strategy is tf.distribute.get_strategy():  # the default
        yield
        return
    with strategy.scope(), tf.variable_creator_scope(replicas.creator):
        yield


def _state(experiment: Experiment, first: int) -> State:
    from descent.optimizer.direct import direct

    model = experiment.model.build(experiment.data.spec, experiment.regularization)
    optimizer = direct(experiment.optimizer.build(model.trainable_variables, experiment.clock.steps))
    if tf.distribute.has_strategy():  # another than the default
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                # Keras' own, in a `keras_application`; ours always are.
                layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return State(
        model=model,
        optimizer=optimizer,
        averager=experiment.averaging.build(model, experiment.clock.steps),
        scaling=precision.scaling(experiment.trainer.precision),
        step=tf.Variable(0, dtype=tf.int64, trainable=False),
        rate_factor=tf.Variable(1.0, trainable=False),
        skipped=tf.Variable(0, dtype=tf.int64, trainable=False),
        replica=first,
    )


def _step(experiment: Experiment, state: State, strategy: tf.distribute.Strategy, flops: float) -> Step:
    jit = experiment.trainer.jits(state.model, experiment.clock.steps, flops)
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
        logged=experiment.trainer.logged(experiment.clock),
        jit=jit and strategy is tf.distribute.get_strategy(),
        strategy=strategy,
        worker=experiment.strategy.worker(),
        workers=experiment.strategy.workers(),
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
        where = experiment.strategy
        with watched(where.worker(), folder.path) if where.workers() > 1 else contextlib.nullcontext():
            built = build(self.experiment)
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

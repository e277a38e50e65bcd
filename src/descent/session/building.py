"""From an experiment to what runs: data, variables, the compiled step, the pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etils import epy

from descent import environment, metric, precision, replicas, seeds
from descent.data.pipeline import Pipeline, chosen
from descent.gradient import Gradient
from descent.state import State
from descent.step import Step
from descent.trainer import Evaluator

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
        chosen=chosen(spec.sizes["train"], trainer.samples),
        samples=trainer.used(experiment.samples),
        steps=experiment.clock.steps,
        chunk=trainer.chunk(experiment.clock, math.prod(spec.shape), flops, experiment.strategy.workers()),
        seed=experiment.seed,
        own=_rows(experiment, strategy),
    )
    evaluator = Evaluator(step=step, pipeline=pipeline, batch_size=max(EVALUATION_BATCH, trainer.batch_size))
    return Built(flops=flops, state=state, step=step, pipeline=pipeline, evaluator=evaluator)


def renewed(built: Built, experiment: Experiment) -> Built:
    """What `build` makes of a resolved experiment, out of what it made of one that differs in its seed and rates only.

    All is as if it were new, but for what is compiled. Nothing may have been built in between.
    """
    with seeds.initialization(experiment.seed):
        built.state.restore(_state(experiment, first=0).snapshot(), {})
    built.step.renew(experiment.seed, experiment.rates())
    pipeline = built.pipeline.renewed(experiment.seed)
    return dataclasses.replace(
        built, pipeline=pipeline, evaluator=dataclasses.replace(built.evaluator, pipeline=pipeline)
    )


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
    experiment.regularization.check(model.trainable_variables)
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
    from descent.optimizer.rules import trained

    jit = experiment.trainer.jits(state.model, experiment.clock.steps, flops)
    gradient = Gradient(
        model=state.model,
        spec=experiment.data.spec,
        loss=experiment.loss,
        regularization=experiment.regularization,
        trained=trained(state.optimizer, state.model.trainable_variables),
        word=seeds.variable(experiment.seed, "dropout"),
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
        noise=seeds.variable(experiment.seed, "noise"),
        rates=tf.Variable(experiment.rates(), trainable=False, dtype=tf.float32),
        logged=experiment.trainer.logged(experiment.clock),
        jit=jit and strategy is tf.distribute.get_strategy(),
        strategy=strategy,
        worker=experiment.strategy.worker(),
        workers=experiment.strategy.workers(),
        allowed=experiment.trainer.allowed,
    )

"""The compiled part: several training steps a call, and the forward pass of an evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from descent import replicas, seeds
from descent.gradient import Gradient
from descent.norm import for_xla, norm_of
from descent.state import State, Weights
from descent.types import Batch, BatchAugmentation, Clipping, Regularization, Sharpness, Spec

with epy.lazy_imports():
    import tensorflow as tf


class Done(NamedTuple):
    """What a call did.

    Attributes:
        rows: the records of its steps, float32 [K, names].
        end: the step of the chunk it ended before, int32.
        sound: false where it ended at a step that was not finite and may not be skipped.
    """

    rows: tf.Tensor
    end: tf.Tensor
    sound: tf.Tensor


@dataclasses.dataclass(kw_only=True, repr=False)
class Step:
    """What one step is made of, and the compiled call that runs several.

    Attributes:
        noise: the word of the stream that disturbs gradients, int64.
        rates: the learning rate of every step of the run, float32 [steps].
        logged: the steps whose records are read, bool [steps]. The norms of weights and updates, which take a fourth of
            the time of a small model's step, are NaN in the records of the others that are finite.
        jit: compile the whole loop with XLA.
        strategy: runs each step on every replica; by default there is one.
        worker, workers: which of the processes that share the replicas this is, and how many they are.
        allowed: steps in a row that may be skipped for not being finite; one more ends the call.
        stopping: whether `stop` was called.
    """

    state: State
    spec: Spec
    mixing: BatchAugmentation
    gradient: Gradient
    sharpness: Sharpness
    regularization: Regularization
    clipping: Clipping
    noise: tf.Variable
    rates: tf.Variable
    logged: np.ndarray
    jit: bool
    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1
    allowed: int = 0

    def __post_init__(self) -> None:
        self.stopping, self.told = False, tf.Variable(False, trainable=False)
        self.logged_table = tf.constant(self.logged)
        self.run: Any = tf.function(self._run, autograph=False, jit_compile=self.jit)
        self.replicas = (
            self.strategy.num_replicas_in_sync
        )  # kept: to ask for it takes longer than to look up a function
        self.local = self.replicas // self.workers  # those of this process
        self.answer = self._compiled(self._answer)
        self.evaluate = self._compiled(self._evaluate)

    def _compiled(self, function: Callable[..., tf.Tensor]) -> Any:
        return tf.function(function, autograph=False, jit_compile=self.jit, reduce_retracing=True)

    def stop(self) -> None:
        """From another thread: ends the call after the step under way; a loop compiled by XLA cannot see it."""
        self.stopping = True
        self.told.assign(True)

    def renew(self, seed: int, rates: np.ndarray) -> None:
        """Makes the same program one for another seed and other rates [steps]."""
        self.gradient.word.assign(seeds.stream(seed, "dropout"))
        self.noise.assign(seeds.stream(seed, "noise"))
        self.rates.assign(rates)
        self.stopping = False
        self.told.assign(False)

    def _run(self, chunk: Any, begin: tf.Tensor, end: tf.Tensor) -> Done:
        """Steps `begin` to `end` of a chunk, or fewer. Both bounds are runtime values."""
        size = chunk.weight.shape[0]

        def going(i: tf.Tensor, _: tf.TensorArray) -> tf.Tensor:
            due = (i < end) & self._sound()
            return due if self.jit else due & ~self.told.read_value()

        def body(i: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            def row() -> tf.Tensor:
                here = replicas.taken(chunk, i, self.local)
                with for_xla(self.jit):
                    record = self.update(to_batch(self.spec, here), here.plan)
                return tf.stack([record[name] for name in self.names])

            return i + 1, rows.write(i, self._on_each(row))

        rows = tf.TensorArray(tf.float32, size, element_shape=[len(self.names)])
        done, rows = tf.while_loop(going, body, [begin, rows])
        return Done(rows.stack(), done, self._sound())

    def _on_each(self, compute: Callable[[], tf.Tensor]) -> tf.Tensor:
        """What every replica computes, and is the same on each."""
        return self.strategy.experimental_local_results(self.strategy.run(compute))[0]

    def _sound(self) -> tf.Tensor:
        return self.state.skipped.read_value() <= self.allowed

    @property
    def names(self) -> list[str]:
        """What a record row holds, in order."""
        optimisation = ["learning_rate", "grad_norm", "param_norm", "update_norm", "finite"]
        return [*self.gradient.names, *optimisation]

    def update(self, batch: Batch, plan: Any) -> dict[str, tf.Tensor]:
        """One step of training; returns its record. A non-finite one changes nothing but the step count."""
        state = self.state
        variables = [v.value for v in state.model.trainable_variables]
        others = [v.value for v in state.model.non_trainable_variables]
        step, scale = state.step.value(), state.scaling.scale()
        rate = tf.gather(self.rates, step) * state.rate_factor
        mixed = self.mixing.apply(plan, batch)
        before, others_before = ([tf.identity(v) for v in group] for group in (variables, others))
        record, gradients = self.sharpness(lambda: self.gradient(mixed, step, scale), variables, others)
        norm = norm_of(gradients)
        finite = tf.math.is_finite(record["loss"]) & tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._apply(gradients, rate, before), lambda: _put_back(others, others_before))
        overflow = ~finite & (scale > 1) & tf.math.is_finite(record["loss"])  # no fault: the loss scale is halved
        state.skipped.assign(tf.where(finite | overflow, tf.zeros([], tf.int64), state.skipped + 1))
        state.scaling.update(finite)
        state.step.assign_add(1)
        read = tf.gather(self.logged_table, step) | ~finite
        sizes = tf.cond(read, lambda: _sizes(variables, before), lambda: tf.fill([2], math.nan))
        return record | {
            "learning_rate": rate,
            "grad_norm": norm,
            "param_norm": sizes[0],
            "update_norm": sizes[1],
            "finite": tf.cast(finite, tf.float32),
        }

    def _apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor, before: Sequence[tf.Tensor]) -> tf.Tensor:
        """Clip, disturb, update, constrain, average: in this order."""
        state, variables = self.state, self.state.model.trainable_variables
        step = state.step.value()
        # Identities: what is left unclipped is of the outer graph, and Keras wants all gradients from one.
        clipped = [tf.identity(g) for g in self.clipping(gradients, variables)]
        noise = seeds.key(self.noise, step)
        state.optimizer.learning_rate = rate
        state.optimizer.apply(self.regularization.disturb(clipped, noise, step), variables)
        self.regularization.constrain(variables, before)
        state.averager.update(step)
        return tf.constant(True)

    def _answer(self, raw: tf.Tensor) -> tf.Tensor:
        """Logits (or real outputs) [m, n] for raw elements [m, ...], by the weights that are in the model."""
        return self.gradient.logits(self._outputs(raw, self.state.weights()))

    def _evaluate(self, chunk: Any, averaged: bool) -> tf.Tensor:
        """For each sample of a chunk [K, b / workers] its logits, its plain loss and its target: [K, b, n + 2].

        Weights are the model's own, or the `averaged` ones; one tensor, so that replicas send one message.
        """

        def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            def rows() -> tf.Tensor:
                raw, targets = (replicas.own_rows(tensor, self.local) for tensor in pair)
                weights = self.state.evaluated() if averaged else self.state.weights()
                outputs = self._outputs(raw, weights)
                losses = self.gradient.losses(to_targets(self.spec, targets), outputs)
                columns = [self.gradient.logits(outputs), losses[:, None], tf.cast(targets, tf.float32)[:, None]]
                return replicas.gathered(tf.concat(columns, axis=1))

            return self._on_each(rows)

        size = chunk.targets.shape[1]
        rows = size and size * self.workers  # None where it differs between calls
        signature = tf.TensorSpec([rows, self.spec.outputs + 2], tf.float32)
        return tf.map_fn(one, (chunk.inputs, chunk.targets), fn_output_signature=signature)

    def _outputs(self, raw: tf.Tensor, weights: Weights) -> tf.Tensor:
        outputs = self.state.model.stateless_call(*weights, scaled(self.spec, raw), training=False)[0]
        return tf.cast(outputs, tf.float32)


def _sizes(now: Sequence[tf.Tensor], before: Sequence[tf.Tensor]) -> tf.Tensor:
    """The norms of weights and of what changed them, float32 [2]."""
    changes = [new - old for new, old in zip(now, before, strict=True)]
    return tf.stack([norm_of(now), norm_of(changes)])


def _put_back(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> tf.Tensor:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return tf.constant(False)


def scaled(spec: Spec, raw: tf.Tensor) -> tf.Tensor:
    """Raw elements as the model takes them: scaled float32, or the ids of words as they are (int32)."""
    return tf.cast(raw, tf.int32) if spec.kind == "text" else tf.cast(raw, tf.float32) * spec.scale


def to_batch(spec: Spec, raw: Any) -> Batch:
    """Raw elements and labels to scaled inputs (float32, or int32 ids) and one-hot (or real) targets."""
    return Batch(scaled(spec, raw.inputs), to_targets(spec, raw.targets), raw.weight)


def to_targets(spec: Spec, raw: tf.Tensor) -> tf.Tensor:
    """Labels [b] as one-hot rows [b, n], or real values [b] as a column [b, 1]."""
    return tf.one_hot(raw, spec.num_classes) if spec.num_classes else tf.cast(raw, tf.float32)[:, None]

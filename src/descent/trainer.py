"""The loop: from a step to its record. It knows nothing of files, loggers or callbacks."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epy

from descent.data.pipeline import Pipeline
from descent.metric import Outcome
from descent.precision import Precision
from descent.rows import Rows
from descent.step import Step
from descent.types import (
    Clock,
    Count,
    CountOrAuto,
    Flag,
    FlagOrAuto,
    Kind,
    Length,
    ProperFraction,
    Split,
    is_zero,
    part,
)

with epy.lazy_imports():
    import keras
    import tensorflow as tf

# Passes where no length is given: what the data sets of each kind that come with an installation take.
DEFAULT_EPOCHS: dict[Kind, int] = {"image": 40, "text": 8, "tabular": 40}
CHUNK_VALUES = 2**24  # in a chunk of raw elements; several are in flight
CALL_SECONDS = 0.25  # of a call: long beside the milliseconds of entering it, and what a signal waits for at most
SHARED_CALL_SECONDS = 1.0  # where several processes have to agree before each
# Where a call's length is not given, its steps are guessed from the model: what any step costs (measured: 0.05 to
# 0.2 ms in whole loops of small models), and the speed of the rest (one to two hundred GFLOP/s on two cores).
STEP_SECONDS, FLOPS_A_SECOND = 1e-4, 1e11
LONGEST_CALL = 1024  # steps; longer ones gained nothing
# XLA compiles for 2 s (a small MLP) to 8 s (a transformer). Without it a step's operations are called one by one, which
# takes about a millisecond; a run that would be over sooner than this gains nothing from being compiled.
PLAIN_STEP_SECONDS, WORTH_COMPILING = 1e-3, 10.0


@part
class Trainer:
    """How long, how much at once, and how it is run.

    Attributes:
        epochs: passes over the training data; one of epochs and steps may be given, else the data's kind decides.
        steps: updates.
        samples: training samples that are used, chosen at random, the same for every seed, and fewer of them are among
            more; None: all. What the data fits (a vocabulary, a scale) is fitted on all of the training split.
        batch_size: samples of one update.
        accumulate: equal parts an update's batch is computed in, one after the other, to need less memory.
        precision: of the layers' arithmetic; weights, losses and statistics stay float32.
        eval_every: how often the validation split is evaluated; also after the last step.
        log_every: steps between rows of the log.
        steps_per_call: steps that one call of the compiled program runs.
        jit: compile the loop whole with XLA; "auto": where it pays. On a CPU that is a run that would take ten
            seconds without (a guess by steps and FLOPs), of a model without convolutions and loops over time.
        nonfinite: on a loss or gradient that is not finite, halt the run, skip the update, or roll back: go back to
            the last checkpoint that was due, with a lower rate.
        nonfinite_limit: steps skipped in a row, or rollbacks in all, after which the run halts.
        rollback_factor: the rate is multiplied by it, again at each rollback.
        deterministic: choose kernels whose result does not depend on thread timing.
        threads: threads of a CPU kernel; None: all cores. Changes the last bits of results.
    """

    epochs: Count | None = None
    steps: Count | None = None
    samples: Count | None = None
    batch_size: Count = 32
    accumulate: Count = 1
    precision: Precision = "float32"
    eval_every: Length = "1ep"
    log_every: Count = 10
    steps_per_call: CountOrAuto = "auto"
    jit: FlagOrAuto = "auto"
    nonfinite: Literal["halt", "skip", "rollback"] = "halt"
    nonfinite_limit: Count = 10
    rollback_factor: ProperFraction = 0.5
    deterministic: Flag = True
    threads: Count | None = None

    def __post_init__(self) -> None:
        if self.epochs and self.steps:
            raise ValueError(
                f"epochs={self.epochs} and steps={self.steps} are both given: set one of them and the other to null"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} should be a multiple of accumulate={self.accumulate}")
        if is_zero(self.eval_every):
            raise ValueError("eval_every should be above 0")

    def settled(self, kind: Kind) -> Trainer:
        """With the number of epochs that data of this kind is given where neither epochs nor steps are."""
        return self if self.epochs or self.steps else dataclasses.replace(self, epochs=DEFAULT_EPOCHS[kind])

    def clock(self, samples: int) -> Clock:
        """The length of a settled run for so many training samples."""
        per_epoch = samples / self.batch_size
        return Clock(self.steps or math.ceil(self.passes * per_epoch - 1e-9), per_epoch)

    def evaluations(self, clock: Clock) -> list[int]:
        """The steps after which the validation split is evaluated, counted from 1."""
        return boundaries(clock.in_steps(self.eval_every), clock.steps)

    def logged(self, clock: Clock) -> np.ndarray:
        """For each step of the run whether it is logged, bool [steps]."""
        logged = np.arange(1, clock.steps + 1) % self.log_every == 0
        logged[np.array(self.evaluations(clock)) - 1] = True
        return logged

    def used(self, samples: int) -> int:
        """Sample positions that count in a settled run: later ones of the last batch have weight 0."""
        return self.steps * self.batch_size if self.steps else self.passes * samples

    @property
    def passes(self) -> int:
        assert self.epochs, "a run without a length is settled first"
        return self.epochs

    def chunk(self, clock: Clock, values: int, flops: float, workers: int = 1) -> int:
        """Steps a call, for elements of so many values and a model of so many FLOPs forward a sample.

        Where they are not given: about a quarter of a second of training, or one where workers have to agree (a guess
        of the clock, so that equal configs have equal chunks), no more than fits a chunk of moderate size, and a whole
        number of times into the interval between evaluations.
        """
        if self.steps_per_call != "auto":
            return min(clock.steps, self.steps_per_call)
        step = STEP_SECONDS + self._arithmetic(flops)
        fits = CHUNK_VALUES // (self.batch_size * values)
        seconds = CALL_SECONDS if workers == 1 else SHARED_CALL_SECONDS
        most = max(1, min(LONGEST_CALL, int(seconds / step), fits))
        interval = min(clock.steps, clock.in_steps(self.eval_every))
        return math.ceil(interval / math.ceil(interval / most))

    def _arithmetic(self, flops: float) -> float:
        """Seconds of a step's arithmetic, as guessed: backward is twice forward."""
        return 3 * flops * self.batch_size / FLOPS_A_SECOND

    def cores(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def allowed(self) -> int:
        """Steps in a row that may be skipped."""
        return self.nonfinite_limit if self.nonfinite == "skip" else 0

    def call_seconds(self, jit: bool) -> float:
        """How long a call may take. A loop compiled whole cannot be stopped, and is kept short unless told."""
        return CALL_SECONDS if jit and self.steps_per_call == "auto" else math.inf

    def jits(self, model: keras.Model, steps: int, flops: float) -> bool:
        """Whether a run of so many steps is compiled by XLA, with a model of so many FLOPs forward a sample.

        XLA wins on small dense work and loses on CPU convolutions and on loops over time.
        """
        if self.jit != "auto":
            return self.jit
        if tf.config.list_physical_devices("GPU"):
            return True
        plain = steps * (PLAIN_STEP_SECONDS + self._arithmetic(flops))
        return plain > WORTH_COMPILING and not any(_convolves(layer) for layer in model.layers)


def _convolves(layer: keras.Layer) -> bool:
    name = type(layer).__name__
    return "Conv" in name or name in ("LSTM", "GRU") or any(_convolves(inner) for inner in getattr(layer, "layers", ()))


def boundaries(every: float, total: int) -> list[int]:
    """The steps at which something due every `every` steps (not always whole) falls, and the last step."""
    if every <= 1:
        return list(range(1, total + 1))
    count = math.ceil(total / every)
    return sorted({min(total, max(1, math.ceil(k * every - 1e-6))) for k in range(1, count + 1)} | {total})


class Stopped(Exception):
    """An evaluation was left undone."""


class CallFailed(Exception):
    """A call of the compiled program failed, perhaps in mid-step: the state is not to be trusted."""


class Segment(NamedTuple):
    """What one call of the compiled program did: the records of its steps, the last being `step`.

    Attributes:
        seconds: from the end of the call before, or of what was done after it.
        waited: of these, for the input.
        sound: false where the last step was not finite, and changed nothing.
    """

    step: int
    rows: np.ndarray
    names: list[str]
    seconds: float
    sound: bool = True
    waited: float = 0.0

    @property
    def first(self) -> int:
        """The number of its first step; a step's number is the count of updates once it is done."""
        return self.step - len(self.rows) + 1

    def logged(self, rows: np.ndarray, steps_per_epoch: float) -> Rows:
        """Some of the rows, as they are logged."""
        steps = rows + self.first
        names = ("step", "epoch", *(f"train/{name}" for name in self.names))
        return Rows(names, np.column_stack([steps, steps / steps_per_epoch, self.rows[rows]]))

    def column(self, name: str) -> np.ndarray:
        """One value of every step, [K]."""
        return self.rows[:, self.names.index(name)]


def train(
    step: Step, pipeline: Pipeline, start: int, stops: list[int], call_seconds: float = math.inf
) -> Iterator[Segment]:
    """Runs from step `start`, yielding after each call; a call never runs past one of the `stops`.

    Ends early after a step that was not finite (where the step halts there), and when the step is told to stop.

    Args:
        step: the compiled step.
        pipeline: where the chunks come from.
        start: updates done before.
        stops: steps that end a call.
        call_seconds: how long a call may take: the first then runs one step, the others what fits.
    """
    most, run = pipeline.chunk if math.isinf(call_seconds) else 1, None
    starts, began = pipeline.starts(start, stops), time.perf_counter()
    limits = [*starts, pipeline.steps][1:]  # none where all steps are done already
    for first, limit, chunk in zip(starts, limits, pipeline.training(start, stops), strict=True):
        begin, waited = first, time.perf_counter() - began
        while begin < limit:
            wanted = min(begin + most, limit)
            given = chunk, tf.constant(begin - first), tf.constant(wanted - first)
            compiled = run is not None
            try:
                # All chunks have one shape; to look its function up anew would cost as much as steps of a small model.
                run = run or step.run.get_concrete_function(*given)
                done = run(*given)
                end, sound, rows = first + int(done.end), bool(done.sound), done.rows.numpy()
            except (tf.errors.OpError, MemoryError) as error:
                raise CallFailed from error
            now = time.perf_counter()
            if end > begin:
                yield Segment(end, rows[begin - first : end - first], step.names, now - began, sound, waited)
            if end < wanted or not sound:
                return
            if compiled and not math.isinf(call_seconds):
                most = max(1, int(call_seconds * (end - begin) / (now - began)))
            begin, began, waited = end, time.perf_counter(), 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Forward passes over whole splits."""

    step: Step
    pipeline: Pipeline
    batch_size: int
    cached: dict[Split, Any] = dataclasses.field(default_factory=dict)
    compiled: dict[tuple[int | None, bool], Any] = dataclasses.field(default_factory=dict)

    def outcome(self, split: Split, *, averaged: bool = False) -> Outcome:
        """What comes out for every sample of a split, in order, each exactly once.

        Args:
            split: which.
            averaged: by the averaged weights where there is averaging, not by those in the model.

        Raises:
            Stopped: the step was told to stop meanwhile.
        """
        rows, size = [], self.pipeline.spec.sizes[split]
        averaged = averaged and bool(self.step.state.averager.variables)  # where nothing is, one function will do
        for chunk in self._chunks(split, size):
            if self.step.stopping:
                raise Stopped
            rows.append(self._compiled(chunk, averaged)(chunk, averaged).numpy())
        joined = np.concatenate(rows).reshape(-1, self.pipeline.spec.outputs + 2)[:size]
        labels = joined[:, -1].astype(np.int64) if self.pipeline.spec.num_classes else joined[:, -1]
        return Outcome(labels, outputs=joined[:, :-2], losses=joined[:, -2])

    def _compiled(self, chunk: Any, averaged: bool) -> Any:
        """The function for the chunks of any split; replicas, who share the rows out, want to know how many."""
        rows = chunk.targets.shape[1] if self.step.replicas > 1 else None
        if (rows, averaged) not in self.compiled:
            shapes = tf.nest.map_structure(lambda t: tf.TensorSpec([None, rows, *t.shape[2:]], t.dtype), chunk)
            self.compiled[rows, averaged] = self.step.evaluate.get_concrete_function(shapes, averaged)
        return self.compiled[rows, averaged]

    def answers(self, raw: tf.Tensor) -> np.ndarray:
        """Probabilities [m, n], or real outputs [m, 1], for raw elements [m, ...], by the weights in the model."""
        outputs = self.step.answer(raw)
        return np.asarray(tf.nn.softmax(outputs) if self.pipeline.spec.num_classes else outputs)

    def _chunks(self, split: Split, size: int) -> Any:
        """The split's chunks; those of a small split are kept, so that evaluating often costs little."""
        if split not in self.cached:
            values, batches = math.prod(self.pipeline.spec.shape), math.ceil(size / self.batch_size)
            step = self.step
            batch_size = math.ceil(size / batches / step.replicas) * step.replicas  # as equal as can be: less padding
            fits = max(1, CHUNK_VALUES // (batch_size * values))
            batches = min(batches, fits, 8)
            chunks = self.pipeline.evaluation(split, batch_size, batches, step.worker, step.workers)
            self.cached[split] = list(chunks) if self.pipeline.small(split) else chunks
        return self.cached[split]

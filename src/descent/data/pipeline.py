"""From a step to its batch. A batch is a pure function of (seed, step); resuming is starting the range elsewhere.

Sample positions run on through the epochs: position p = step * batch + i is sample `p % n` of epoch `p // n` in
that epoch's own order. Past the last epoch the positions go on into the next one, with weight 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from descent import seeds
from descent.data.arrays import Arrays
from descent.data.cutting import Cutting, CuttingSource
from descent.types import BatchAugmentation, OpenSource, Plan, SampleAugmentation, Spec, Split

with epy.lazy_imports():
    import tensorflow as tf


SORTED = 4096  # samples of an epoch up to which sorting is the faster way to an order
STREAMS: tuple[seeds.Stream, ...] = ("order", "augment", "mix")  # that batches draw from
SMALL = 2**24  # values of a split that may be in memory once more


class Chunk(NamedTuple):
    """K steps: every tensor has the leading size K. `inputs` are raw, `targets` are labels or real values."""

    inputs: tf.Tensor
    targets: tf.Tensor
    weight: tf.Tensor
    plan: Any


def chosen(size: int, count: int | None) -> np.ndarray | None:
    """So many of `size` samples at random, int64 [count]: always the same, fewer being among more; None for all."""
    return None if count is None else seeds.host(0, "choice").permutation(size)[:count]


def shuffled(positions: tf.Tensor, size: int, word: int | tf.Tensor) -> tf.Tensor:
    """The sample at each position (int64 [m]) when every epoch of `size` samples is a permutation.

    Small ones are sorted by random keys. `RandomIndexShuffle` needs no table of the epoch, but shuffles 2^16 indices at
    least and walks on until one is in the range, which is slow where few are.
    """
    epochs, offsets = positions // size, positions % size
    first = epochs[0]
    several = tf.range(first, epochs[-1] + 1)
    if size <= SORTED:
        orders = tf.reshape(tf.argsort(_words(several, size, word), stable=True), [-1])
        return tf.cast(tf.gather(orders, (epochs - first) * size + offsets), tf.int64)
    return tf.raw_ops.RandomIndexShuffle(
        index=offsets,
        seed=tf.gather(_words(several, 3, word), epochs - first),
        max_index=tf.fill(tf.shape(offsets), tf.constant(size - 1, tf.int64)),
        rounds=8,  # its default of 4 mixes too little
    )


def _words(epochs: tf.Tensor, count: int, word: int | tf.Tensor) -> tf.Tensor:
    """Random words of each epoch, int32 [e, count].

    Of its seed's words `RandomIndexShuffle` uses only the low bytes, so they are drawn from (word, epoch).
    """

    def words(epoch: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([count], seeds.key(word, epoch), None, None, tf.int32, alg="philox")

    return tf.map_fn(words, epochs, fn_output_signature=tf.TensorSpec([count], tf.int32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Everything a batch is a function of, beside the step.

    Attributes:
        chosen: the training samples that are used, int64 [n]; None: all.
        samples: how many sample positions the whole run uses; later ones have weight 0.
        steps: length of the run in steps.
        chunk: K, the steps in a chunk.
        words: those of its streams, where what is traced shall serve every seed; None: by `seed`.
        own: the rows of each batch that are made here, for the replicas of this process, in order; None: all.
    """

    source: OpenSource
    spec: Spec
    sample: SampleAugmentation
    mixing: BatchAugmentation
    batch_size: int
    samples: int
    steps: int
    chunk: int
    seed: int
    words: Mapping[seeds.Stream, tf.Tensor] | None = None
    own: tuple[int, ...] | None = None
    chosen: np.ndarray | None = None

    @property
    def whole(self) -> Pipeline:
        """The same with all rows."""
        return dataclasses.replace(self, own=None)

    def _own(self, draws: Any, axis: int = 0) -> Any:
        """Of tensors with all rows of a batch along an axis, those that are made here."""
        if self.own is None:
            return draws
        return tf.nest.map_structure(lambda t: tf.gather(t, tf.constant(self.own), axis=axis), draws)

    def starts(self, start: int, stops: Sequence[int] = ()) -> list[int]:
        """The steps at which chunks begin, from step `start` on: every K steps, and anew at each of the `stops`."""
        ends = [stop for stop in stops if start < stop < self.steps]
        edges = [start, *ends, self.steps]
        return [first for begin, end in pairwise(edges) for first in range(begin, end, self.chunk)]

    def training(self, start: int, stops: Sequence[int] = ()) -> tf.data.Dataset:
        """Chunks from `starts`, each K steps long; those past the next chunk's start are made once more, or padding."""
        starts = np.array(self.starts(start, stops), np.int64)
        words = {name: tf.constant(self._word(name), tf.int64) for name in STREAMS}
        return _mapped(tf.data.Dataset.from_tensor_slices(starts), lambda first: self._traced(first, words))

    def renewed(self, seed: int) -> Pipeline:
        """The same for another seed; what is traced is not traced again."""
        other = dataclasses.replace(self, seed=seed)
        vars(other)["_traced"] = self._traced
        return other

    @cached_property
    def _traced(self) -> Any:
        """`chunk_at` for the words of any seed."""

        def chunk_at(first: tf.Tensor, words: Mapping[seeds.Stream, tf.Tensor]) -> Chunk:
            return dataclasses.replace(self, words=words).chunk_at(first)

        return tf.function(chunk_at, autograph=False)

    def _word(self, name: seeds.Stream) -> int | tf.Tensor:
        return self.words[name] if self.words else seeds.stream(self.seed, name)

    def chunk_at(self, first: tf.Tensor) -> Chunk:
        """The chunk that begins at step `first` (int64 scalar)."""
        steps = first + tf.range(self.chunk, dtype=tf.int64)
        positions = first * self.batch_size + tf.range(self.chunk * self.batch_size, dtype=tf.int64)
        weight = tf.cast(positions < self.samples, tf.float32)
        given = tf.reshape(self._ordered(positions), [self.chunk, self.batch_size])
        lead = [self.chunk, len(self.own or range(self.batch_size))]
        inputs, targets = self._gathered(steps, tf.reshape(self._own(given, 1), [-1]))
        inputs = tf.reshape(inputs, [*lead, *self.spec.shape])
        inputs, plan = tf.map_fn(
            lambda pair: self._augment(*pair),
            (steps, inputs),
            fn_output_signature=_signature(self._augment, steps.dtype, [], inputs.dtype, inputs.shape[1:]),
        )
        weight = self._own(tf.reshape(weight, [self.chunk, self.batch_size]), 1)
        return Chunk(inputs, tf.reshape(targets, lead), weight, plan)

    def _gathered(self, steps: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Raw elements and targets; where windows are cut out of each image, the source does it if it can."""
        if not (isinstance(self.source, CuttingSource) and self._cutting):
            return self.source.gather("train", indices)
        cutting = self._cutting

        def drawn(step: tf.Tensor) -> Plan:
            return cutting.window(self._draw(step))

        windows = tf.map_fn(drawn, steps, fn_output_signature=_signature(drawn, steps.dtype, []))
        flat = tf.nest.map_structure(lambda t: tf.reshape(t, [-1, *t.shape[2:]]), windows)
        return self.source.gather_cut("train", indices, flat, cutting.cut)

    @property
    def _cutting(self) -> Cutting | None:
        return self.sample if isinstance(self.sample, Cutting) and self.sample.cuts else None

    def _draw(self, step: tf.Tensor) -> Plan:
        """What the augmentation draws for the samples of a step that are made here: as for the whole batch."""
        key = seeds.key(self._word("augment"), step)
        return self._own(self.sample.draw(key, [self.batch_size, *self.spec.shape]))

    def _ordered(self, positions: tf.Tensor) -> tf.Tensor:
        if self.chosen is None:
            return shuffled(positions, self.spec.sizes["train"], self._word("order"))
        return tf.gather(tf.constant(self.chosen), shuffled(positions, len(self.chosen), self._word("order")))

    def indices(self, step: int) -> list[int]:
        """The training samples of the batch that update `step` (counted from 1) sees."""
        positions = (step - 1) * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
        return [int(i) for i in self._ordered(positions).numpy()[positions.numpy() < self.samples]]

    def _augment(self, step: tf.Tensor, inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """One step's draws: mapped per step, so that K never changes a bit."""
        shape = [self.batch_size, *self.spec.shape]
        draws = self._draw(step)
        if self._cutting and isinstance(self.source, CuttingSource):
            draws = self._cutting.rest(draws)  # `_gathered` has cut the windows
        inputs = tf.ensure_shape(self.sample.apply(draws, inputs), inputs.shape)
        progress = tf.cast(step, tf.float32) / self.steps
        mix = self.mixing.draw(seeds.key(self._word("mix"), step), shape, progress)
        return inputs, self._own(mix)

    def evaluation(
        self, split: Split, batch_size: int, chunk: int, worker: int = 0, workers: int = 1
    ) -> Iterable[Chunk]:
        """A split in order, as chunks of `chunk` batches, padded to full batches with weight 0.

        They are made as they are asked for; those of a `small` split only once.
        Of each batch a worker makes its part, the workers' parts being equal and in order.
        """
        size, part = self.spec.sizes[split], batch_size // workers

        def chunk_at(first: tf.Tensor) -> Chunk:
            rows = first * batch_size + tf.range(chunk * batch_size, dtype=tf.int64)
            own = tf.reshape(rows, [chunk, workers, part])[:, worker]
            positions = tf.reshape(own, [-1])
            inputs, targets = self.source.gather(split, tf.minimum(positions, size - 1))
            lead = [chunk, part]
            weight = tf.reshape(tf.cast(positions < size, tf.float32), lead)
            return Chunk(tf.reshape(inputs, [*lead, *self.spec.shape]), tf.reshape(targets, lead), weight, {})

        batches = -(-size // batch_size)
        if self.small(split) and isinstance(self.source, Arrays):  # a pipeline takes longer to trace and start
            return map(chunk_at, tf.range(0, batches, chunk, tf.int64))
        return _mapped(tf.data.Dataset.range(0, batches, chunk), chunk_at)

    def small(self, split: Split) -> bool:
        """Whether all chunks of a split may be in memory."""
        return self.spec.sizes[split] * math.prod(self.spec.shape) <= SMALL


def _signature(function: Any, *given: Any) -> Any:
    """What a function returns for arguments of these types and shapes (in turn), found by tracing it once."""
    specs = [tf.TensorSpec(shape, dtype) for dtype, shape in zip(given[::2], given[1::2], strict=True)]
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), traced.structured_outputs)


def _mapped(steps: tf.data.Dataset, function: Any) -> tf.data.Dataset:
    # AutoGraph would rewrite the source of all it calls, which takes seconds; there is nothing to rewrite.
    plain = tf.autograph.experimental.do_not_convert(function)
    chunks = steps.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return chunks.prefetch(2)

"""What replicas say to each other inside `strategy.run`. With one replica, nothing: every function is the identity.

A replica is a device with a copy of every variable. Each computes a slice of the same global batch; what is summed over
replicas is the same, to the bit, on each, so that equal updates of the copies keep them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from etils import epy

from descent.types import UserError

with epy.lazy_imports():
    import tensorflow as tf

T = TypeVar("T")
APART = 1 << 40  # between the keys of replicas: parts of a batch and layers change lower bits


def number() -> int:
    """How many replicas compute together, here."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def index() -> tf.Tensor:
    """Which of them this is, from 0."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def own_key(key: tf.Tensor) -> tf.Tensor:
    """A key [2] for draws that should differ between replicas."""
    if number() == 1:
        return key
    return key + tf.stack([tf.cast(index(), key.dtype) * APART, tf.zeros([], key.dtype)])


def total(values: T) -> T:
    """The sums over replicas of float32 tensors, in any structure: one message for all of them."""
    if number() == 1:
        return values
    flat: list[tf.Tensor] = tf.nest.flatten(values)
    joined = tf.concat([tf.reshape(value, [-1]) for value in flat], axis=0)
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, joined)
    parts = tf.split(summed, [value.shape.num_elements() for value in flat])
    return tf.nest.pack_sequence_as(
        values, [tf.reshape(part, value.shape) for part, value in zip(parts, flat, strict=True)]
    )


def mean(values: T, weight: tf.Tensor) -> T:
    """The means over replicas of float32 tensors, in any structure, each replica counted by its weight: one message."""
    if number() == 1:
        return values
    sums, whole = total((tf.nest.map_structure(lambda value: value * weight, values), weight))
    return tf.nest.map_structure(lambda value: value / whole, sums)


def gathered(value: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas, one after the other: [m, ...] to [replicas * m, ...], exactly."""
    if number() == 1:
        return value
    before = index() * value.shape[0]
    after = (number() - 1) * value.shape[0] - before
    rest = [[0, 0]] * (value.shape.rank - 1)
    whole = tf.pad(value, [[before, after], *rest])
    return total(tf.ensure_shape(whole, [number() * value.shape[0], *value.shape[1:]]))


def taken(chunk: T, i: tf.Tensor, local: int) -> T:
    """What this replica has of the i-th of several batches, whose rows are those of the `local` replicas in turn."""
    if local == 1:
        # Not t[i]: XLA wants the bounds of a slice as constants, and would compile anew for each.
        return tf.nest.map_structure(lambda t: tf.gather(t, i), chunk)
    with tf.device("CPU:0"):  # where chunks are made: only the slice goes to the replica's device
        return tf.nest.map_structure(lambda t: own_rows(tf.gather(t, i), local), chunk)


def own_rows(value: tf.Tensor, local: int) -> tf.Tensor:
    """The rows of this replica, of rows [m, ...] for each of the `local` replicas of this process in turn."""
    if local == 1:
        return value
    rows = value.shape[0] // local
    first = index() % local * rows
    return tf.ensure_shape(value[first : first + rows], [rows, *value.shape[1:]])


def repeated(body: Callable[[tf.Tensor, T], T], count: int, start: T) -> T:
    """`value = body(i, value)` for i from 0, in a loop of the graph.

    Between replicas it is unrolled, one part after the other: TensorFlow has no all-reduce in a loop within a replica.
    """
    if number() == 1:
        loop = tf.while_loop(lambda i, _: i < count, lambda i, value: (i + 1, body(i, value)), [tf.constant(0), start])
        return loop[1]
    value = start
    for i in range(count):
        with tf.control_dependencies(tf.nest.flatten(value)):
            value = body(tf.constant(i), value)
    return value


def rows(batch_size: int, parts: int, replicas: int, replica: int) -> np.ndarray:
    """The rows of a global batch that a replica computes, int64 [batch_size / replicas].

    The batch is computed in `parts` equal parts, one after the other, and the replica has an equal share of each. A
    share of an even number is made of mirrored pairs (rows j and size - 1 - j of the part), which MixUp and CutMix mix:
    the partners in a replica's slice are those of the global batch.
    """
    size = batch_size // parts
    share = size // replicas
    half = share // 2
    first = np.arange(replica * half, (replica + 1) * half)
    own = np.concatenate([first, size - 1 - first[::-1]])
    if share % 2:
        own = np.arange(replica * share, (replica + 1) * share)
    return (np.arange(parts)[:, None] * size + own).reshape(-1)


def check(replicas: int, batch_size: int, parts: int, *, mixes: bool) -> None:
    """Whether a global batch can be shared out evenly.

    Raises:
        UserError: it cannot.
    """
    unit = replicas * parts * (2 if mixes and replicas > 1 else 1)
    if not batch_size % unit:
        return
    factors = [f"{replicas} replicas", *([f"{parts} parts (trainer.accumulate)"] if parts > 1 else [])]
    factors += ["2 samples, as MixUp and CutMix mix pairs"] if mixes and replicas > 1 else []
    near = sorted({max(1, batch_size // unit) * unit, -(-batch_size // unit) * unit})
    raise UserError(
        f"trainer.batch_size={batch_size} is the global batch, and should be a multiple of {unit} "
        f"({' times '.join(factors)}); use {' or '.join(map(str, near))}"
    )


def creator(following: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
    """For `tf.variable_creator_scope`: each replica assigns to its own copy, and nobody else does."""
    own = {"aggregation": tf.VariableAggregation.NONE, "synchronization": tf.VariableSynchronization.AUTO}
    return following(**{**arguments, **own})

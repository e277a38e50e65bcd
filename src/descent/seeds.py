"""Every random draw has a key: (seed, stream, step). There is no generator whose state could be lost.

A stream's name is hashed with the run's seed on the host, so streams are independent and never reused; the
step is the second word of the key. All draws use Philox, whose integer bits are the same with XLA and without;
its floats are not (the two take other bits of a word), so ours are made from the integers.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Literal

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

Stream = Literal["split", "choice", "init", "order", "augment", "mix", "dropout", "noise"]


def stream(seed: int, name: Stream) -> int:
    """A 63-bit word for (seed, stream): distinct seeds and names give unrelated words."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def variable(seed: int, name: Stream) -> tf.Variable:
    """The word of a stream, int64: what is compiled with it serves every seed."""
    return tf.Variable(stream(seed, name), trainable=False, dtype=tf.int64)


def key(word: int | tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """The key of a stream at a step, as the stateless draws take it: int64 [2]."""
    return tf.stack([tf.convert_to_tensor(word, tf.int64), tf.cast(step, tf.int64)])


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` independent keys from one."""
    words = tf.random.stateless_uniform([count, 2], seed, None, None, tf.int64, alg="philox")
    return tf.unstack(words)


def uniform(seed: tf.Tensor, shape: object) -> tf.Tensor:
    """Multiples of 2^-24 in [0, 1), float32."""
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def bits(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """32 random bits for each entry: a keyed hash of its index, uint32. For many draws that need no more than that.

    Philox makes two words from the key, and `h(h(index ^ first) ^ second)` the bits, h being the finaliser of 32-bit
    words with the least bias that is known (Wellons 2018, "lowbias32"). A tenth of Philox's work for each entry:
    its multiplications of 64 bits do not become vector instructions in XLA.
    """
    first, second = tf.unstack(tf.random.stateless_uniform([2], seed, None, None, tf.uint32, alg="philox"))
    index = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32)
    return tf.reshape(_hashed(_hashed(index ^ first) ^ second), shape)


def _hashed(x: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ _right(x, shift)) * tf.constant(factor, tf.uint32)
    return x ^ _right(x, 16)


def _right(x: tf.Tensor, count: int) -> tf.Tensor:
    return tf.bitwise.right_shift(x, tf.constant(count, tf.uint32))


def integers(seed: tf.Tensor, shape: object, low: object, high: object) -> tf.Tensor:
    """Integers in [low, high), int32."""
    return tf.random.stateless_uniform(shape, seed, low, high, tf.int32, alg="philox")


def host(seed: int, name: Stream) -> np.random.Generator:
    """A NumPy generator for work done once, outside the graph (cutting splits, drawing examples)."""
    return np.random.Generator(np.random.Philox(key=stream(seed, name)))


@contextlib.contextmanager
def initialization(seed: int) -> Iterator[None]:
    """Keras draws the seed of an initializer from Python's generator; give it ours and put the user's back."""
    before = random.getstate()
    random.seed(stream(seed, "init"))
    try:
        yield
    finally:
        random.setstate(before)

"""The hash behind dropout: every bit is a fair coin, whatever the index, the key and the bits beside it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from descent import seeds

COUNT = 2**16


def words(seed: int = 0, step: int = 0) -> np.ndarray:
    return seeds.bits(seeds.key(seeds.stream(seed, "dropout"), tf.constant(step)), tf.constant([COUNT])).numpy()


def as_bits(values: np.ndarray) -> np.ndarray:
    """[m, 32] of 0 and 1."""
    return (values[:, None] >> np.arange(32, dtype=np.uint32)) & 1


def near_half(bits: np.ndarray) -> bool:
    """Within five standard errors of a half; over a thousand cases one in two thousand runs would fail."""
    return bool(np.all(np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(len(bits))))


def test_every_bit_is_a_fair_coin():
    assert near_half(as_bits(words()))


@pytest.mark.parametrize("distance", [1, 2, 3, 64, 1024])
def test_entries_apart_are_unrelated(distance: int):
    bits = as_bits(words())
    assert near_half(bits[distance:] ^ bits[:-distance])


def test_bits_of_an_entry_are_unrelated():
    bits = as_bits(words())
    assert near_half(np.concatenate([bits ^ np.roll(bits, r, axis=1) for r in range(1, 32)], axis=1))


@pytest.mark.parametrize("other", [{"step": 1}, {"step": 2}, {"step": 256}, {"seed": 1}])
def test_another_step_or_seed_has_unrelated_bits(other: dict[str, int]):
    assert near_half(as_bits(words()) ^ as_bits(words(**other)))


def test_leading_bytes_are_uniform():
    counts = np.bincount(words() >> 24, minlength=256)
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_it_is_the_published_hash():
    """Wellons' lowbias32, in integers of Python."""

    def lowbias32(x: int) -> int:
        x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
        x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
        return x ^ x >> 16

    key = seeds.key(seeds.stream(3, "dropout"), tf.constant(5))
    first, second = tf.random.stateless_uniform([2], key, None, None, tf.uint32, alg="philox").numpy().tolist()
    expected = [lowbias32(lowbias32(i ^ first) ^ second) for i in range(6)]
    assert seeds.bits(key, tf.constant([2, 3])).numpy().ravel().tolist() == expected

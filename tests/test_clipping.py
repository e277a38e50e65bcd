"""Clipping against NumPy: what is long comes out at the limit, what is short is not touched by a bit."""

import numpy as np
import pytest
import tensorflow as tf

from descent.clipping import GlobalNorm, NoClipping, Norm, Value

SHAPES = ((7, 5), (5,), (3, 3, 2, 4), ())
CLIPPINGS = {"none": NoClipping(), "value": Value(), "norm": Norm(), "global_norm": GlobalNorm()}
every_clipping = pytest.mark.parametrize("clipping", CLIPPINGS.values(), ids=CLIPPINGS)


def gradients(scale: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(scale * rng.standard_normal(shape), np.float32) for shape in SHAPES]


def clip(clipping, arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [g.numpy() for g in clipping([tf.constant(a) for a in arrays], [])]


def norm(*arrays: np.ndarray) -> float:
    return float(np.sqrt(sum(np.sum(a.astype(np.float64) ** 2) for a in arrays)))


def same_bits(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("limit", [0.1, 0.5, 3.0])
def test_value_cuts_each_entry_to_the_limit(limit):
    arrays = gradients(2.0)
    expected = [np.clip(a, np.float32(-limit), np.float32(limit)) for a in arrays]
    assert same_bits(clip(Value(max_value=limit), arrays), expected)


@pytest.mark.parametrize("limit", [0.01, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_norm_after_is_the_smaller_of_norm_and_limit_for_each_variable(limit, scale):
    arrays = gradients(scale)
    after = [norm(a) for a in clip(Norm(max_norm=limit), arrays)]
    np.testing.assert_allclose(after, [min(norm(a), limit) for a in arrays], rtol=1e-6)


@pytest.mark.parametrize("limit", [0.01, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_global_norm_after_is_the_smaller_of_norm_and_limit(limit, scale):
    arrays = gradients(scale)
    after = norm(*clip(GlobalNorm(max_norm=limit), arrays))
    assert after == pytest.approx(min(norm(*arrays), limit), rel=1e-6)


def test_norm_keeps_the_direction_of_each_variable():
    arrays = gradients(10.0)
    expected = [a * min(1, 0.7 / norm(a)) for a in arrays]
    for actual, wanted in zip(clip(Norm(max_norm=0.7), arrays), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6)


def test_global_norm_keeps_the_direction_of_all_variables_together():
    arrays = gradients(10.0)
    factor = 0.7 / norm(*arrays)
    for actual, wanted in zip(clip(GlobalNorm(max_norm=0.7), arrays), arrays, strict=True):
        np.testing.assert_allclose(actual, wanted * factor, rtol=1e-6)


def test_norm_leaves_a_short_variable_alone_beside_a_long_one():
    short, long = np.full(4, 0.1, np.float32), np.full(4, 100, np.float32)
    after = clip(Norm(max_norm=1.0), [short, long])
    assert same_bits([after[0]], [short])
    assert norm(after[1]) == pytest.approx(1, rel=1e-6)


@every_clipping
def test_short_gradients_are_untouched_bit_for_bit(clipping):
    arrays = gradients(1e-2, seed=1)
    arrays[1][:2] = [-0.0, 1.2e-38]  # the smallest that is not flushed to zero
    assert same_bits(clip(clipping, arrays), arrays)


@pytest.mark.parametrize("clipping", [Norm(max_norm=5.0), GlobalNorm(max_norm=5.0), Value(max_value=4.0)])
def test_a_gradient_exactly_at_the_limit_is_untouched(clipping):
    assert same_bits(clip(clipping, [np.float32([3, -4])]), [np.float32([3, -4])])


@every_clipping
def test_clipping_twice_is_clipping_once(clipping):
    once = clip(clipping, gradients(20.0, seed=2))
    for first, second in zip(once, clip(clipping, once), strict=True):
        np.testing.assert_allclose(second, first, rtol=3e-7)


@every_clipping
def test_a_zero_gradient_stays_zero(clipping):
    zeros = [np.zeros(shape, np.float32) for shape in SHAPES]
    assert same_bits(clip(clipping, zeros), zeros)


@every_clipping
def test_a_zero_gradient_beside_a_long_one_stays_zero(clipping):
    after = clip(clipping, [np.zeros(3, np.float32), np.full(3, 1e3, np.float32)])
    assert same_bits(after[:1], [np.zeros(3, np.float32)])


@every_clipping
def test_clipping_is_the_same_inside_a_compiled_function(clipping):
    arrays = gradients(20.0, seed=3)
    compiled = tf.function(lambda *g: clipping(g, []), autograph=False)(*map(tf.constant, arrays))
    assert same_bits([g.numpy() for g in compiled], clip(clipping, arrays))


def test_no_clipping_is_the_identity():
    arrays = gradients(1e6)
    assert same_bits(clip(NoClipping(), arrays), arrays)

"""Norms and sums against NumPy in double precision, in both orders of adding, with XLA and without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from descent.norm import for_xla, norm_of, total

SHAPES = [(7, 5), (5,), (3, 3, 2, 4), (1, 6), (6, 1), ()]
in_either_order = pytest.mark.parametrize("columns", [True, False], ids=["columns", "all"])
with_and_without_xla = pytest.mark.parametrize("jit", [True, False], ids=["xla", "plain"])


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(3 * rng.standard_normal(shape), np.float32) for shape in SHAPES]


def computed(function, *given: np.ndarray, columns: bool, jit: bool):
    def traced(*tensors: tf.Tensor):
        with for_xla(columns):
            return function(*tensors)

    return tf.function(traced, autograph=False, jit_compile=jit)(*map(tf.constant, given))


@in_either_order
@with_and_without_xla
def test_the_norm_is_that_of_all_entries_together(columns, jit):
    found = computed(lambda *tensors: norm_of(tensors), *arrays(), columns=columns, jit=jit)
    wanted = np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays()))
    assert found.shape == ()
    assert found.numpy() == pytest.approx(wanted, rel=1e-6)


@in_either_order
@with_and_without_xla
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_total_and_its_gradient(columns, jit, shape):
    array = arrays()[SHAPES.index(shape)]
    array.flat[0] = 0.0

    def both(w: tf.Tensor):
        with tf.GradientTape() as tape:
            tape.watch(w)
            found = total(tf.square(w))
        return found, tape.gradient(found, w)

    found, gradient = computed(both, array, columns=columns, jit=jit)
    assert found.numpy() == pytest.approx(np.sum(np.square(array, dtype=np.float64)), rel=1e-6)
    np.testing.assert_array_equal(gradient, 2 * array)


@in_either_order
def test_zeros_have_a_total_with_a_gradient_of_zero(columns):
    def gradient(w: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(w)
            found = total(tf.abs(w)) + total(tf.square(w))
        return tape.gradient(found, w)

    found = computed(gradient, np.zeros((4, 3), np.float32), columns=columns, jit=True)
    np.testing.assert_array_equal(found, np.zeros((4, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@in_either_order
def test_what_is_not_finite_stays_so(columns, value):
    given = arrays()
    given[0][2, 3] = value
    assert not np.isfinite(computed(lambda *tensors: norm_of(tensors), *given, columns=columns, jit=True))


@pytest.mark.parametrize("gpus", [[], ["a"]], ids=["cpu", "gpu"])
def test_columns_come_first_for_xla_on_a_cpu_only(gpus, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)

    def operations() -> set[str]:
        graph = tf.function(lambda w: norm_of([w]), autograph=False).get_concrete_function(tf.TensorSpec([3, 2])).graph
        return {operation.type for operation in graph.get_operations()}

    with for_xla(True):
        inside = operations()
    assert ("Abs" in inside) == (not gpus)
    assert "Abs" not in operations()

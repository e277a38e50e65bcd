"""Winograd's convolution against the sum that defines it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from descent import processor
from descent.model import convolution, winograd
from descent.model.convolution import Conv2D

SHAPES = [[3, 8, 8, 5], [2, 7, 7, 3], [2, 4, 9, 4], [5, 1, 6, 2], [2, 14, 3, 6], [1, 1, 1, 1]]


def given(shape: list[int], filters: int) -> list[np.ndarray]:
    """Images, a kernel, and a gradient of the outputs."""
    rng = np.random.default_rng(1)
    shapes = shape, [3, 3, shape[-1], filters], [*shape[:3], filters]
    return [rng.normal(size=size) for size in shapes]


def defined(x: np.ndarray, kernel: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Outputs and gradients in float64: `y[i, j] = sum_kl x[i + k - 1, j + l - 1] w[k, l]`, and its derivatives."""
    rows, columns = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    y, dx, dkernel = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(kernel)
    for k in range(3):
        for column in range(3):
            window = np.s_[:, k : k + rows, column : column + columns]
            y += padded[window] @ kernel[k, column]
            dx[window] += dy @ kernel[k, column].T
            dkernel[k, column] = np.einsum("bijc,bijd->cd", padded[window], dy)
    return [y, dx[:, 1:-1, 1:-1], dkernel]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_convolution_that_is_defined_as_a_sum(shape: list[int], jit: bool):
    values = given(shape, 7)

    @tf.function(jit_compile=jit, autograph=False)
    def compute(x: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = winograd.convolved(x, kernel)
        return [y, *tape.gradient(y, [x, kernel], dy)]

    for found, true in zip(compute(*(tf.cast(v, "float32") for v in values)), defined(*values), strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-5 * np.abs(true).max())


def test_batches_of_any_size_go_through_one_program():
    traced = tf.function(
        winograd.convolved,
        input_signature=[tf.TensorSpec([None, 5, 6, 4]), tf.TensorSpec([3, 3, 4, 3])],
        autograph=False,
    )
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 5, 6, 3]
    for size in (1, 4):
        x, kernel, dy = given([size, 5, 6, 4], 3)
        np.testing.assert_allclose(
            traced(tf.cast(x, "float32"), tf.cast(kernel, "float32")), defined(x, kernel, dy)[0], atol=1e-4
        )


@pytest.mark.parametrize(
    ("rows", "columns", "multiplications"),
    [(4, 4, 36), (8, 8, 144), (7, 7, 144), (6, 6, 144), (5, 5, 144), (9, 4, 108), (2, 2, 36), (14, 14, 576)],
)
def test_it_counts_what_it_saves(rows: int, columns: int, multiplications: int):
    """A tile of 4x4 takes 36 multiplications, one that sticks out as many; each output otherwise nine."""
    assert winograd.saves(rows, columns) == (multiplications < 9 * rows * columns / 2)


@pytest.mark.parametrize(
    ("instructions", "changes", "shape", "used"),
    [
        ("avx2", {}, [2, 8, 8, 64], True),
        ("avx2 avx512f", {}, [2, 8, 8, 64], False),
        ("avx2 avx512f", {"filters": 128}, [2, 8, 8, 128], True),
        ("", {"filters": 128}, [2, 8, 8, 128], False),
        ("avx2", {"filters": 63}, [2, 8, 8, 64], False),
        ("avx2", {}, [2, 8, 8, 63], False),
        ("avx2", {}, [2, 8, 33, 64], False),
        ("avx2", {}, [2, 5, 5, 64], False),
        ("avx2", {"kernel_size": 5}, [2, 8, 8, 64], False),
        ("avx2", {"kernel_size": (3, 1)}, [2, 8, 8, 64], False),
        ("avx2", {"strides": 2}, [2, 8, 8, 64], False),
        ("avx2", {"dilation_rate": 2}, [2, 8, 8, 64], False),
        ("avx2", {"padding": "valid"}, [2, 8, 8, 64], False),
        ("avx2", {"groups": 2}, [2, 8, 8, 64], False),
        ("avx2", {"dtype": "mixed_bfloat16"}, [2, 16, 16, 64], False),
    ],
    ids=str,
)
def test_where_it_is_used(monkeypatch, instructions: str, changes: dict[str, object], shape: list[int], used: bool):
    calls = []
    plain = winograd.convolved
    monkeypatch.setattr(winograd, "convolved", lambda x, w: calls.append(x) or plain(x, w))
    monkeypatch.setattr(processor, "instructions", lambda: frozenset(instructions.split()))
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    layer = Conv2D(**{"filters": 64, "kernel_size": 3, "padding": "same", **changes})
    layer(tf.zeros(shape), training=False)
    assert not calls, "an evaluation goes forward only, where it does not pay"
    layer(tf.zeros(shape), training=True)
    assert bool(calls) == used


def test_the_layer_adds_its_bias_and_activation(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_TILED", {"avx2": 1})
    monkeypatch.setattr(processor, "instructions", lambda: frozenset({"avx2"}))
    layer = Conv2D(6, 3, padding="same", activation="gelu", bias_initializer="normal")
    x = tf.random.stateless_normal([2, 8, 8, 5], [1, 2])
    assert layer._way(x) is winograd.convolved
    np.testing.assert_allclose(layer(x, training=True), layer(x, training=False), atol=1e-5)


def test_its_bits_are_the_same_each_time():
    x, kernel, dy = (tf.cast(v, "float32") for v in given([32, 8, 8, 64], 64))

    @tf.function(autograph=False)
    def compute() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = winograd.convolved(x, kernel)
        return [y, *tape.gradient(y, [x, kernel], dy)]

    first = [tensor.numpy().tobytes() for tensor in compute()]
    for _ in range(5):
        assert [tensor.numpy().tobytes() for tensor in compute()] == first

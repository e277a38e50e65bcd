"""Our convolution against Keras', with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent import processor, seeds
from descent.data import FashionMnist
from descent.model import Cnn, computing, convolution
from descent.model.convolution import Conv2D
from descent.regularization import Regularization

SHAPES = [[4, 7, 7, 64], [3, 8, 5, 65], [2, 1, 1, 64]]


def results(layer: keras.layers.Layer, x: tf.Tensor, weights: list[np.ndarray]) -> list[tf.Tensor]:
    """Outputs, and gradients of inputs and weights, in float32."""
    layer.build(x.shape)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        value = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
    gradients = tape.gradient(value, [x, *(v.value for v in layer.trainable_variables)])
    return [tf.cast(tensor, tf.float32).numpy() for tensor in [outputs, *gradients]]


def given(shape: list[int], dtype: str, size: int = 3, filters: int = 7) -> tuple[tf.Tensor, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=[size, size, shape[-1], filters]), rng.normal(size=[filters])]
    return tf.cast(rng.normal(size=shape), dtype), [w.astype("f4") for w in weights]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [3, 5])
def test_the_other_way_to_the_gradient_is_the_same_sum(shape: list[int], size: int):
    """In float32, where both are exact to its rounding."""
    x, (kernel, _) = given(shape, "float32", size)
    found = []
    for convolve in (convolution.exchanged, lambda x, w: tf.nn.conv2d(x, w, 1, "SAME")):
        w = tf.constant(kernel)
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = convolve(x, w)
            value = tf.reduce_sum(y**2)
        found.append([y.numpy(), *(g.numpy() for g in tape.gradient(value, [x, w]))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", [*SHAPES, [2, 9, 8, 64], [2, 8, 8, 3]], ids=str)
def test_in_bfloat16_it_is_as_right_as_keras_own(monkeypatch, shape: list[int]):
    """Sums may be rounded on the way: both are held against float32."""
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    x, weights = given(shape, "bfloat16")
    weights = [tf.cast(tf.cast(w, "bfloat16"), "float32").numpy() for w in weights]
    settings = {"filters": 7, "kernel_size": 3, "padding": "same"}
    kinds = (Conv2D, "mixed_bfloat16"), (keras.layers.Conv2D, "mixed_bfloat16"), (keras.layers.Conv2D, "float32")
    inputs = (x, x, tf.cast(x, "float32"))
    ours, theirs, exact = (
        results(kind(**settings, dtype=dtype), value, weights)
        for (kind, dtype), value in zip(kinds, inputs, strict=True)
    )
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        allowed = max(2**-7 * np.abs(true).max(), 1.5 * np.abs(other - true).max())
        np.testing.assert_allclose(mine, true, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("changes", "shape", "dtype", "exchanged"),
    [
        ({}, [2, 8, 8, 64], "bfloat16", True),
        ({}, [2, 8, 8, 64], "float32", False),
        ({}, [2, 9, 8, 64], "bfloat16", False),
        ({}, [2, 8, 8, 63], "bfloat16", False),
        ({"strides": 2}, [2, 8, 8, 64], "bfloat16", False),
        ({"padding": "valid"}, [2, 8, 8, 64], "bfloat16", False),
        ({"dilation_rate": 2}, [2, 8, 8, 64], "bfloat16", False),
        ({"groups": 2, "filters": 4}, [2, 8, 8, 64], "bfloat16", False),
        ({"kernel_size": 1}, [2, 8, 8, 64], "bfloat16", False),
        ({"kernel_size": 2}, [2, 8, 8, 64], "bfloat16", False),
    ],
    ids=str,
)
def test_where_it_is_used(monkeypatch, changes: dict[str, object], shape: list[int], dtype: str, exchanged: bool):
    calls = []
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    plain = convolution.exchanged
    monkeypatch.setattr(convolution, "exchanged", lambda x, w: calls.append(x) or plain(x, w))
    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    layer = Conv2D(**{"filters": 7, "kernel_size": 3, "padding": "same", "dtype": policy, **changes})
    layer(tf.zeros(shape, dtype), training=True)
    assert bool(calls) == exchanged


# --- bfloat16 on a processor without it ---------------------------------------------------------------------------

EMULATED = [
    ({}, [2, 9, 8, 5]),
    ({"strides": 2}, [2, 9, 8, 5]),
    ({"padding": "valid", "use_bias": False}, [2, 9, 8, 5]),
    ({"kernel_size": 1, "activation": "relu"}, [2, 4, 4, 3]),
    ({"filters": 64}, [2, 16, 16, 64]),
]


@pytest.mark.parametrize(("changes", "shape"), EMULATED, ids=str)
def test_emulated_it_is_the_convolution_of_what_is_rounded_in_float32(monkeypatch, changes: dict, shape: list[int]):
    """The reference: rounded operands, in float64. Rounding of gradients errs by 2^-8, Winograd by 1e-5."""
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)
    settings = {"filters": 7, "kernel_size": 3, "padding": "same", **changes}
    x, (kernel, bias) = given(shape, "bfloat16", settings["kernel_size"], settings["filters"])
    rounded = [tf.cast(tf.cast(w, "bfloat16"), "float32").numpy() for w in (kernel, bias)]
    weights = rounded if settings.get("use_bias", True) else rounded[:1]
    layer, exact = Conv2D(**settings, dtype="mixed_bfloat16"), keras.layers.Conv2D(**settings, dtype="float64")
    layer.build(shape), exact.build(shape)
    for one in (layer, exact):
        one.set_weights(weights)
    wide = tf.cast(x, "float64")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, wide])
        ours, theirs = layer(x, training=True), exact(wide)
        seed = tf.cast(tf.random.stateless_normal(ours.shape, [0, 1]), "bfloat16")
        sums = tf.reduce_sum(ours * tf.cast(seed, "float32")), tf.reduce_sum(theirs * tf.cast(seed, "float64"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-5 * np.abs(theirs).max())
    compared = [(tape.gradient(sums[0], x), tape.gradient(sums[1], wide))]
    for mine, true in zip(layer.trainable_variables, exact.trainable_variables, strict=True):
        compared.append((tape.gradient(sums[0], mine.value), tape.gradient(sums[1], true.value)))
    for mine, true in compared:
        true = true.numpy()
        np.testing.assert_allclose(tf.cast(mine, "float64"), true, rtol=2**-8, atol=3e-5 * np.abs(true).max())


def test_emulated_it_keeps_operands_in_two_bytes_for_the_gradient():
    """What the backward pass reads in float32 is made there, from what came in, once there is a gradient.

    Without that condition TensorFlow would see that it has been made before, and keep it.
    """
    convolve = computing.widened(lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"))

    @tf.function(autograph=False)
    def gradients(x: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            outputs = convolve(x, kernel)
        return tape.gradient(outputs, [x, kernel])

    x, kernel = tf.zeros([2, 8, 8, 4], "bfloat16"), tf.zeros([3, 3, 4, 4], "bfloat16")
    operations = gradients.get_concrete_function(x, kernel).graph.get_operations()
    cast = next(op for op in operations if op.type == "Conv2DBackpropFilter").inputs[0].op
    assert cast.type == "Cast"
    assert cast.inputs[0].dtype == tf.bfloat16
    assert cast.inputs[0].op.control_inputs


@pytest.mark.parametrize("training", [True, False])
def test_a_network_in_emulated_bfloat16_errs_as_in_bfloat16(monkeypatch, training: bool):
    x = tf.constant(np.random.default_rng(0).random([16, 28, 28, 1]), tf.float32)

    def answer(policy: str, native: bool) -> np.ndarray:
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: native)
        keras.backend.clear_session()
        keras.config.set_dtype_policy(policy)
        with seeds.initialization(0):
            model = Cnn(widths=(8, 16)).build(FashionMnist().spec, Regularization(dropout=0, spatial_dropout=0))
        keras.config.set_dtype_policy("float32")
        pools = {model.get_layer(f"pool_{i}").dtype_policy.name for i in range(2)}
        assert pools == {policy if native else "float32"}
        return model(x, training=training).numpy()

    exact = answer("float32", native=False)
    own, emulated = (np.abs(answer("mixed_bfloat16", native) - exact) for native in (True, False))
    assert 0 < emulated.mean() < 1.5 * own.mean() < 0.05 * np.abs(exact).max()

"""Our layers: batch norm against Keras', dropout by its statistics and its key."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent import seeds
from descent.model.layers import BatchNormalization, Dropout, StochasticDepth, noise

SHAPES = [(6, 5, 7, 3), (16, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def random(shape: tuple[int, ...], seed: int = 0) -> tf.Tensor:
    return tf.constant(3 + 2 * np.random.default_rng(seed).standard_normal(shape), tf.float32)


def norms(shape: tuple[int, ...], **settings) -> list[keras.layers.Layer]:
    """Ours and Keras', with the same weights and statistics, none of which is at its start value."""
    layers = [kind(**settings) for kind in (BatchNormalization, keras.layers.BatchNormalization)]
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.build(shape)
    for variables in zip(*(layer.variables for layer in layers), strict=True):
        value = rng.uniform(0.5, 2, variables[0].shape)
        for variable in variables:
            variable.assign(value)
    return layers


def passed(layer: keras.layers.Layer, x: tf.Tensor, training: bool) -> dict[str, np.ndarray]:
    """Outputs, gradients by inputs and weights of a random projection of them, and the statistics after."""
    watched = [x, *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        outputs = layer(x, training=training)
        objective = tf.reduce_sum(outputs * random(x.shape, seed=2))
    gradients = tape.gradient(objective, watched)
    named = dict(zip(["inputs", *(v.name for v in layer.trainable_variables)], gradients, strict=True))
    statistics = {v.name: v for v in layer.non_trainable_variables}
    return {name: np.array(v) for name, v in {"outputs": outputs, **named, **statistics}.items()}


def assert_equal_passes(layers: list[keras.layers.Layer], x: tf.Tensor, training: bool) -> None:
    ours, theirs = (passed(layer, x, training) for layer in layers)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max(), err_msg=name)


@every_shape
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.1, "momentum": 0.7}])
def test_batch_norm_is_keras_own(shape, training, settings):
    assert_equal_passes(norms(shape, **settings), random(shape), training)


@every_shape
@pytest.mark.parametrize("settings", [{"scale": False}, {"center": False}])
def test_batch_norm_without_scale_or_offset_is_keras_own(shape, settings):
    assert_equal_passes(norms(shape, **settings), random(shape), training=True)


@every_shape
def test_frozen_batch_norm_is_keras_own(shape):
    layers = norms(shape)
    for layer in layers:
        layer.trainable = False
    assert_equal_passes(layers, random(shape), training=True)


def test_moving_statistics_are_the_biased_moments_of_the_batch():
    layer, x = BatchNormalization(momentum=0.9), random((4, 3, 2, 5))
    layer(x, training=True)
    values = x.numpy().astype(np.float64).reshape(-1, 5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * values.var(axis=0), rtol=1e-5)


def test_batch_norm_of_one_position_has_no_variance():
    layer = BatchNormalization(momentum=0.9)
    assert not layer(random((1, 1, 1, 3)), training=True).numpy().any()
    np.testing.assert_allclose(layer.moving_variance, 0.9, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_batch_norm_keeps_the_same_statistics(jit):
    eager, compiled = BatchNormalization(), BatchNormalization()
    x = random((4, 3, 3, 2))
    compiled.build(x.shape)
    call = tf.function(lambda t: compiled(t, training=True), jit_compile=jit, autograph=False)
    np.testing.assert_allclose(call(x), eager(x, training=True), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(compiled.variables, eager.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def dropped(rate: float, shape: tuple[int, ...], *, step: int = 0, seed: int = 0, **settings) -> np.ndarray:
    return passed_by(Dropout(rate, **{"name": "dropout", **settings}), shape, step=step, seed=seed)


def passed_by(layer: Dropout, shape: tuple[int, ...], *, step: int = 0, seed: int = 0) -> np.ndarray:
    """What becomes of ones."""
    with noise(seeds.key(seeds.stream(seed, "dropout"), tf.constant(step))):
        return layer(tf.ones(shape), training=True).numpy()


def test_the_same_key_gives_the_same_mask():
    assert np.array_equal(dropped(0.5, (64, 64)), dropped(0.5, (64, 64)))


@pytest.mark.parametrize("change", [{"step": 1}, {"step": 256}, {"seed": 1}, {"seed": 256}, {"name": "dropout_1"}])
def test_another_step_seed_or_layer_gives_an_unrelated_mask(change):
    same = np.mean(dropped(0.5, (100, 100)) == dropped(0.5, (100, 100), **change))
    assert same == pytest.approx(0.5, abs=4 * 0.5 / 100)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_units_are_kept_at_their_rate_and_scaled_so_that_the_mean_stays(rate):
    outputs = dropped(rate, (200, 100))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1 / (1 - rate))}
    error = np.sqrt(rate * (1 - rate) / outputs.size)
    assert np.mean(outputs > 0) == pytest.approx(1 - rate, abs=4 * error)
    assert outputs.mean() == pytest.approx(1, abs=4 * error / (1 - rate))


@pytest.mark.parametrize("shape", [(40, 6, 5, 30), (40, 9, 30)])
def test_a_spatial_mask_silences_whole_maps(shape):
    outputs = dropped(0.3, shape, spatial=True).reshape(40, -1, 30)
    assert np.array_equal(outputs, np.broadcast_to(outputs[:, :1], outputs.shape))
    assert np.mean(outputs[:, 0] > 0) == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 1200))


def test_a_plain_mask_is_drawn_for_every_unit():
    outputs = dropped(0.3, (40, 6, 5, 30))
    assert np.mean(outputs > 0) == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 36_000))
    assert np.mean(outputs[:, 0, 0] == outputs[:, 5, 4]) == pytest.approx(0.58, abs=4 * np.sqrt(0.25 / 1200))


@pytest.mark.parametrize("spatial", [True, False])
def test_dropout_is_the_identity_in_inference_and_at_rate_zero(spatial):
    x = random((4, 3, 3, 5))
    assert np.array_equal(Dropout(0.9, spatial=spatial)(x, training=False), x)
    assert np.array_equal(Dropout(0.0, spatial=spatial)(x, training=True), x)


def test_gradients_pass_where_units_are_kept():
    layer, x = Dropout(0.5, name="dropout"), random((20, 10))
    with noise(seeds.key(seeds.stream(0, "dropout"), tf.constant(0))), tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
    assert np.array_equal(tape.gradient(outputs, x), dropped(0.5, (20, 10)))


def test_training_without_a_key_is_an_error():
    with pytest.raises(RuntimeError, match="dropout_x draws at random"):
        Dropout(0.5, name="dropout_x")(tf.ones([2, 2]), training=True)


def test_a_key_does_not_outlive_its_context():
    dropped(0.5, (2, 2))
    with pytest.raises(RuntimeError):
        Dropout(0.5)(tf.ones([2, 2]), training=True)


@pytest.mark.parametrize("spatial", [True, False])
def test_masks_have_the_same_bits_with_xla_and_without(spatial):
    layer = Dropout(0.4, spatial=spatial, name="dropout")

    def call(x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        with noise(seeds.key(seeds.stream(0, "dropout"), step)):
            return layer(x, training=True)

    arguments = tf.ones([32, 5, 5, 33]), tf.constant(7, tf.int64)
    plain, compiled = (tf.function(call, jit_compile=jit, autograph=False)(*arguments) for jit in (False, True))
    assert plain.numpy().tobytes() == compiled.numpy().tobytes()
    assert np.array_equal(plain, dropped(0.4, (32, 5, 5, 33), step=7, spatial=spatial))


# --- stochastic depth ---------------------------------------------------------------------------------------------


def branches(rate: float, shape: tuple[int, ...], name: str = "depth", **key: int) -> np.ndarray:
    return passed_by(StochasticDepth(rate, name=name), shape, **key)


@pytest.mark.parametrize("shape", [(500, 3, 2, 4), (500, 7, 4), (500, 4)])
def test_a_branch_is_left_out_for_whole_samples(shape):
    outputs = branches(0.3, shape).reshape(500, -1)
    assert np.array_equal(outputs, np.broadcast_to(outputs[:, :1], outputs.shape))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_branches_are_kept_at_their_rate_and_scaled_so_that_the_mean_stays(rate):
    outputs = branches(rate, (10_000, 1, 1, 2))[:, 0, 0, 0]
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1 / (1 - rate))}
    error = np.sqrt(rate * (1 - rate) / outputs.size)
    assert np.mean(outputs > 0) == pytest.approx(1 - rate, abs=4 * error)
    assert outputs.mean() == pytest.approx(1, abs=4 * error / (1 - rate))


def test_the_same_key_leaves_out_the_same_samples():
    first = branches(0.5, (1000, 2))
    assert np.array_equal(first, branches(0.5, (1000, 2)))
    for change in ({"step": 1}, {"seed": 1}, {"name": "depth_1"}):
        same = np.mean(first[:, 0] == branches(0.5, (1000, 2), **change)[:, 0])
        assert same == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(1000))


def test_stochastic_depth_is_the_identity_in_inference_and_at_rate_zero():
    x = random((4, 3, 3, 5))
    assert np.array_equal(StochasticDepth(0.9)(x, training=False), x)
    assert np.array_equal(StochasticDepth(0.0)(x, training=True), x)

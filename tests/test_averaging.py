"""Weight averaging against the recursion in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.averaging import Ema, Lookahead, NoAveraging, Swa


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input([3]), keras.layers.Dense(4), keras.layers.BatchNormalization()])


def values(variables) -> list[np.ndarray]:
    return [np.array(v) for v in variables]


def walk(model, averager, steps: int) -> list[list[np.ndarray]]:
    """Random weights at every step, each followed by an update; what the weights were, the start included."""
    rng = np.random.default_rng(0)
    seen = [values(model.trainable_variables)]
    for step in range(steps):
        for variable in model.variables:
            variable.assign(rng.standard_normal(variable.shape).astype(np.float32))
        averager.update(tf.constant(step, tf.int64))
        seen.append(values(model.trainable_variables))
    return seen


def recursion(seen: list[list[np.ndarray]], decays: list[float]) -> list[np.ndarray]:
    average = [w.astype(np.float64) for w in seen[0]]
    for weights, d in zip(seen[1:], decays, strict=True):
        average = [d * a + (1 - d) * w for a, w in zip(average, weights, strict=True)]
    return average


def assert_close(actual, expected) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_average_follows_its_recursion(model, decay):
    averager = Ema(decay=decay, warmup=False).build(model, steps=100)
    seen = walk(model, averager, 30)
    assert_close(averager.trainable(), recursion(seen, [decay] * 30))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_warmup_starts_with_a_short_memory(model, decay):
    averager = Ema(decay=decay, warmup=True).build(model, steps=100)
    seen = walk(model, averager, 60)
    assert_close(averager.trainable(), recursion(seen, [min(decay, (1 + t) / (10 + t)) for t in range(60)]))


def test_the_average_starts_at_the_weights(model):
    averager = Ema().build(model, steps=100)
    assert_close(averager.trainable(), values(model.trainable_variables))


@pytest.mark.parametrize("warmup", [False, True])
def test_constant_weights_have_themselves_as_average_bit_for_bit(model, warmup):
    averager = Ema(decay=0.99, warmup=warmup).build(model, steps=100)
    for step in range(20):
        averager.update(tf.constant(step))
    for average, weight in zip(averager.trainable(), values(model.trainable_variables), strict=True):
        assert average.numpy().tobytes() == weight.tobytes()


def test_the_average_stays_within_the_weights_it_has_seen(model):
    averager = Ema(decay=0.9).build(model, steps=100)
    seen = walk(model, averager, 40)
    for i, average in enumerate(values(averager.trainable())):
        history = np.stack([weights[i] for weights in seen])
        assert np.all(average >= history.min(axis=0) - 1e-6)
        assert np.all(average <= history.max(axis=0) + 1e-6)


def test_updating_leaves_the_model_alone(model):
    averager, before = Ema(decay=0.5).build(model, steps=100), values(model.variables)
    averager.variables[0].assign_add(tf.ones_like(averager.variables[0]))
    averager.update(tf.constant(3))
    assert all(np.array_equal(a, b) for a, b in zip(values(model.variables), before, strict=True))


@pytest.mark.parametrize("part", [Ema(), NoAveraging()])
def test_statistics_are_the_models_own_and_not_averaged(model, part):
    averager = part.build(model, steps=100)
    walk(model, averager, 5)
    own = values(model.non_trainable_variables)
    assert own
    assert all(np.array_equal(a, b) for a, b in zip(values(averager.non_trainable()), own, strict=True))


def test_no_averaging_has_no_state_and_gives_the_weights_themselves(model):
    averager = NoAveraging().build(model, steps=100)
    seen = walk(model, averager, 5)
    assert averager.variables == []
    assert all(np.array_equal(a, b) for a, b in zip(values(averager.trainable()), seen[-1], strict=True))


def test_an_average_keeps_one_variable_for_each_trained_one(model):
    averager = Ema().build(model, steps=100)
    assert [v.shape for v in averager.variables] == [v.shape for v in model.trainable_variables]


def test_updates_in_a_compiled_function_follow_the_step_they_are_given(model):
    averager = Ema(decay=0.999).build(model, steps=100)
    kernel = model.trainable_variables[0]
    start, end = np.array(kernel), np.array(kernel) + 1
    kernel.assign(end)
    update = tf.function(averager.update, autograph=False)
    for t in range(8):
        update(tf.constant(t, tf.int64))
    left = np.prod([(1 + t) / (10 + t) for t in range(8)])
    np.testing.assert_allclose(averager.trainable()[0], end + left * (start - end), atol=2e-6)


def count_up(part, steps=12, skipped=()):
    """Weights that take the values 1, 2, 3, ... after each update, and the averages seen after each."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    weight = model.trainable_variables[0]
    weight.assign([[0.0]])
    averager = part.build(model, steps=steps)
    seen = []
    for step in range(steps):
        weight.assign_add([[1.0]])
        if step not in skipped:
            averager.update(tf.constant(step, tf.int64))
        seen.append((float(averager.trainable()[0][0, 0]), float(weight.numpy()[0, 0])))
    return seen


def test_swa_is_the_plain_mean_from_its_start_on():
    averages = [average for average, _ in count_up(Swa(start=0.5))]
    assert averages[:6] == [1, 2, 3, 4, 5, 6]
    for n, average in enumerate(averages[6:], 1):
        assert average == pytest.approx(np.mean(range(7, 7 + n)), rel=1e-6)


@pytest.mark.parametrize("skipped", [(6,), (8,), (6, 7, 10)])
def test_swa_is_the_mean_of_the_steps_that_were_not_skipped(skipped):
    taken = [step + 1 for step in range(6, 12) if step not in skipped]
    assert count_up(Swa(start=0.5), skipped=skipped)[-1][0] == pytest.approx(np.mean(taken), rel=1e-6)


def test_swa_takes_in_every_third_weight():
    averages = [average for average, _ in count_up(Swa(start=0.5, every=3))]
    assert averages[6:] == pytest.approx([7, 7, 7, 8.5, 8.5, 8.5])


def test_lookahead_follows_its_recursion():
    fast, slow, expected = 0.0, 0.0, []
    for step in range(1, 13):
        fast += 1
        if step % 4 == 0:
            slow += 0.25 * (fast - slow)
            fast = slow
        expected.append((slow, fast))
    np.testing.assert_allclose(count_up(Lookahead(every=4, share=0.25)), expected)


def test_a_half_life_is_the_steps_in_which_a_share_halves():
    """From 0 the average of constant ones is 1 - 2^(-t / h)."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.trainable_variables[0].assign([[0.0]])
    averager = Ema(half_life=5, warmup=False).build(model, steps=20)
    model.trainable_variables[0].assign([[1.0]])
    for step in range(10):
        averager.update(tf.constant(step, tf.int64))
    assert float(averager.trainable()[0][0, 0]) == pytest.approx(1 - 2**-2, rel=1e-6)

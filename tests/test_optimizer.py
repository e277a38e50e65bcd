"""Optimizers against float64 references written from the papers, with decay and a rate that changes each step."""

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import optimizer_references as paper
from descent.optimizer import (
    LAMB,
    LARS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    Nadam,
    RMSprop,
)

STEPS = 100
SHAPES = {"kernel": (5, 4), "bias": (4,), "gamma": (4,), "beta": (4,), "depth/kernel": (3, 3, 2, 4)}
DECAYED = ("kernel", "depth/kernel")

BETAS = {"b1": 0.9, "b2": 0.999}
ADAM = {**BETAS, "epsilon": 1e-7}
RMS = {"rho": 0.9, "epsilon": 1e-7, "centered": 0.0, "m": 0.0}
FACTORS = {"power": 0.8, "epsilon_1": 1e-30, "epsilon_2": 1e-3, "d": 1.0}
LAYER = {"m": 0.9, "trust": 0.4}
MUON = {"m": 0.95, "rms": 0.2, "b1": 0.9, "b2": 0.95, "epsilon": 1e-8}
# The part, its settings; the reference, its settings. One for each option file, by its name.
OPTIONS = {
    "sgd": (SGD, {}, paper.sgd, {}),
    "momentum": (SGD, {"momentum": 0.9}, paper.momentum, {"m": 0.9}),
    "nesterov": (SGD, {"momentum": 0.8, "nesterov": True}, paper.nesterov, {"m": 0.8}),
    "adam": (Adam, {}, paper.adam, ADAM),
    "adamw": (AdamW, {}, paper.adam, ADAM),
    # Its second moment decays fast enough for the maximum to matter.
    "amsgrad": (Adam, {"amsgrad": True, "beta_2": 0.8}, paper.adam, {**ADAM, "b2": 0.8, "largest": True}),
    "nadam": (Nadam, {}, paper.nadam, {**ADAM, "psi": 0.004}),
    "adamax": (Adamax, {}, paper.adamax, ADAM),
    "adagrad": (Adagrad, {}, paper.adagrad, {"initial": 0.1, "epsilon": 1e-7}),
    "adadelta": (Adadelta, {}, paper.adadelta, {"rho": 0.95, "epsilon": 1e-6}),
    "rmsprop": (RMSprop, {}, paper.rmsprop, RMS),
    "adafactor": (Adafactor, {}, paper.adafactor, FACTORS),
    "lion": (Lion, {}, paper.lion, {"b1": 0.9, "b2": 0.99}),
    "lamb": (LAMB, {}, paper.lamb, {**BETAS, "epsilon": 1e-6}),
    "lars": (LARS, {"trust": 0.4}, paper.lars, LAYER),
    "muon": (Muon, {}, paper.muon, MUON),
}
VARIANTS = {
    "torch_momentum": (SGD, {"momentum": 0.9, "fold_rate": False}, paper.momentum_of_gradients, {"m": 0.9}),
    "torch_nesterov": (
        SGD,
        {"momentum": 0.8, "nesterov": True, "fold_rate": False},
        paper.momentum_of_gradients,
        {"m": 0.8, "look_ahead": True},
    ),
    "torch_sgd": (SGD, {"fold_rate": False}, paper.sgd, {}),
    "adam_betas": (Adam, {"beta_1": 0.7, "beta_2": 0.9}, paper.adam, {**ADAM, "b1": 0.7, "b2": 0.9}),
    # So large that it matters on which side of the bias correction epsilon is added.
    "adam_epsilon": (Adam, {"epsilon": 0.03}, paper.adam, {**ADAM, "epsilon": 0.03}),
    # So fast that the momentum is seen to grow.
    "nadam_growth": (Nadam, {"momentum_decay": 0.5}, paper.nadam, {**ADAM, "psi": 0.5}),
    "rmsprop_epsilon": (RMSprop, {"rho": 0.7, "epsilon": 0.1}, paper.rmsprop, {**RMS, "rho": 0.7, "epsilon": 0.1}),
    "rmsprop_momentum": (RMSprop, {"momentum": 0.6}, paper.rmsprop, {**RMS, "m": 0.6}),
    "rmsprop_centered": (RMSprop, {"centered": True}, paper.rmsprop, {**RMS, "centered": 1.0}),
    "adafactor_absolute": (
        Adafactor,
        {"relative": False, "clip": 0.5},
        paper.adafactor,
        {**FACTORS, "relative": False, "d": 0.5},
    ),
    "lamb_everywhere": (LAMB, {"adapt_all": True}, paper.lamb, {**BETAS, "epsilon": 1e-6, "everywhere": True}),
    "lars_everywhere": (LARS, {"trust": 0.4, "adapt_all": True}, paper.lars, {**LAYER, "everywhere": True}),
    "muon_heavy_ball": (Muon, {"nesterov": False}, paper.muon, {**MUON, "look_ahead": False}),
}
# The weight decay of their papers, which is part of the step.
INSIDE = {
    "lamb_decay": (LAMB, {"decay_in_ratio": True}, paper.lamb, {**BETAS, "epsilon": 1e-6, "inside": True}),
    "lars_decay": (LARS, {"trust": 0.4, "decay_in_ratio": True}, paper.lars, {**LAYER, "inside": True}),
}
CASES = OPTIONS | VARIANTS | INSIDE


def runner(optimizer, variables, *, jit=False):
    """Some steps in one compiled call, as in training: the number of steps is a runtime value."""

    @tf.function(autograph=False, jit_compile=jit)
    def run(rates, grads, begin, end):
        def body(i):
            optimizer.learning_rate = tf.gather(rates, i)
            optimizer.apply([tf.gather(g, i) for g in grads], variables)
            return i + 1

        return tf.while_loop(lambda i: i < end, body, [begin])[0]

    return run


class Problem:
    """Weights, gradients and rates, all of them float32 numbers, so that the reference starts from the same."""

    def __init__(self, seed: int, shapes: dict[str, tuple[int, ...]] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.shapes = shapes or SHAPES
        self.weights = [rng.standard_normal(s).astype(np.float32) for s in self.shapes.values()]
        self.grads = [rng.standard_normal((STEPS, *s)).astype(np.float32) for s in self.shapes.values()]
        self.rates = rng.uniform(0.001, 0.01, STEPS).astype(np.float32)

    def variables(self) -> list[keras.Variable]:
        variables = []
        for path, w in zip(self.shapes, self.weights, strict=True):
            *folders, name = path.split("/")
            with contextlib.ExitStack() as scopes:
                for folder in folders:
                    scopes.enter_context(keras.name_scope(folder))
                variables.append(keras.Variable(w, name=name))
        return variables

    def run(self, optimizer, variables, begin=0, end=STEPS, *, jit=False) -> list[np.ndarray]:
        data = tf.constant(self.rates), [tf.constant(g) for g in self.grads]
        runner(optimizer, variables, jit=jit)(*data, tf.constant(begin), tf.constant(end))
        return [np.array(v) for v in variables]

    def trained(self, part, *, jit=False) -> list[np.ndarray]:
        variables = self.variables()
        return self.run(part.build(variables), variables, jit=jit)

    def expected(self, reference, settings, decayed: dict[str, float]) -> list[np.ndarray]:
        rates, results = self.rates.astype(np.float64), []
        for name, w, grads in zip(self.shapes, self.weights, self.grads, strict=True):
            decays = rates * decayed.get(name, 0.0)
            results.append(reference(w.astype(np.float64), grads.astype(np.float64), decays, rates=rates, **settings))
        return results


def assert_same(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Within 1e-6 in Euclidean norm.

    A step rounds a weight two or three times, each by at most 2^-24 of it and by 2^-25.5 as a rule. Roundings add up
    like a random walk: sqrt(250) * 2^-25.5 = 3e-7 after a hundred steps. Adam's float32 `1 - b2^t` adds as much again.
    """
    error = np.concatenate([(a - b).ravel() for a, b in zip(actual, expected, strict=True)])
    size = np.concatenate([b.ravel() for b in expected])
    assert np.linalg.norm(error) <= 1e-6 * np.linalg.norm(size)


def test_every_option_file_has_a_reference():
    assert {p.stem for p in (Path(__file__).parents[1] / "conf/optimizer").glob("*.yaml")} == set(OPTIONS)


@pytest.mark.parametrize("case", CASES)
def test_a_hundred_random_steps_follow_the_paper(case):
    part, own, reference, settings = CASES[case]
    problem = Problem(seed=0)
    actual = problem.trained(part(**own, weight_decay=0.5))
    assert_same(actual, problem.expected(reference, settings, dict.fromkeys(DECAYED, 0.5)))


@pytest.mark.parametrize("case", OPTIONS)
def test_compiled_whole_by_xla_they_follow_it_too(case):
    part, own, reference, settings = CASES[case]
    problem = Problem(seed=5)
    actual = problem.trained(part(**own, weight_decay=0.0), jit=True)
    assert_same(actual, problem.expected(reference, settings, {}))


@pytest.mark.parametrize("case", OPTIONS | INSIDE)
def test_decay_all_decays_biases_and_normalisation_too(case):
    part, own, reference, settings = CASES[case]
    problem = Problem(seed=1)
    actual = problem.trained(part(**own, weight_decay=0.5, decay_all=True))
    assert_same(actual, problem.expected(reference, settings, dict.fromkeys(SHAPES, 0.5)))


@pytest.mark.parametrize("case", [*OPTIONS, "torch_momentum", "lamb_everywhere", "lars_everywhere"])
def test_decay_is_the_only_change_where_gradients_are_zero(case):
    part, own, _, _ = CASES[case]
    problem = Problem(seed=2)
    problem.grads = [0 * g for g in problem.grads]
    results = zip(problem.shapes, problem.weights, problem.trained(part(**own, weight_decay=0.5)), strict=True)
    factor = np.prod(1 - 0.5 * problem.rates.astype(np.float64))
    for name, before, after in results:
        if name in DECAYED:
            assert_same([after], [before * factor])
        else:
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("case", [*OPTIONS, "torch_momentum"])
def test_the_variables_are_all_there_is_to_save(case):
    """Restored after half of the steps into a new optimizer, the rest gives the same bits."""
    part, own, _, _ = CASES[case]
    problem, whole = Problem(seed=6), part(**own, weight_decay=0.5)
    expected = problem.trained(whole)
    first = problem.variables()
    optimizer = whole.build(first)
    problem.run(optimizer, first, end=STEPS // 2)
    second = problem.variables()
    resumed = whole.build(second)
    for to, value in zip([*second, *resumed.variables], [*first, *optimizer.variables], strict=True):
        to.assign(value.value)
    for a, b in zip(problem.run(resumed, second, begin=STEPS // 2), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_adamw_decays_by_default_and_adam_does_not():
    problem = Problem(seed=3)
    expected = problem.expected(paper.adam, ADAM, dict.fromkeys(DECAYED, AdamW().weight_decay))
    assert AdamW().weight_decay > 0
    assert_same(problem.trained(AdamW()), expected)
    assert_same(problem.trained(Adam()), problem.expected(paper.adam, ADAM, {}))


def test_nesterov_walks_the_points_where_sutskever_looks_ahead():
    """Eqs. 3 and 4 on f = sum c x^2 / 2: the gradient is taken at x + m v, and that is the point Keras keeps."""
    rng = np.random.default_rng(4)
    curvature, x, v = rng.uniform(0.5, 2, 6), rng.standard_normal(6).astype(np.float32), np.zeros(6)
    weight = keras.Variable(x, name="kernel")
    optimizer = SGD(momentum=0.9, nesterov=True).build([weight])

    @tf.function(autograph=False)
    def step(rate, grad):
        optimizer.learning_rate = rate
        optimizer.apply([grad], [weight])

    for rate in np.linspace(0.1, 0.01, STEPS):
        step(np.float32(rate), tf.constant(curvature * np.array(weight), tf.float32))
        v = 0.9 * v - rate * curvature * (x + 0.9 * v)
        x = x + v
    np.testing.assert_allclose(np.array(weight), x + 0.9 * v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_both_momenta_are_the_same_under_a_constant_rate_and_differ_under_a_changing_one(nesterov):
    problem = Problem(seed=7)
    parts = [SGD(momentum=0.9, nesterov=nesterov, fold_rate=fold) for fold in (True, False)]
    changing = [problem.trained(part) for part in parts]
    assert np.abs(changing[0][0] - changing[1][0]).max() > 1e-3
    problem.rates[:] = 0.01
    assert_same(*(problem.trained(part) for part in parts))


def test_at_rate_zero_a_velocity_of_steps_runs_on_and_one_of_gradients_stands():
    problem = Problem(seed=8)
    problem.rates[1:], problem.grads = (
        0.0,
        [g * (np.arange(STEPS) == 0).reshape(-1, *[1] * (g.ndim - 1)) for g in problem.grads],
    )
    first = [problem.rates[0] * g[0].astype(np.float64) for g in problem.grads]
    steps, gradients = (problem.trained(SGD(momentum=0.9, fold_rate=fold)) for fold in (True, False))
    series = (1 - 0.9**STEPS) / (1 - 0.9)
    assert_same(steps, [w - series * change for w, change in zip(problem.weights, first, strict=True)])
    assert_same(gradients, [w - change for w, change in zip(problem.weights, first, strict=True)])


def test_a_step_of_lamb_is_as_long_as_the_weights_times_the_rate():
    problem = Problem(seed=9)
    variables = problem.variables()
    after = problem.run(LAMB().build(variables), variables, end=1)
    for before, now in zip(problem.weights, after, strict=True):
        length = np.linalg.norm(now - before) / problem.rates[0]
        # Adam's first step is the sign of the gradient.
        assert length == pytest.approx(np.linalg.norm(before) if before.ndim > 1 else np.sqrt(before.size), rel=1e-3)


def test_a_layer_that_is_zero_can_leave_it():
    for part in (LAMB(), LARS()):
        problem = Problem(seed=10)
        problem.weights = [0 * w for w in problem.weights]
        assert all(np.isfinite(w).all() and w.any() for w in problem.trained(part))


def test_a_step_of_muon_has_all_singular_values_alike_and_the_size_it_says():
    shapes = {"kernel": (40, 30), "head/kernel": (30, 20), "embedding/kernel": (40, 30)}
    problem = Problem(seed=11, shapes=shapes)
    variables = problem.variables()
    after = problem.run(Muon(rms=0.3).build(variables), variables, end=1)
    steps = [(w - before) / problem.rates[0] for before, w in zip(problem.weights, after, strict=True)]
    values = np.linalg.svd(steps[0], compute_uv=False) / (0.3 * np.sqrt(40))
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert np.sqrt(np.mean(steps[0] ** 2)) == pytest.approx(0.3 * np.sqrt(30 / 40), rel=0.2 * 2)
    for spared in steps[1:]:
        np.testing.assert_allclose(np.abs(spared), 1, rtol=1e-3)


def test_adafactor_remembers_rows_and_columns():
    problem = Problem(seed=12)
    slots = Adafactor().build(problem.variables()).variables[2:]
    assert sum(np.prod(v.shape) for v in slots) == (5 + 4) + 3 * 4 + 9 * (2 + 4)


@pytest.mark.parametrize("case", OPTIONS)
def test_a_silent_row_and_column_stay_where_they_are(case):
    """A dead input and a dead unit, as in any network of ReLUs: no quotient of zeros."""
    part, own, *_ = CASES[case]
    problem = Problem(seed=13, shapes={"kernel": (5, 4)})
    problem.grads[0] *= 1e-3
    problem.grads[0][:, 0], problem.grads[0][:, :, 0] = 0, 0
    (after,) = problem.trained(part(**own, weight_decay=0.0), jit=True)
    np.testing.assert_array_equal(after == problem.weights[0], problem.grads[0][0] == 0)


def test_the_peak_is_the_rate_of_the_built_optimizer():
    weight = keras.Variable(np.ones(3, np.float32), name="kernel")
    assert float(SGD(learning_rate=0.25).build([weight]).learning_rate) == 0.25

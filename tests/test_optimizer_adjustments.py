"""What is done to single variables: factors of the rate, layer-wise decay, centralised gradients."""

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from descent import UserError
from descent.optimizer import SGD, Adam, Muon, Optimizer
from descent.optimizer.base import layer_numbers
from test_optimizer import DECAYED, OPTIONS, Problem, assert_same


def part_of(option: str, **settings):
    part, own, *_ = OPTIONS[option]
    return part(**own, **settings)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.mark.parametrize("option", OPTIONS)
def test_a_factor_scales_rate_and_decay_zero_freezes_and_one_is_as_without(option):
    _, _, reference, settings = OPTIONS[option]
    problem = Problem(seed=0)
    plain = problem.trained(part_of(option, weight_decay=0.5))
    factors = {"^kernel": 0.25, "gamma": 0, "depth/": 0}
    adjusted = problem.trained(part_of(option, weight_decay=0.5, multipliers=factors))
    rates, problem.rates = problem.rates, problem.rates / 4
    slowed = problem.expected(reference, settings, dict.fromkeys(DECAYED, 0.5))
    problem.rates = rates
    for name, before, without, slow, after in zip(
        problem.shapes, problem.weights, plain, slowed, adjusted, strict=True
    ):
        if name == "kernel":
            assert_same([after], [slow])
        else:
            assert same_bits(after, before if name in ("gamma", "depth/kernel") else without)


@pytest.mark.parametrize("option", ["sgd", "adamw", "nadam", "lars", "muon"])
def test_so_it_is_under_xla(option):
    problem = Problem(seed=1)
    plain = problem.trained(part_of(option, weight_decay=0.5), jit=True)
    factors = {"gamma": 0.25, "depth/": 0}
    adjusted = problem.trained(part_of(option, weight_decay=0.5, multipliers=factors), jit=True)
    expected = dict(zip(problem.shapes, plain, strict=True)) | {"depth/kernel": problem.weights[-1]}
    for name, after in zip(problem.shapes, adjusted, strict=True):
        assert same_bits(after, expected[name]) == (name != "gamma")


@pytest.mark.parametrize("part", [SGD(momentum=0.9), Adam(multipliers={"kernel": 1, ".*": 1.0}, layer_decay=1.0)])
def test_off_is_the_class_of_keras_itself(part: Optimizer):
    kind = type(part.build(Problem(seed=2).variables()))
    assert kind in (keras.optimizers.SGD, keras.optimizers.Adam)


def test_the_first_pattern_that_matches_counts():
    variables = named("depth/kernel", "dense/kernel", "depth/bias", "dense/bias")
    assert SGD(multipliers={"depth": 3, "kernel": 2}).factors(variables) == [3, 2, 3, 1]
    assert SGD(multipliers={"kernel": 2, "depth": 3}).factors(variables) == [2, 2, 3, 1]


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UserError, match=r"optimizer\.multipliers: haed matches none of .*kernel, .*bias"):
        SGD(multipliers={"haed": 2}).build(Problem(seed=4).variables())


@pytest.mark.parametrize("bad", [{"a": -1}, {"a": True}, {"a": "1"}, {"a": float("nan")}, {"(": 1}, ["a"], 3, "ab"])
def test_what_is_no_mapping_of_patterns_to_factors_is_refused(bad):
    with pytest.raises(ValidationError, match=r"multipliers\n.*(factors of at least 0|no regular expression)"):
        SGD(multipliers=bad)


def test_multipliers_may_be_given_as_pairs_or_none():
    assert SGD(multipliers=[["a", 2]]) == SGD(multipliers={"a": 2.0})
    assert SGD(multipliers=None) == SGD(multipliers={}) == SGD()


def network() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(2, 3, use_bias=False, name="conv_0"),
            layers.BatchNormalization(name="norm_0"),
            layers.Conv2D(2, 3, name="conv_1"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )


def test_layer_decay_by_hand():
    variables = network().trainable_variables
    paths = ["conv_0/kernel", "norm_0/gamma", "norm_0/beta", "conv_1/kernel", "conv_1/bias", "head/kernel", "head/bias"]
    assert [v.path.removeprefix("sequential/") for v in variables] == paths
    assert layer_numbers(variables) == [0, 0, 0, 1, 1, 2, 2]
    assert SGD(layer_decay=0.5).factors(variables) == [0.25, 0.25, 0.25, 0.5, 0.5, 1, 1]
    assert SGD(layer_decay=0.0).factors(variables) == [0, 0, 0, 0, 0, 1, 1]
    assert SGD(layer_decay=0.5, multipliers={"conv_1": 4}).factors(variables) == [0.25, 0.25, 0.25, 2, 2, 1, 1]


def test_layers_are_told_apart_below_what_all_paths_share():
    paths = ("embed/table", "block_0/norm/gamma", "block_0/mlp/kernel", "head/kernel")
    assert layer_numbers(named(*paths)) == [0, 1, 1, 2]
    assert layer_numbers(named(*(f"vit/{path}" for path in paths))) == [0, 1, 1, 2]
    assert layer_numbers(named("dense/kernel", "dense/bias")) == [0, 0]


def named(*paths: str) -> list[keras.Variable]:
    return Problem(seed=5, shapes=dict.fromkeys(paths, (3, 2))).variables()


@pytest.mark.parametrize("option", ["sgd", "momentum", "adamw", "rmsprop", "adafactor", "lars", "muon"])
def test_centralised_gradients_of_kernels_have_mean_zero(option):
    _, _, reference, settings = OPTIONS[option]
    problem = Problem(seed=6)
    actual = problem.trained(part_of(option, weight_decay=0.5, centralize=True))
    for name, grads in zip(problem.shapes, problem.grads, strict=True):
        if name in DECAYED:
            grads -= grads.astype(np.float64).mean(tuple(range(1, grads.ndim - 1)), keepdims=True).astype(np.float32)
    assert_same(actual, problem.expected(reference, settings, dict.fromkeys(DECAYED, 0.5)))


def test_centralisation_conserves_the_sum_over_the_inputs_of_each_output():
    problem = Problem(seed=7)
    after = problem.trained(SGD(centralize=True, momentum=0.9))
    for name, then, now in zip(problem.shapes, problem.weights, after, strict=True):
        changes = (now - then).reshape(-1, then.shape[-1]).sum(0)
        assert (np.abs(changes).max() < 1e-5) == (name in DECAYED)


def test_each_channel_of_a_depthwise_kernel_is_an_output():
    problem = Problem(seed=7, shapes={"depthwise/kernel": (3, 3, 4, 1)})
    (after,), then = problem.trained(SGD(centralize=True)), problem.weights[0]
    assert np.abs((after - then).sum((0, 1))).max() < 1e-5 < np.abs(after - then).max()


def test_embeddings_tokens_and_biases_of_several_axes_are_not_centralised():
    problem = Problem(seed=8, shapes={"embeddings": (5, 4), "token": (1, 1, 4), "bias": (2, 4)})
    pairs = zip(problem.trained(SGD(centralize=True)), problem.trained(SGD()), strict=True)
    assert all(same_bits(a, b) for a, b in pairs)


def test_under_layer_decay_zero_only_the_last_layer_moves():
    problem = Problem(seed=9, shapes={"a/kernel": (3, 3), "b/kernel": (3, 3), "c/kernel": (3, 3)})
    moved = [not same_bits(a, b) for a, b in zip(problem.trained(Muon(layer_decay=0.0)), problem.weights, strict=True)]
    assert moved == [False, False, True]

"""Penalties by their gradients, and softened labels by what must stay and what must rise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import entropy

from descent import UserError
from descent.regularization import Regularization


def variables(*names: str) -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.standard_normal((4, 3)), name=name, dtype="float32") for name in names]


def penalty_gradients(part: Regularization, weights: list[keras.Variable]) -> list[np.ndarray]:
    values = [w.value for w in weights]
    with tf.GradientTape() as tape:
        penalty = part.penalty(weights)
    gradients = tape.gradient(penalty, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [g.numpy() for g in gradients]


def one_hot(rows: int, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.random.default_rng(1).integers(0, classes, rows)]


def soften(share: float, targets: np.ndarray) -> np.ndarray:
    return np.asarray(Regularization(label_smoothing=share).soften(tf.constant(targets)))


def test_the_gradient_of_l2_is_two_l2_w():
    weights = variables("kernel", "kernel")
    for gradient, w in zip(penalty_gradients(Regularization(l2=0.03), weights), weights, strict=True):
        np.testing.assert_allclose(gradient, 2 * 0.03 * np.array(w), rtol=1e-6)


def test_the_gradient_of_l1_is_l1_times_the_sign():
    weights = variables("kernel")
    weights[0].assign(tf.tensor_scatter_nd_update(weights[0].value, [[0, 0]], [0.0]))
    (gradient,) = penalty_gradients(Regularization(l1=0.03), weights)
    np.testing.assert_allclose(gradient, 0.03 * np.sign(np.array(weights[0])), rtol=1e-6)


def test_the_penalty_is_the_sum_of_both_norms_over_all_kernels():
    weights = variables("kernel", "kernel")
    flat = np.concatenate([np.array(w, np.float64).ravel() for w in weights])
    expected = 0.2 * np.abs(flat).sum() + 0.03 * (flat**2).sum()
    assert float(Regularization(l1=0.2, l2=0.03).penalty(weights)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "embeddings"])
def test_kernels_and_embeddings_are_penalised(name):
    assert float(Regularization(l2=1.0).penalty(variables(name))) > 0


@pytest.mark.parametrize("name", ["bias", "gamma", "beta", "moving_mean", "moving_variance"])
def test_biases_and_normalisation_are_spared(name):
    part, weights = Regularization(l1=0.1, l2=0.1), variables("kernel", name)
    assert float(part.penalty(weights)) == float(part.penalty(weights[:1]))
    assert not penalty_gradients(part, weights)[1].any()


@pytest.mark.parametrize("part", [Regularization(l1=0.1), Regularization(l2=0.1)])
def test_variables_without_a_kernel_have_no_penalty(part):
    assert float(part.penalty(variables("bias"))) == 0


def test_no_rate_is_no_penalty():
    weights = variables("kernel")
    assert float(Regularization().penalty(weights)) == 0
    assert not penalty_gradients(Regularization(), weights)[0].any()


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.9])
def test_softened_rows_sum_to_one(classes, share):
    np.testing.assert_allclose(soften(share, one_hot(20, classes)).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.9])
def test_softening_moves_each_target_its_share_of_the_way_to_one_over_n(share):
    targets = np.random.default_rng(2).dirichlet(np.ones(8), 30).astype(np.float32)
    np.testing.assert_allclose(soften(share, targets) - targets, share * (1 / 8 - targets), atol=1e-7)


def test_the_hit_and_the_misses_have_the_values_of_szegedy():
    softened = soften(0.1, np.float32([[0, 1, 0, 0]]))
    np.testing.assert_allclose(softened, [[0.025, 0.925, 0.025, 0.025]], rtol=1e-6)


def test_entropy_rises_with_the_share():
    targets = one_hot(20, 6)
    entropies = [entropy(soften(share, targets), axis=1) for share in (0.0, 0.01, 0.1, 0.5, 0.99)]
    assert np.all(np.diff(entropies, axis=0) > 0)
    assert np.all(entropies[-1] <= np.log(6))


def test_softening_keeps_the_label():
    targets = one_hot(50, 6)
    assert np.array_equal(soften(0.9, targets).argmax(axis=1), targets.argmax(axis=1))


def test_no_share_leaves_targets_untouched_bit_for_bit():
    targets = np.random.default_rng(3).dirichlet(np.ones(8), 30).astype(np.float32)
    assert soften(0.0, targets).tobytes() == targets.tobytes()


def test_max_norm_bounds_each_units_incoming_weights():
    rng = np.random.default_rng(0)
    kernel = keras.Variable(
        rng.standard_normal((3, 3, 2, 6)).astype(np.float32) * np.linspace(0.01, 1, 6), name="kernel"
    )
    bias = keras.Variable(np.full(6, 9.0, np.float32), name="bias")
    before, norms = kernel.numpy(), np.linalg.norm(kernel.numpy().reshape(-1, 6), axis=0)
    Regularization(max_norm=1.5).constrain([kernel, bias], [kernel.value + 1, bias.value + 1])
    after = np.linalg.norm(kernel.numpy().reshape(-1, 6), axis=0)
    np.testing.assert_allclose(after, np.minimum(norms, 1.5), rtol=1e-6)
    short = norms < 1.5
    assert short.any()
    np.testing.assert_array_equal(kernel.numpy()[..., short], before[..., short])
    assert (bias.numpy() == 9).all()


def test_max_norm_leaves_kernels_alone_that_the_update_did_not_change():
    kernel = keras.Variable(np.full([4, 3], 5.0, np.float32), name="kernel")
    Regularization(max_norm=1.0).constrain([kernel], [tf.identity(kernel.value)])
    assert (kernel.numpy() == 5).all()


def test_max_norm_takes_each_channel_of_a_depthwise_kernel_for_a_unit():
    sizes = np.arange(1, 5, dtype=np.float32)[:, None]
    kernel = keras.Variable(np.ones([3, 3, 4, 1], np.float32) * sizes, name="kernel")
    Regularization(max_norm=6.0).constrain([kernel], [tf.zeros([3, 3, 4, 1])])
    norms = np.linalg.norm(kernel.numpy().reshape(9, 4), axis=0)
    np.testing.assert_allclose(norms, [3, 6, 6, 6], rtol=1e-6)


def test_a_pattern_that_finds_nothing_to_penalise_is_told():
    variables = [keras.Variable(np.ones([2, 2], np.float32), name="kernel")]
    Regularization(penalize="nothing").check(variables)
    with pytest.raises(UserError, match=r"regularization\.penalize: nothing matches none of kernel"):
        Regularization(penalize="nothing", l1=0.1).check(variables)


def test_gradient_noise_has_the_variance_of_the_paper_and_fades():
    part = Regularization(gradient_noise=0.3)
    for step in (0, 10, 1000):
        (noisy,) = part.disturb([tf.zeros([200_000])], tf.constant([5, step], tf.int64), tf.constant(step, tf.int64))
        variance = 0.3 / (1 + step) ** 0.55
        # The variance of 200,000 Gaussians has a relative standard error of sqrt(2 / 200,000) = 0.3 %.
        assert np.var(noisy.numpy()) == pytest.approx(variance, rel=0.015)


def test_without_noise_gradients_are_the_same_objects():
    gradients = [tf.ones([3])]
    assert Regularization().disturb(gradients, tf.constant([1, 2], tf.int64), tf.constant(0)) is gradients


def test_a_pattern_chooses_what_is_penalised():
    kernel, other = (
        keras.Variable(np.full((2, 2), 2.0, np.float32), name="kernel"),
        keras.Variable(np.full((2, 2), 3.0, np.float32), name="other"),
    )
    assert float(Regularization(l2=1.0).penalty([kernel, other])) == 16
    assert float(Regularization(l2=1.0, penalize="other").penalty([kernel, other])) == 36


@pytest.mark.parametrize(("rates", "expected"), [(0.3, [0.3, 0.3]), ((0.5, 0.3), [0.5, 0.3])])
def test_a_rate_is_one_for_all_layers_or_one_each(rates, expected):
    assert Regularization(dropout=rates).rates("dropout", 2) == expected


def test_a_list_of_the_wrong_length_is_named():
    with pytest.raises(UserError, match=r"regularization\.dropout has 2 rates, and the model has 3 such layers"):
        Regularization(dropout=[0.5, 0.3]).rates("dropout", 3)


def test_stochastic_depth_grows_linearly_to_its_rate():
    assert Regularization(stochastic_depth=0.4).rates("stochastic_depth", 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])

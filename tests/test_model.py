"""Models: laws that all of them keep, in sizes that build in a moment."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent import UserError, seeds
from descent.data import FashionMnist, Synthetic
from descent.model import Cnn, ConvNeXt, KerasApplication, Mlp, ResNet, ResNet20, ViT, WideResNet
from descent.model.layers import BatchNormalization, StochasticDepth, noise
from descent.regularization import Regularization

OWN = {
    "mlp": Mlp(),
    "cnn": Cnn(),
    "resnet20": ResNet20(blocks=1),
    "resnet18": ResNet(width=16, blocks=(2, 1)),
    "resnet50": ResNet(width=16, blocks=(2, 1), bottleneck=True),
    "wide_resnet": WideResNet(blocks=1, widen=2),
    "convnext_tiny": ConvNeXt(widths=(24, 48), blocks=(1, 2)),
    "vit_tiny": ViT(width=48, depth=2),
}
VARIANTS = {
    "convnext_patches": ConvNeXt(widths=(24, 48), blocks=(1, 1), patch=4),
    "vit_token": ViT(width=48, depth=1, pool="token"),
}
MODELS = OWN | {"keras_application": KerasApplication(application="MobileNet", weights=None, size=32)}
RESIDUAL = {"resnet20": 3, "resnet18": 3, "resnet50": 3, "wide_resnet": 3, "convnext_tiny": 3, "vit_tiny": 2}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, spec, seed: int = 0, **rates) -> keras.Model:
    return made((MODELS | VARIANTS)[name], spec, seed, **rates)


def made(part, spec, seed: int = 0, **rates) -> keras.Model:
    keras.backend.clear_session()
    with seeds.initialization(seed):
        return part.build(spec, Regularization(**rates))


def images(shape: tuple[int, ...], count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), np.float32)


def trained_pass(model: keras.Model, inputs: np.ndarray, step: int = 0) -> np.ndarray:
    with noise(seeds.key(seeds.stream(0, "dropout"), tf.constant(step))):
        return model(inputs, training=True).numpy()


@pytest.mark.parametrize("name", MODELS | VARIANTS)
@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 1), None), ((28, 28, 1), 10), ((9, 13, 3), 10), ((1, 2, 3), 2)])
def test_any_image_gives_finite_logits(name, shape, classes):
    spec = Synthetic(shape=shape, num_classes=classes).spec
    model = build(name, spec, dropout=0.5, spatial_dropout=0.1, stochastic_depth=0.2)
    outputs = model(images(shape), training=False)
    assert outputs.shape == (3, classes or 1)
    assert np.isfinite(outputs).all()
    assert outputs.dtype == "float32"


@every_model
def test_training_starts_near_the_loss_of_a_uniform_guess(name):
    spec = FashionMnist().spec
    inputs = np.array(FashionMnist().open().splits["validation"][0][:64]) * np.float32(spec.scale)
    logits = build(name, spec)(inputs, training=True).numpy()
    loss = np.mean(np.log(np.exp(logits).sum(-1)) - logits[:, 0])
    assert loss == pytest.approx(np.log(10), abs=0.3)


@every_model
def test_the_seed_alone_decides_the_start(name):
    spec = Synthetic().spec
    first, again, other = (build(name, spec, seed).get_weights() for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@every_model
def test_names_are_given_and_no_bias_is_swallowed(name):
    """Masks are keyed by the name of the layer, so Keras' own numbering, which goes on, must not leak in."""
    spec = Synthetic().spec
    first = build(name, spec).layers
    again = MODELS[name].build(spec, Regularization()).layers  # without clearing the session
    assert [layer.name for layer in first] == [layer.name for layer in again]
    before = [norm.input._keras_history.operation for norm in first if isinstance(norm, BatchNormalization)]
    assert not any(getattr(layer, "use_bias", False) for layer in before)


# --- how kernels start --------------------------------------------------------------------------------------------


def hidden_kernels(model: keras.Model) -> list[keras.Variable]:
    return [v for v in model.trainable_variables if v.name == "kernel" and "head" not in v.path]


@pytest.mark.parametrize("name", OWN)
def test_hidden_kernels_start_with_he_variance(name):
    """He et al. 2015, eq. 10: variance 2 / fan-in (Keras truncates at two deviations and corrects for it)."""
    part = dataclasses.replace(OWN[name], initializer="he_normal")
    kernels = hidden_kernels(made(part, Synthetic(shape=(16, 16, 3)).spec))
    assert len({v.numpy().tobytes() for v in kernels}) == len(kernels)  # no two share a draw
    large = [v for v in kernels if np.prod(v.shape) > 2000]
    assert large
    for variable in large:
        fan_in = np.prod(variable.shape[:-1])
        assert np.var(variable.numpy()) * fan_in == pytest.approx(2.0, rel=0.12), variable.path


@pytest.mark.parametrize("name", OWN)
def test_the_initializer_reaches_every_hidden_kernel(name):
    part = dataclasses.replace(OWN[name], initializer="truncated_normal")
    kernels = hidden_kernels(made(part, Synthetic(shape=(16, 16, 3)).spec))
    assert kernels
    assert all(0 < np.abs(v.numpy()).max() <= 0.04 for v in kernels)


IN, OUT = 300, 100
VARIANCES = {
    "he_normal": 2 / IN,
    "he_uniform": 2 / IN,
    "glorot_normal": 2 / (IN + OUT),
    "glorot_uniform": 2 / (IN + OUT),
    "lecun_normal": 1 / IN,
    "lecun_uniform": 1 / IN,
    "orthogonal": 1 / IN,
    "truncated_normal": 0.02**2 * 0.7737,  # variance of a normal cut at two deviations
}


def kernel(initializer: str) -> np.ndarray:
    return made(Mlp(widths=(IN, OUT), initializer=initializer), Synthetic().spec).get_layer("dense_1").kernel.numpy()


@pytest.mark.parametrize("initializer", VARIANCES)
def test_an_initializer_has_the_variance_of_its_paper(initializer):
    values = kernel(initializer)
    assert np.var(values) == pytest.approx(VARIANCES[initializer], rel=0.05)
    if initializer.endswith("uniform"):
        assert np.abs(values).max() <= np.sqrt(3 * VARIANCES[initializer])


def test_an_orthogonal_kernel_has_orthonormal_columns():
    values = kernel("orthogonal").astype(np.float64)
    np.testing.assert_allclose(values.T @ values, np.eye(OUT), atol=1e-5)


# --- what is left out in training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "blocks"), RESIDUAL.items())
def test_the_chance_to_skip_a_branch_grows_linearly(name, blocks):
    """Huang et al. 2016, section 3: rate * l / L at block l of L."""
    layers = build(name, Synthetic().spec, stochastic_depth=0.3).layers
    found = [layer.rate for layer in layers if isinstance(layer, StochasticDepth)]
    each = len(found) // blocks  # a transformer's block has two branches
    expected = [0.3 * (i + 1) / blocks for i in range(blocks) for _ in range(each)]
    assert sorted(found) == pytest.approx(expected)


@pytest.mark.parametrize("name", RESIDUAL)
def test_what_a_model_leaves_out_is_a_function_of_the_key(name):
    model, inputs = build(name, Synthetic().spec, stochastic_depth=0.5), images((8, 8, 1), 16)
    first, again, other = (trained_pass(model, inputs, step) for step in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@every_model
def test_a_list_of_the_wrong_length_is_refused(name):
    with pytest.raises(UserError, match=r"regularization\.dropout has 40 rates"):
        build(name, Synthetic().spec, dropout=(0.1,) * 40)


COUNTS = {"mlp": 2, "cnn": 1, "resnet20": 1, "wide_resnet": 1, "convnext_tiny": 1, "vit_tiny": 3, "vit_token": 2}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_a_list_has_a_rate_for_each_dense_layer_that_drops(name, count):
    rates = tuple(0.1 * (i + 1) for i in range(count))
    layers = build(name, Synthetic().spec, dropout=rates).layers
    assert sorted(layer.rate for layer in layers if getattr(layer, "rate", 0)) == pytest.approx(rates)


# --- vision transformer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_tiny", "vit_token"])
def test_without_positions_a_transformer_sees_a_set_of_patches(name):
    model = build(name, Synthetic(shape=(8, 12, 1)).spec)
    inputs = images((8, 12, 1))
    rows = inputs.reshape(3, 2, 4, 12, 1)[:, ::-1].reshape(inputs.shape)  # the two rows of patches swapped
    assert not np.allclose(model(inputs), model(rows), atol=1e-6)
    positions = model.get_layer("positions").position
    positions.assign(tf.zeros_like(positions))
    np.testing.assert_allclose(model(inputs), model(rows), atol=1e-5)


def test_heads_divide_the_width_and_stages_agree():
    with pytest.raises(ValueError, match="width=100 is no multiple of heads=3"):
        ViT(width=100)
    with pytest.raises(ValueError, match="widths has 2 stages and blocks has 4"):
        ConvNeXt(widths=(8, 16))

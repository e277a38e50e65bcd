"""Models of `keras.applications`: names, preprocessing, freezing, weights that cannot be had."""

from __future__ import annotations

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils
from pydantic import ValidationError

from descent import UserError, seeds
from descent.data import Synthetic
from descent.model import KerasApplication
from descent.model.keras_application import MODULES
from descent.model.layers import Preprocessing
from descent.regularization import Regularization


def build(name: str = "mobilenet", shape=(8, 8, 3), seed: int = 0, **settings) -> keras.Model:
    keras.backend.clear_session()
    part = KerasApplication(application=name, **{"weights": None, "size": 32, **settings})
    with seeds.initialization(seed):
        return part.build(Synthetic(shape=shape).spec, Regularization())


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


# --- names --------------------------------------------------------------------------------------------------------


def test_the_table_holds_every_application_of_this_keras():
    library = vars(keras.applications).items()
    makers = {n for n, value in library if callable(value) and "include_top" in inspect.signature(value).parameters}
    assert {name for names in MODULES.values() for name in names} == makers
    for module, names in MODULES.items():
        assert all(getattr(keras.applications, name).__module__.endswith(f".{module}") for name in names), module


@pytest.mark.parametrize("name", ["mobilenet_v2", "MobileNetV2", "mobilenetv2", "MOBILENET-V2"])
def test_a_name_may_be_written_in_any_way(name):
    assert KerasApplication(application=name).application == "MobileNetV2"


def test_an_unknown_name_is_answered_with_a_near_one():
    with pytest.raises(ValidationError, match=r"no such model in keras.applications; did you mean MobileNetV2\?"):
        KerasApplication(application="mobilnet_v2")
    with pytest.raises(ValidationError, match=r"choose one of ConvNeXtTiny, .*, Xception"):
        KerasApplication(application="qqq")


def test_names_are_checked_without_tensorflow():
    make = "import sys; from descent.model import KerasApplication; KerasApplication(application='vgg16'); "
    check = "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", make + check], check=False).returncode == 0


# --- preprocessing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_preprocessing_is_the_librarys_own_on_whole_bytes(module):
    """The reference is the library's NumPy form, which is separate code from the one for tensors."""
    raw = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(raw.copy())
    np.testing.assert_allclose(Preprocessing(module)(raw / 255), expected, rtol=1e-5, atol=2e-4)


def fed(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """What the backbone gets to see."""
    return keras.Model(model.input, model.get_layer("preprocess").output)(inputs).numpy()


def test_grey_images_are_repeated_to_three_colours():
    grey = images(2, 40, 36, 1)
    seen = fed(build("mobilenet", (40, 36, 1)), grey)
    np.testing.assert_allclose(seen, np.repeat(grey, 3, axis=-1) * 2 - 1, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "seen"), [((8, 8, 3), (32, 32, 3)), ((10, 20, 1), (32, 64, 3)), ((40, 33, 3), (40, 33, 3))]
)
def test_small_images_are_enlarged_in_proportion_and_large_ones_stay(shape, seen):
    assert fed(build("mobilenet", shape), images(2, *shape)).shape == (2, *seen)


def test_enlarging_keeps_an_even_image_even():
    np.testing.assert_allclose(fed(build(), np.full((1, 8, 8, 3), 0.25, np.float32)), -0.5, atol=1e-5)


# --- freezing -----------------------------------------------------------------------------------------------------


def test_a_frozen_backbone_leaves_only_the_head_to_train():
    free, frozen = build("mobilenet_v2"), build("mobilenet_v2", freeze=True)
    assert [v.path for v in frozen.trainable_variables] == ["head/kernel", "head/bias"]
    assert frozen.count_params() == free.count_params()
    assert len(free.trainable_variables) > 100


@pytest.mark.parametrize("name", ["mobilenet", "efficientnet_b0"])
def test_a_frozen_backbone_works_in_training_as_in_inference(name):
    """Norms keep their statistics, and the dropout inside some of the models is silent."""
    model, inputs = build(name, freeze=True), images(4, 8, 8, 3)
    before = [np.array(v) for v in model.variables]
    np.testing.assert_array_equal(model(inputs, training=True), model(inputs, training=False))
    assert all(np.array_equal(old, new) for old, new in zip(before, model.variables, strict=True))


# --- weights ------------------------------------------------------------------------------------------------------


def test_weights_come_from_a_file(tmp_path):
    path = tmp_path / "backbone.weights.h5"
    source = build(seed=1).get_layer("backbone")
    source.save_weights(path)
    loaded = build(weights=str(path)).get_layer("backbone")
    assert all(np.array_equal(a, b) for a, b in zip(source.get_weights(), loaded.get_weights(), strict=True))


def test_a_missing_or_wrong_file_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"model.weights=nowhere.h5: no such file"):
        build(weights="nowhere.h5")
    (tmp_path / "damaged.weights.h5").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"damaged.weights.h5: MobileNet cannot be had with them") as caught:
        build(weights=str(tmp_path / "damaged.weights.h5"))
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_an_error_of_one_line(monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://example.org: None -- unreachable")

    monkeypatch.setattr(file_utils, "get_file", fail)
    with pytest.raises(UserError, match=r"model.weights=imagenet: MobileNet .*URL fetch failure"):
        build(weights="imagenet")


def test_images_that_do_not_suit_are_refused():
    with pytest.raises(UserError, match="1 or 3 channels, and these have 2"):
        build(shape=(8, 8, 2))
    with pytest.raises(UserError, match=r"InceptionV3 cannot be made for images of 32x32: .*at least 75x75"):
        build("inception_v3")

"""Laws that every augmentation of single samples keeps, whatever it does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from descent import UserError, compose, seeds
from descent.augmentation import Chain, Cutout, FlipCrop, NoMixing, Standard
from descent.data.pipeline import Pipeline
from descent.types import SampleAugmentation, Spec
from test_conf import FOR_IMAGES

SHAPES = [(9, 6, 3), (5, 8, 1), (1, 7, 3), (2, 2, 1)]
every_option = pytest.mark.parametrize("option", sorted({"none", *FOR_IMAGES["augmentation/sample"]}))
every_shape = pytest.mark.parametrize("shape", SHAPES)


def spec(shape: tuple[int, ...], top: int = 255) -> Spec:
    mean = (0.3,) * shape[-1]
    return Spec(kind="image", shape=shape, sizes={"train": 40}, num_classes=2, scale=1 / top, mean=mean)


@cache
def composed(option: str) -> SampleAugmentation:
    return compose(f"augmentation/sample={option}").augmentation.sample


def part(option: str, shape: tuple[int, ...], top: int = 255) -> SampleAugmentation:
    return composed(option).resolved(spec(shape, top))


def images(shape: tuple[int, ...], count: int = 6, top: int = 255) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, top + 1, (count, *shape), np.uint8))


def key(step: int, seed: int = 0) -> tf.Tensor:
    return seeds.key(seeds.stream(seed, "augment"), tf.constant(step))


def augmented(option: str, x: tf.Tensor, step: int = 0, seed: int = 0, top: int = 255) -> np.ndarray:
    augmentation = part(option, tuple(x.shape[1:]), top)
    return augmentation.apply(augmentation.draw(key(step, seed), x.shape.as_list()), x).numpy()


@every_option
@every_shape
@pytest.mark.parametrize("top", [255, 16])
def test_shape_type_and_range_are_kept(option, shape, top):
    x = images(shape, top=top)
    for step in range(4):
        after = augmented(option, x, step, top=top)
        assert (after.shape, after.dtype) == (x.shape, np.uint8)
        assert after.max() <= top


@every_option
def test_real_pixels_stay_real_and_within_zero_and_one(option):
    x = tf.cast(images((9, 6, 3)), tf.float32) / 255
    after = augmented(option, x, top=1)
    assert after.dtype == np.float32
    assert after.min() >= 0
    assert after.max() <= 1


@every_option
@pytest.mark.parametrize("count", [1, 7])
def test_any_batch_size_will_do(option, count):
    assert augmented(option, images((9, 6, 3), count)).shape == (count, 9, 6, 3)


@every_option
def test_a_step_gives_the_same_again_and_another_step_or_seed_something_else(option):
    x = images((9, 6, 3), 16)
    first = augmented(option, x, 3)
    assert np.array_equal(first, augmented(option, x, 3))
    for other in (augmented(option, x, 4), augmented(option, x, 3, seed=1)):
        assert np.array_equal(first, other) == (option == "none")


@every_option
@every_shape
def test_an_image_does_not_depend_on_its_neighbours(option, shape):
    augmentation, x = part(option, shape), images(shape)
    plan = augmentation.draw(key(1), x.shape.as_list())
    alone = [
        augmentation.apply(tf.nest.map_structure(lambda t, i=i: t[i : i + 1], plan), x[i : i + 1])[0] for i in range(6)
    ]
    assert np.array_equal(augmentation.apply(plan, x), alone)


class Open:
    """An open source of fixed images."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inputs = images(shape, 40)

    def gather(self, split: str, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(self.inputs, indices), tf.zeros_like(indices, tf.int32)


def pipeline(option: str, shape: tuple[int, ...], chunk: int) -> Pipeline:
    return Pipeline(
        source=Open(shape), spec=spec(shape), sample=part(option, shape), mixing=NoMixing(), batch_size=5,
        samples=40, steps=8, chunk=chunk, seed=0,
    )  # fmt: skip


@every_option
def test_the_pipeline_makes_the_same_batches_one_or_four_steps_at_a_time(option):
    """Inside the graph of tf.data as well as eagerly: nothing is frozen when it is traced."""
    singly, by_fours = (
        np.concatenate([chunk.inputs for chunk in pipeline(option, (9, 6, 3), k).training(0).as_numpy_iterator()])
        for k in (1, 4)
    )
    assert np.array_equal(singly, by_fours)


def test_a_chain_does_its_parts_in_order_each_by_its_own_draw():
    first, second = FlipCrop(shift=2, flip=True), Cutout(value=0.5)
    chain, x = Chain(parts={"first": first, "second": second}), images((9, 6, 3))
    plan = chain.draw(key(0), x.shape.as_list())
    expected = second.apply(plan["second"], first.apply(plan["first"], x))
    assert np.array_equal(chain.apply(plan, x), expected)


def test_twins_in_a_chain_are_drawn_independently():
    plan = Chain(parts={"a": FlipCrop(), "b": FlipCrop()}).draw(key(0), [64, 9, 6, 3])
    assert not np.array_equal(plan["a"]["shift"], plan["b"]["shift"])


def test_a_chain_leaves_out_what_is_null_and_an_empty_one_is_the_identity():
    x = images((9, 6, 3))
    assert list(Chain(parts={"a": None, "b": FlipCrop()}).parts) == ["b"]
    empty = Chain(parts={"a": None}).resolved(spec((9, 6, 3)))
    assert np.array_equal(empty.apply(empty.draw(key(0), x.shape.as_list()), x), x)


def test_a_chain_lets_every_part_ask_the_data():
    chain = Chain(parts={"a": Standard(), "b": Cutout()}).resolved(spec((9, 6, 1), top=16))
    assert (chain.parts["a"].flip, chain.parts["a"].largest) == (True, 16)
    assert (chain.parts["b"].value, chain.parts["b"].largest) == ((0.3,), 16)


def test_strong_loses_a_part_that_is_set_to_null():
    chain = compose("augmentation=strong", "augmentation.sample.parts.erasing=null").augmentation.sample
    assert list(chain.parts) == ["standard", "trivial_augment"]


BAD = {
    "standard augmentation.sample.rotation=181": "augmentation.sample.rotation=181: should be at most 180",
    "standard augmentation.sample.largest=white": "augmentation.sample.largest=white: "
    "should be a number above 0, or auto",
    "cutout augmentation.sample.value=2": "augmentation.sample.value=2: "
    "should be a number from 0 (black) to 1 (white), or mean",
    "random_erasing augmentation.sample.area=[0.4,0.1]": "augmentation.sample: area=[0.4, 0.1] "
    "should be the smaller share, then the larger, at most 1",
    "random_erasing augmentation.sample.aspect=[3.0,1.0]": "augmentation.sample: aspect=[3.0, 1.0] "
    "should be the smaller ratio, then the larger",
    "randaugment augmentation.sample.magnitude=31": "augmentation.sample.magnitude=31: should be at most 30",
    "randaugment augmentation.sample.operations=[]": "augmentation.sample.operations=[]: "
    "should name at least one operation",
    "randaugment augmentation.sample.operations=[spin]": "augmentation.sample.operations[0]=spin: should be "
    "'identity', 'rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'brightness', 'contrast', "
    "'saturation', 'sharpness', 'posterize', 'solarize', 'autocontrast' or 'equalize'",
}


@pytest.mark.parametrize("words", BAD)
def test_a_wrong_number_is_one_line(words):
    with pytest.raises(UserError) as caught:
        compose(*f"augmentation/sample={words}".split())
    assert str(caught.value) == BAD[words]

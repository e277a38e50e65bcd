"""Random erasing and cutout: boxes of the right size and place, and nothing else touched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from descent import seeds
from descent.augmentation import Cutout, RandomErasing
from descent.types import Spec

SHAPES = [(28, 28, 1), (32, 20, 3), (8, 8, 1)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def boxes(part: RandomErasing | Cutout, shape: tuple[int, ...], count: int = 4000, step: int = 0) -> np.ndarray:
    drawn = part.draw(seeds.key(seeds.stream(0, "augment"), tf.constant(step)), [count, *shape])
    return drawn["box"].numpy().astype(int)


def sides(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]


def images(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, *shape), np.uint8)


def plan(box: tuple[int, ...], count: int = 4, **more: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"box": tf.constant([box] * count, tf.int32), **more}


@every_shape
@pytest.mark.parametrize("part", [RandomErasing(probability=1.0, fill="constant"), Cutout(value=0.0)])
def test_boxes_lie_inside_the_image(part, shape):
    top, bottom, left, right = boxes(part, shape).T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top <= bottom).all()
    assert (left <= right).all()
    assert bottom.max() <= shape[0]
    assert right.max() <= shape[1]


@every_shape
def test_the_erased_area_is_within_its_range_to_half_a_column(shape):
    """The width is rounded to whole pixels, after the height: the area is off by at most half a pixel a row."""
    tall, wide = sides(boxes(RandomErasing(probability=1.0, area=(0.05, 0.3), fill="constant"), shape))
    pixels, area = shape[0] * shape[1], tall * wide
    assert (area >= 0.05 * pixels - tall / 2).all()
    assert (area <= np.maximum(0.3 * pixels + tall / 2, 1)).all()


def test_the_area_is_uniform_and_the_aspect_log_uniform():
    """A square in the middle of both ranges always fits, so nothing is drawn again."""
    part, pixels = RandomErasing(probability=1.0, area=(0.02, 0.2), aspect=(0.4, 2.5), fill="constant"), 1000
    tall, wide = sides(boxes(part, (pixels, pixels, 1)))
    area = stats.uniform(0.02, 0.18)
    assert stats.kstest(tall * wide / pixels**2, area.cdf).pvalue > 1e-3
    ratio = stats.loguniform(0.4, 2.5)
    assert stats.kstest(tall / wide, ratio.cdf).pvalue > 1e-3


def test_boxes_are_placed_uniformly_among_the_places_that_fit():
    top, bottom, *_ = boxes(RandomErasing(probability=1.0, fill="constant"), (28, 28, 1), 20_000).T
    free = 28 - (bottom - top) + 1
    assert top.min() == 0
    assert (top == free - 1).any()
    share = (top + 0.5) / free
    assert abs(share.mean() - 0.5) <= 4 / math.sqrt(12 * 20_000)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_as_many_images_are_erased_as_said(probability):
    tall, wide = sides(boxes(RandomErasing(probability=probability, fill="constant"), (28, 28, 1)))
    spread = math.sqrt(4000 * probability * (1 - probability))
    assert abs(np.count_nonzero(tall * wide) - 4000 * probability) <= 4 * spread


def test_a_box_that_can_never_fit_erases_nothing():
    part = RandomErasing(probability=1.0, area=(0.9, 0.9), aspect=(3.0, 3.0), fill="constant")
    assert not boxes(part, (28, 28, 1)).any()


@every_shape
@pytest.mark.parametrize("size", [0.0, 0.25, 0.5, 1.0])
def test_cutout_is_never_larger_than_its_square_and_cut_only_at_the_border(shape, size):
    box, side = boxes(Cutout(size=size, value=0.0), shape), round(size * min(shape[:2]))
    for low, high, limit in ((box[:, 0], box[:, 1], shape[0]), (box[:, 2], box[:, 3], shape[1])):
        length = high - low
        assert length.max() <= side
        assert (length[(low > 0) & (high < limit)] == side).all()
        assert length.max() == side or side == limit


def test_the_middle_of_cutout_is_uniform_over_the_pixels():
    """Averaged over images, a pixel is erased as often as the squares about all the pixels cover it."""
    height, width, side, count = 8, 10, 4, 20_000
    box = boxes(Cutout(size=0.5, value=0.0), (height, width, 1), count)

    def covered(low: np.ndarray, high: np.ndarray, size: int) -> np.ndarray:
        return np.array([np.mean((low <= i) & (i < high)) for i in range(size)])

    for low, high, size in ((box[:, 0], box[:, 1], height), (box[:, 2], box[:, 3], width)):
        starts = np.arange(size) - side // 2
        expected = np.array([np.mean((starts <= i) & (i < starts + side)) for i in range(size)])
        spread = np.sqrt(expected * (1 - expected) / count)
        assert (np.abs(covered(low, high, size) - expected) <= 4 * spread + 1e-12).all()


@every_shape
def test_only_the_box_is_overwritten(shape):
    x, box = images(shape), (1, 5, 2, 7)
    noise = tf.constant(np.random.default_rng(1).random(x.shape, np.float32))
    expected = {"constant": x.copy(), "noise": x.copy()}
    expected["constant"][:, 1:5, 2:7] = 51
    expected["noise"][:, 1:5, 2:7] = np.round(noise.numpy()[:, 1:5, 2:7] * 255)
    constant = RandomErasing(fill="constant", value=0.2).apply(plan(box), tf.constant(x))
    assert np.array_equal(constant, expected["constant"])
    assert np.array_equal(RandomErasing().apply(plan(box, noise=noise), tf.constant(x)), expected["noise"])
    assert np.array_equal(Cutout(value=0.2).apply(plan(box), tf.constant(x)), expected["constant"])


def test_an_empty_box_changes_no_bit():
    x = images((9, 6, 3))
    assert np.array_equal(Cutout(value=1.0).apply(plan((0, 0, 0, 0)), tf.constant(x)), x)


def test_noise_differs_between_pixels_channels_and_images_and_fills_the_range():
    part, shape = RandomErasing(largest=16), [64, 8, 8, 3]
    noise = part.draw(seeds.key(0, tf.constant(0)), shape)["noise"].numpy()
    assert noise.shape == tuple(shape)
    assert stats.kstest(noise.ravel(), stats.uniform.cdf).pvalue > 1e-3
    whole = part.apply(plan((0, 8, 0, 8), 64, noise=tf.constant(noise)), tf.zeros(shape, tf.uint8)).numpy()
    assert (whole.min(), whole.max()) == (0, 16)


def test_the_mean_of_the_data_is_taken_for_each_channel():
    spec = Spec(kind="image", shape=(9, 6, 3), sizes={}, num_classes=2, scale=1 / 255, mean=(0.2, 0.4, 0.6))
    part = Cutout(value="mean").resolved(spec)
    after = part.apply(plan((0, 9, 0, 6)), tf.constant(images((9, 6, 3)))).numpy()
    assert np.unique(after.reshape(-1, 3), axis=0).tolist() == [[51, 102, 153]]


def test_the_mean_is_not_known_before_the_data():
    with pytest.raises(ValueError, match="resolved"):
        Cutout().apply(plan((0, 0, 0, 0)), tf.constant(images((9, 6, 3))))

"""Flips and shifts: exact on hand-made plans, uniform and independent when drawn."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from descent import seeds
from descent.augmentation.image import FlipCrop, NoSampleAugmentation
from descent.types import Spec

SHAPES = [(7, 12, 3), (5, 5, 1), (9, 4, 1), (2, 3, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def images(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    """Without a zero pixel, so that what was filled in shows."""
    return np.random.default_rng(0).integers(1, 256, (count, *shape), np.uint8)


def plan(flips: list[bool], shifts: list[tuple[int, int]]) -> dict[str, tf.Tensor]:
    return {"flip": tf.constant(flips), "shift": tf.constant(shifts, tf.int32)}


def moved(image: np.ndarray, flip: bool, rows: int, columns: int) -> np.ndarray:
    """The window of the image that is `rows` down and `columns` to the right, zero outside; then mirrored."""
    window = np.zeros_like(image)
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            if 0 <= y + rows < height and 0 <= x + columns < width:
                window[y, x] = image[y + rows, x + columns]
    return window[:, ::-1] if flip else window


def draws(part: FlipCrop, count: int, step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    key = seeds.key(seeds.stream(0, "augment"), tf.constant(step))
    drawn = part.draw(key, [count, 8, 8, 1])
    return drawn["flip"].numpy(), drawn["shift"].numpy()


def spec(mirrors: bool) -> Spec:
    return Spec(kind="image", shape=(8, 8, 1), sizes={"train": 1}, num_classes=2, mirrors=mirrors)


@every_shape
@pytest.mark.parametrize("shift", [0, 3])
def test_no_shift_and_no_flip_is_the_identity(shape, shift):
    x = images(shape)
    after = FlipCrop(shift=shift, flip=True).apply(plan([False] * 4, [(0, 0)] * 4), tf.constant(x)).numpy()
    assert after.dtype == np.uint8
    assert np.array_equal(after, x)


@every_shape
def test_a_plan_moves_each_image_by_its_own_shift_with_zeros_outside(shape):
    flips, shifts = [False, True, False, True], [(1, 0), (0, -2), (-2, 1), (2, 2)]
    after = FlipCrop(shift=2, flip=True).apply(plan(flips, shifts), tf.constant(images(shape))).numpy()
    expected = [moved(x, flip, *s) for x, flip, s in zip(images(shape), flips, shifts, strict=True)]
    assert np.array_equal(after, expected)


def test_a_shift_by_one_row_takes_the_next_row_and_fills_the_last_with_zeros():
    x = images((4, 6, 3), count=1)
    after = FlipCrop(shift=1).apply(plan([False], [(1, 0)]), tf.constant(x)).numpy()
    assert np.array_equal(after[:, :-1], x[:, 1:])
    assert not after[:, -1].any()


def test_a_flip_mirrors_left_and_right_only_and_twice_is_the_identity():
    x, part = images((4, 6, 3), count=1), FlipCrop(shift=1, flip=True)
    once = part.apply(plan([True], [(0, 0)]), tf.constant(x))
    assert np.array_equal(once, x[:, :, ::-1])
    assert np.array_equal(part.apply(plan([True], [(0, 0)]), once), x)


@pytest.mark.parametrize("mirrors", [True, False])
def test_auto_flips_only_where_a_mirror_image_keeps_its_label(mirrors):
    part = FlipCrop(flip="auto").resolved(spec(mirrors))
    assert part.flip is mirrors
    assert draws(part, 400)[0].any() == mirrors


@pytest.mark.parametrize("flip", [True, False])
def test_a_given_flip_is_kept_whatever_the_data_says(flip):
    assert FlipCrop(flip=flip).resolved(spec(not flip)).flip is flip


@pytest.mark.parametrize("shift", [0, 1, 2, 5])
def test_shifts_reach_both_ends_of_their_range_and_no_further(shift):
    _, shifts = draws(FlipCrop(shift=shift), 2000)
    assert shifts.min(axis=0).tolist() == [-shift] * 2
    assert shifts.max(axis=0).tolist() == [shift] * 2


@pytest.mark.parametrize("axis", [0, 1])
def test_shifts_are_uniform(axis):
    _, shifts = draws(FlipCrop(shift=3), 14_000)
    assert stats.chisquare(np.bincount(shifts[:, axis] + 3, minlength=7)).pvalue > 1e-3


def test_half_of_the_images_are_flipped():
    flips, _ = draws(FlipCrop(flip=True), 10_000)
    assert abs(flips.sum() - 5000) <= 4 * np.sqrt(10_000 / 4)


def independent(left: np.ndarray, right: np.ndarray) -> bool:
    return stats.chi2_contingency(stats.contingency.crosstab(left, right).count).pvalue > 1e-3


def test_rows_columns_and_flips_are_drawn_independently():
    flips, shifts = draws(FlipCrop(shift=2, flip=True), 20_000)
    assert independent(shifts[:, 0], shifts[:, 1])
    assert independent(shifts[:, 0], flips)
    assert independent(shifts[:, 1], flips)


def test_samples_of_a_batch_are_drawn_independently():
    flips, shifts = draws(FlipCrop(shift=2, flip=True), 20_000)
    assert independent(flips[:-1], flips[1:])
    assert independent(shifts[:-1, 0], shifts[1:, 0])
    # A mixed pair is a sample and its mirror in the batch.
    assert independent(shifts[:10_000, 1], shifts[::-1][:10_000, 1])


def test_steps_are_drawn_independently_and_the_same_step_again_is_the_same():
    part = FlipCrop(shift=2, flip=True)
    first, second, again = (draws(part, 20_000, step)[1][:, 0] for step in (0, 1, 0))
    assert independent(first, second)
    assert np.array_equal(first, again)


def test_an_image_does_not_depend_on_its_neighbours():
    part, x = FlipCrop(shift=2, flip=True), images((6, 5, 3))
    shifts, flips = [(1, -2), (0, 2), (-1, 0), (2, 1)], [True, False, True, False]
    together = part.apply(plan(flips, shifts), tf.constant(x)).numpy()
    alone = [part.apply(plan(flips[i : i + 1], shifts[i : i + 1]), tf.constant(x[i : i + 1]))[0] for i in range(4)]
    assert np.array_equal(together, alone)


def test_no_augmentation_is_the_identity():
    part, x = NoSampleAugmentation(), images((6, 5, 3))
    assert part.resolved(spec(True)) == part
    assert np.array_equal(part.apply(part.draw(tf.constant([0, 0]), x.shape), tf.constant(x)), x)

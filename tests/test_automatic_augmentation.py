"""RandAugment and TrivialAugment: each operation against Pillow or by hand, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from descent import seeds
from descent.augmentation import RandAugment, TrivialAugment, color
from descent.augmentation.automatic import OPERATIONS

WITH_MAGNITUDE = [name for name in OPERATIONS if name not in ("identity", "autocontrast", "equalize")]
SHAPES = [(9, 6, 3), (7, 12, 1)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def images(shape: tuple[int, ...], count: int = 3, low: int = 0, high: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high + 1, (count, *shape), np.uint8)


def changed(x: np.ndarray, name: str, magnitude: float, part: RandAugment | TrivialAugment | None = None) -> np.ndarray:
    """`x` after one round in which every image gets the operation `name`."""
    plan = {
        "operation": tf.fill([len(x), 1], OPERATIONS.index(name)),
        "magnitude": tf.fill([len(x), 1], np.float32(magnitude)),
    }
    return (part or RandAugment()).apply(plan, tf.constant(x)).numpy()


def draws(part: RandAugment | TrivialAugment, count: int = 20_000, step: int = 0) -> dict[str, np.ndarray]:
    drawn = part.draw(seeds.key(seeds.stream(0, "augment"), tf.constant(step)), [count, 8, 8, 1])
    return {name: value.numpy() for name, value in drawn.items()}


def pillow(x: np.ndarray, change: object) -> np.ndarray:
    pictures = [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in x]
    return np.stack([np.asarray(change(picture)).reshape(x.shape[1:]) for picture in pictures])


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return np.abs(a.astype(int) - b.astype(int)).max()


@every_shape
@pytest.mark.parametrize("name", WITH_MAGNITUDE)
@pytest.mark.parametrize("part", [RandAugment(), TrivialAugment()])
def test_no_magnitude_changes_no_bit(name, shape, part):
    assert np.array_equal(changed(images(shape), name, 0.0, part), images(shape))
    real = (images(shape) / 255).astype(np.float32)
    assert np.array_equal(changed(real, name, 0.0, part), real)


ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@every_shape
@pytest.mark.parametrize("name", ENHANCE)
@pytest.mark.parametrize("magnitude", [-1.0, -0.4, 0.5, 1.0])
def test_blends_are_pillows_but_for_its_cutting_off_of_fractions(name, magnitude, shape):
    """Pillow cuts the image that it blends away from and the result to whole numbers: together less than 3 levels."""
    expected = pillow(images(shape), lambda picture: ENHANCE[name](picture).enhance(1 + 0.9 * magnitude))
    assert apart(changed(images(shape), name, magnitude), expected) <= 2


@every_shape
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_posterize_is_pillows(bits, sign, shape):
    expected = pillow(images(shape), lambda picture: ImageOps.posterize(picture, 8 - bits))
    assert np.array_equal(changed(images(shape), "posterize", sign * bits / 4), expected)


@every_shape
@pytest.mark.parametrize("magnitude", [0.25, 0.5, 1.0])
def test_solarize_is_pillows(magnitude, shape):
    expected = pillow(images(shape), lambda picture: ImageOps.solarize(picture, int(256 * (1 - magnitude))))
    assert np.array_equal(changed(images(shape), "solarize", magnitude), expected)


@every_shape
def test_autocontrast_is_pillows(shape):
    x = images(shape, low=60, high=180)
    after = changed(x, "autocontrast", 0.3)
    assert apart(after, pillow(x, ImageOps.autocontrast)) <= 1  # Pillow cuts off
    assert (after.min(axis=(1, 2)) == 0).all()
    assert (after.max(axis=(1, 2)) == 255).all()


@every_shape
@pytest.mark.parametrize("top", [255, 16])
def test_equalize_is_the_formula_written_out(shape, top):
    x = images(shape, low=top // 4, high=top // 2)
    expected, pixels = x.astype(float), shape[0] * shape[1]
    for image in expected:
        for channel in range(shape[-1]):
            values = image[..., channel].copy()
            first = np.sum(values <= values.min())
            ranks = np.array([np.sum(values <= v) for v in values.ravel()]).reshape(values.shape)
            image[..., channel] = top * (ranks - first) / (pixels - first)
    after = changed(x, "equalize", 0.0, RandAugment(largest=top))
    assert np.abs(after - expected).max() <= 0.5 + 1e-3


def test_equalize_makes_the_histogram_of_many_values_flat():
    x = (255 * np.random.default_rng(0).random((1, 64, 64, 1)) ** 3).astype(np.uint8)
    after = changed(x, "equalize", 0.0)
    assert stats.kstest(x.ravel() / 255, stats.uniform.cdf).statistic > 0.3
    # One value of the original cannot be spread: the distance is at most the largest share of one.
    share = np.bincount(x.ravel()).max() / x.size
    assert stats.kstest(after.ravel() / 255, stats.uniform.cdf).statistic <= share + 1 / 255


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_a_flat_image_is_kept(name):
    flat = np.full((2, 5, 6, 3), 77, np.uint8)
    assert np.array_equal(changed(flat, name, 1.0), flat)


def test_moves_are_those_their_names_say():
    x = images((9, 9, 1), low=1)
    quarter = RandAugment().ranges.rotate
    assert quarter == 30
    turned = changed(x, "rotate", 90 / 135, TrivialAugment())
    assert np.array_equal(turned, np.rot90(x, 1, axes=(1, 2)))
    slid = changed(x, "shear_x", 1 / 0.99, TrivialAugment())
    assert np.array_equal(slid[:, 8, 4:], x[:, 8, :5])
    assert np.array_equal(slid[:, 4], x[:, 4])


@pytest.mark.parametrize(("name", "axis"), [("translate_y", 1), ("translate_x", 2)])
def test_shifts_are_shares_of_the_size(name, axis):
    x = images((10, 20, 3), low=1)
    whole = 331 / 150 * 0.3  # 0.3 of the size: 3 rows or 6 columns
    rows = 3 if axis == 1 else 6
    after = changed(x, name, whole)
    assert np.array_equal(np.moveaxis(after, axis, 0)[rows:], np.moveaxis(x, axis, 0)[:-rows])
    assert not np.moveaxis(after, axis, 0)[:rows].any()


@pytest.mark.parametrize("part", [RandAugment(), TrivialAugment()])
def test_each_image_gets_its_own_operation(part):
    x = images((9, 6, 3), len(OPERATIONS))
    plan = {"operation": tf.range(len(OPERATIONS))[:, None], "magnitude": tf.fill([len(OPERATIONS), 1], 0.6)}
    together = part.apply(plan, tf.constant(x)).numpy()
    for i, name in enumerate(OPERATIONS):
        assert np.array_equal(together[i], changed(x[i : i + 1], name, 0.6, part)[0]), name
        assert np.array_equal(together[i], x[i]) == (name == "identity")


@every_shape
def test_rounds_are_made_one_after_another(shape):
    part = RandAugment(largest=255)
    plan = {"operation": tf.constant([[OPERATIONS.index("posterize"), OPERATIONS.index("translate_y")]] * 3)}
    plan["magnitude"] = tf.constant([[1.0, 0.5]] * 3)
    both = part.apply(plan, tf.constant(images(shape)))
    assert np.array_equal(both, changed(changed(images(shape), "posterize", 1.0), "translate_y", 0.5))


def test_operations_without_an_effect_on_grey_leave_it_alone():
    assert np.array_equal(changed(images((9, 6, 1)), "saturation", 1.0), images((9, 6, 1)))


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("saturation", "contrast")])
def test_grey_in_three_channels_is_the_grey_image_three_times(name):
    grey = images((9, 7, 1))
    in_colour = changed(np.repeat(grey, 3, axis=-1), name, 0.7)
    assert apart(in_colour, np.repeat(changed(grey, name, 0.7), 3, axis=-1)) == 0


@pytest.mark.parametrize("rounds", [1, 3])
def test_randaugment_draws_rounds_of_one_magnitude_either_way(rounds):
    drawn = draws(RandAugment(rounds=rounds, magnitude=12.0))
    assert drawn["operation"].shape == drawn["magnitude"].shape == (20_000, rounds)
    np.testing.assert_allclose(np.abs(drawn["magnitude"]), 0.4, rtol=1e-6)
    assert np.abs(drawn["magnitude"].mean(axis=0)).max() <= 4 * 0.4 / np.sqrt(20_000)


@pytest.mark.parametrize("part", [RandAugment(), TrivialAugment()])
def test_operations_are_equally_likely(part):
    counts = np.bincount(draws(part)["operation"][:, 0], minlength=len(OPERATIONS))
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("cls", [RandAugment, TrivialAugment])
def test_only_the_operations_that_are_named_are_drawn(cls):
    part = cls(operations=["rotate", "equalize"])
    assert {OPERATIONS[i] for i in np.unique(draws(part)["operation"])} == {"rotate", "equalize"}


def test_the_rounds_of_an_image_are_independent():
    operation = draws(RandAugment())["operation"]
    table = stats.contingency.crosstab(operation[:, 0], operation[:, 1]).count
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_trivial_augment_draws_every_level_from_none_to_full_equally_and_either_way():
    magnitude = draws(TrivialAugment())["magnitude"][:, 0]
    levels = np.abs(magnitude) * 30
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)
    assert stats.chisquare(np.bincount(np.round(levels).astype(int), minlength=31)).pvalue > 1e-3
    assert abs(magnitude.mean()) <= 4 * magnitude.std() / np.sqrt(20_000)


def test_smoothing_keeps_the_border_and_small_images():
    x = tf.cast(images((9, 6, 3)), tf.float32)
    smoothed = color.smoothed(x).numpy()
    assert np.array_equal(smoothed[:, [0, -1]], x.numpy()[:, [0, -1]])
    assert np.array_equal(smoothed[:, :, [0, -1]], x.numpy()[:, :, [0, -1]])
    assert np.array_equal(color.smoothed(x[:, :2]), x[:, :2])

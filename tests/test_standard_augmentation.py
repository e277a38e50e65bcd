"""Moves and colours: exact where it can be worked out by hand, one interpolation, and draws of the right moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from descent import seeds
from descent.augmentation import Standard, geometry
from descent.types import Spec

SHAPES = [(7, 12, 3), (8, 8, 1), (5, 4, 1), (1, 3, 3)]
FILLS = {"constant": "constant", "reflect": "symmetric", "nearest": "edge", "wrap": "wrap"}
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_fill = pytest.mark.parametrize("fill", FILLS)


def images(shape: tuple[int, ...], count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, *shape), np.uint8)


def moved(x: np.ndarray, *, part: Standard | None = None, **plan: object) -> np.ndarray:
    """`x` after a plan that is the same for every image."""
    given = {name: tf.constant(np.repeat([value], len(x), axis=0)) for name, value in plan.items()}
    given = {name: value if value.dtype == tf.bool else tf.cast(value, tf.float32) for name, value in given.items()}
    return (part or Standard()).apply(given, tf.constant(x)).numpy()


def draws(part: Standard, count: int = 20_000, step: int = 0) -> dict[str, np.ndarray]:
    drawn = part.draw(seeds.key(seeds.stream(0, "augment"), tf.constant(step)), [count, 10, 20, 3])
    return {name: value.numpy() for name, value in drawn.items()}


NOTHING = {
    "flip": False, "zoom": 0.0, "rotation": 0.0, "shear": [0.0, 0.0], "translation": [0.0, 0.0],
    "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0,
}  # fmt: skip


@every_shape
@every_fill
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_amounts_of_zero_change_no_bit(shape, fill, interpolation):
    part = Standard(fill_mode=fill, interpolation=interpolation, fill_value=0.5)
    assert np.array_equal(moved(images(shape), part=part, **NOTHING), images(shape))
    real = (images(shape) / 255).astype(np.float32)
    assert np.array_equal(moved(real, part=part, **NOTHING), real)


def test_with_everything_off_nothing_is_drawn():
    off = Standard(flip=False, **{name: 0.0 for name in NOTHING if name != "flip"})
    assert draws(off) == {}


@every_shape
def test_a_flip_mirrors_left_and_right(shape):
    assert np.array_equal(moved(images(shape), flip=True), images(shape)[:, :, ::-1])


@pytest.mark.parametrize("size", [1, 4, 7, 8])
@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_of_a_square_are_counterclockwise_and_exact(size, turns):
    x = images((size, size, 3))
    assert np.array_equal(moved(x, rotation=turns * math.pi / 2), np.rot90(x, turns, axes=(1, 2)))


@every_shape
def test_half_a_turn_is_exact_for_any_shape(shape):
    assert np.array_equal(moved(images(shape), rotation=math.pi), images(shape)[:, ::-1, ::-1])


@every_fill
@every_shape
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_a_warp_takes_what_scipy_finds_at_the_same_places(shape, fill, interpolation):
    x, modes = images(shape).astype(np.float32), {"constant": "grid-constant", "wrap": "grid-wrap"}
    shifts = [[1.2, -0.4], [3.3, 9.1], [-8, 0.6]]
    plan = {"rotation": [0.5, -2.0, 0.0], "zoom": [0.3, -1.0, -0.7], "translation": shifts}
    matrix = geometry.composed({name: tf.constant(value, tf.float32) for name, value in plan.items()})
    moved = geometry.warp(tf.constant(x), matrix, interpolation=interpolation, fill_mode=fill, fill=99.0).numpy()
    middle = np.array([shape[1] - 1, shape[0] - 1, 0])[:, None, None] / 2
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    places = np.stack([columns, rows, np.ones_like(rows)]) - middle
    for image, after, backwards in zip(x, moved, matrix.numpy().astype(np.float64), strict=True):
        column, row, _ = np.einsum("ij,jhw->ihw", backwards, places) + middle
        for channel in range(shape[2]):
            expected = ndimage.map_coordinates(
                image[..., channel], [row, column], order=int(interpolation == "bilinear"), cval=99.0,
                mode=modes.get(fill, fill), prefilter=False,
            )  # fmt: skip
            np.testing.assert_allclose(after[..., channel], expected, atol=5e-3)


def test_in_a_graph_the_same_comes_out_of_one_compiled_loop():
    x = tf.constant(images((9, 12, 3), 16))
    part = Standard(flip=True, fill_mode="reflect")
    plan = part.draw(tf.constant([1, 2], tf.int64), x.shape)
    compiled = tf.function(part.apply, autograph=False)
    assert np.abs(compiled(plan, x).numpy().astype(int) - part.apply(plan, x).numpy()).max() <= 1
    (call,) = [op for op in compiled.get_concrete_function(plan, x).graph.get_operations() if "Call" in op.type]
    assert call.get_attr("_XlaMustCompile")


@every_fill
@pytest.mark.parametrize("shift", [(1, 0), (-2, 3), (0, -4), (4, 4)])
def test_whole_shifts_go_down_and_right_and_are_filled_as_said(fill, shift):
    x = images((7, 12, 3))
    padded = np.pad(x, [(0, 0), (4, 4), (4, 4), (0, 0)], mode=FILLS[fill])
    expected = padded[:, 4 - shift[0] : 11 - shift[0], 4 - shift[1] : 16 - shift[1]]
    assert np.array_equal(moved(x, part=Standard(fill_mode=fill), translation=shift), expected)


@pytest.mark.parametrize("largest", [255, 16])
def test_what_comes_in_is_a_share_of_the_largest_value(largest):
    part = Standard(fill_value=0.5, largest=largest)
    assert (moved(images((5, 5, 1)) % 17, part=part, translation=[5, 0]) == round(largest / 2)).all()


def test_a_shear_of_one_slides_each_row_by_its_distance_from_the_middle():
    x = images((5, 9, 1))
    after = moved(x, shear=[1.0, 0.0])
    for row in range(5):
        slide = row - 2
        expected = np.zeros_like(x[:, row])
        expected[:, max(0, slide) : 9 + min(0, slide)] = x[:, row, max(0, -slide) : 9 - max(0, slide)]
        assert np.array_equal(after[:, row], expected)


def test_a_shear_along_y_is_one_along_x_of_the_transposed_image():
    x = images((7, 7, 1))
    along_y = moved(x, shear=[0.0, 1.0])
    assert np.array_equal(along_y, moved(x.transpose(0, 2, 1, 3), shear=[1.0, 0.0]).transpose(0, 2, 1, 3))


def test_a_zoom_by_two_keeps_the_middle_and_doubles_distances_from_it():
    x = images((9, 9, 3))
    after = moved(x, zoom=math.log(2))
    assert np.array_equal(after[:, ::2, ::2], x[:, 2:7, 2:7])
    shrunk = moved(x, zoom=-math.log(2))
    assert np.array_equal(shrunk[:, 2:7, 2:7], x[:, ::2, ::2])


def test_half_a_pixel_is_the_mean_of_two_and_rounded_not_cut_off():
    x = np.full((1, 3, 6, 1), 10, np.uint8) + np.arange(6, dtype=np.uint8)[:, None] * 3
    after = moved(x, translation=[0.0, 0.5])[0, 0, :, 0]
    assert after[1:].tolist() == np.round(np.arange(5) * 3 + 11.5).tolist()


def smooth(size: int, frequency: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    wave = 0.5 + 0.25 * np.sin(frequency * x + 1) + 0.25 * np.cos(frequency * y)
    return wave[None, :, :, None].astype(np.float32)


def test_all_moves_at_once_are_the_moves_one_after_another_but_interpolated_once():
    """A bilinear value is within (|f_xx| + |f_yy|) / 8 of the truth, and is a mean: errors add up, and never grow."""
    frequency, moves = 0.15, {"zoom": 0.2, "rotation": 0.4, "shear": [0.1, -0.2], "translation": [1.3, -2.6]}
    x = smooth(48, frequency)
    at_once = moved(x, flip=True, **moves)
    step_by_step = moved(x, flip=True)
    for name, amount in moves.items():
        step_by_step = moved(step_by_step, **{name: amount})
    error = 2 * 0.25 * frequency**2 / 8
    inner = slice(16, 32)  # out of reach of what came in from outside
    difference = np.abs(at_once - step_by_step)[:, inner, inner].max()
    assert difference <= (1 + len(moves)) * error
    assert not np.allclose(at_once, x, atol=0.1)


def test_a_move_and_its_opposite_cancel_as_matrices():
    angle, shift = tf.constant([0.7]), tf.constant([[2.5, -1.0]])
    turned = geometry.rotation(angle) @ geometry.rotation(-angle)
    shifted = geometry.translation(shift) @ geometry.translation(-shift)
    zoomed = geometry.zoom(angle) @ geometry.zoom(-angle)
    for product in (turned, shifted, zoomed):
        np.testing.assert_allclose(product[0], np.eye(3), atol=1e-6)


# --- colours -----------------------------------------------------------------------------------------------------


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def luma(x: np.ndarray) -> np.ndarray:
    return x @ np.array([0.299, 0.587, 0.114]) if x.shape[-1] == 3 else x[..., 0].astype(float)


def close(after: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for values that lie within float32's reach of a half."""
    difference = np.abs(after.astype(int) - rounded(expected).astype(int))
    assert difference.max() <= 1
    assert np.abs(after - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-3


@every_shape
@pytest.mark.parametrize("amount", [-0.3, 0.4])
def test_colours_change_by_their_formulas(shape, amount):
    x = images(shape).astype(float)
    mean, grey = luma(x).mean(axis=(1, 2))[:, None, None, None], luma(x)[..., None]
    close(moved(images(shape), brightness=amount), x * (1 + amount))
    close(moved(images(shape), contrast=amount), x + amount * (x - mean))
    close(moved(images(shape), saturation=amount), x + amount * (x - grey))


def test_minus_one_is_black_flat_grey_and_grey():
    x = images((6, 5, 3))
    assert not moved(x, brightness=-1.0).any()
    assert np.ptp(moved(x, contrast=-1.0), axis=(1, 2, 3)).max() == 0
    assert np.ptp(moved(x, saturation=-1.0), axis=3).max() == 0


def test_a_third_of_a_turn_of_the_hue_takes_red_to_green_to_blue():
    x = images((6, 5, 3))
    assert np.array_equal(moved(x, hue=1 / 3), np.roll(x, 1, axis=-1))
    assert np.array_equal(moved(x, hue=-1 / 3), np.roll(x, -1, axis=-1))


def test_a_turn_of_the_hue_keeps_the_mean_of_the_channels_and_the_distance_from_grey():
    x = (0.4 + 0.2 * images((6, 5, 3)) / 255).astype(np.float32)  # so that nothing is cut off
    after = moved(x, hue=0.17)
    np.testing.assert_allclose(after.mean(axis=-1), x.mean(axis=-1), atol=1e-6)
    np.testing.assert_allclose(after.std(axis=-1), x.std(axis=-1), atol=1e-6)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_grey_in_three_channels_is_the_grey_image_three_times(name):
    grey = images((6, 5, 1))
    in_colour = moved(np.repeat(grey, 3, axis=-1), **{name: 0.35}).astype(int)
    assert np.abs(in_colour - moved(grey, **{name: 0.35})).max() <= 1  # luma's weights sum to 1 in float32 but for 1e-7
    assert np.ptp(in_colour, axis=-1).max() == 0


@pytest.mark.parametrize("name", ["saturation", "hue"])
@pytest.mark.parametrize("channels", [1, 3])
def test_hue_and_saturation_leave_grey_alone(name, channels):
    grey = np.repeat(images((6, 5, 1)), channels, axis=-1)
    assert np.array_equal(moved(grey, **{name: 0.4}), grey)


def test_colours_one_after_another_equal_all_at_once_where_nothing_is_cut():
    x = (0.4 + 0.2 * images((6, 5, 3)) / 255).astype(np.float32)
    amounts = {"brightness": 0.1, "contrast": -0.3, "saturation": 0.2, "hue": 0.1}
    one_by_one = x
    for name, amount in amounts.items():
        one_by_one = moved(one_by_one, **{name: amount})
    np.testing.assert_allclose(moved(x, **amounts), one_by_one, atol=1e-6)


# --- draws -------------------------------------------------------------------------------------------------------

LIMITS = {
    "zoom": [math.log(1.3)], "rotation": [math.pi / 6], "shear": [0.2, 0.2], "translation": [1.0, 2.0],
    "brightness": [0.3], "contrast": [0.4], "saturation": [0.5], "hue": [0.1],
}  # fmt: skip
WIDE = Standard(
    flip=True, zoom=0.3, rotation=30, shear=0.2, translation=0.1, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.1
)


@pytest.mark.parametrize("name", LIMITS)
def test_amounts_are_uniform_between_minus_and_plus_their_limit(name):
    values = draws(WIDE)[name].reshape(20_000, -1)
    assert values.shape[1] == len(LIMITS[name])
    for column, limit in zip(values.T.astype(float), LIMITS[name], strict=True):
        assert np.abs(column).max() <= limit * (1 + 1e-6)
        assert abs(column.mean()) <= 4 * limit / math.sqrt(3 * 20_000)
        assert stats.kstest(column, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3


def test_half_of_the_images_are_flipped():
    assert abs(draws(WIDE)["flip"].sum() - 10_000) <= 4 * math.sqrt(20_000 / 4)


def test_amounts_are_independent_of_each_other_and_from_image_to_image():
    drawn = draws(WIDE)
    columns = [drawn["flip"], *(c for name in LIMITS for c in drawn[name].reshape(20_000, -1).T)]
    correlation = np.corrcoef(np.array(columns, float))
    assert np.abs(correlation - np.eye(len(columns))).max() <= 4.5 / math.sqrt(20_000)
    for column in columns:
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) <= 4.5 / math.sqrt(20_000)


def test_turning_one_off_leaves_the_draws_of_the_others():
    without = draws(Standard(flip=True, rotation=0.0, zoom=0.3))
    assert "rotation" not in without
    assert np.array_equal(without["zoom"], draws(Standard(flip=True, zoom=0.3))["zoom"])


@pytest.mark.parametrize("mirrors", [True, False])
def test_what_is_left_to_the_data_is_decided_by_it(mirrors):
    spec = Spec(kind="image", shape=(8, 8, 1), sizes={}, num_classes=2, scale=1 / 16, mirrors=mirrors)
    assert Standard().resolved(spec) == Standard(flip=mirrors, largest=16.0)
    assert Standard(flip=not mirrors, largest=3).resolved(spec) == Standard(flip=not mirrors, largest=3)

"""MixUp and CutMix: conservation, exact label weights, and the moments of Beta."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from descent import seeds
from descent.augmentation.mixing import Mixing, NoMixing, beta, draw_boxes
from descent.types import Batch, Clock, with_fractions

SIZES = [(7, 12, 3), (8, 8, 1), (5, 3, 2), (1, 9, 1)]
BATCHES = [1, 7, 16]
MODES = ["batch", "pair", "elem"]
every_mode = pytest.mark.parametrize("mode", MODES)
every_batch = pytest.mark.parametrize("size", BATCHES)


def key(step, seed: int = 0) -> tf.Tensor:
    return seeds.key(seeds.stream(seed, "mix"), tf.convert_to_tensor(step))


def drawn(part: Mixing, shape: tuple[int, ...], step: int = 0, progress: float = 0.0) -> dict[str, np.ndarray]:
    plan = part.draw(key(step), list(shape), tf.constant(progress))
    return {name: value.numpy() for name, value in plan.items()}


def numbered(size: int, shape: tuple[int, ...]) -> Batch:
    """Sample i is i everywhere, and its label is i: what an output came from can be read off."""
    inputs = np.broadcast_to(np.arange(size, dtype=np.float32)[:, None, None, None], (size, *shape))
    return Batch(tf.constant(inputs), tf.eye(size), tf.ones([size]))


def random_batch(size: int, shape: tuple[int, ...], classes: int = 5) -> Batch:
    rng = np.random.default_rng(0)
    targets = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, size)]
    return Batch(tf.constant(rng.random((size, *shape), np.float32)), tf.constant(targets), tf.ones([size]))


def apply(part: Mixing, plan: dict[str, np.ndarray], batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    mixed = part.apply({name: tf.constant(value) for name, value in plan.items()}, batch)
    return mixed.inputs.numpy(), mixed.targets.numpy()


@every_mode
@every_batch
def test_label_rows_sum_to_one(mode, size):
    part = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0, mode=mode)
    for step in range(3):
        _, targets = apply(part, drawn(part, (size, 6, 5, 1), step), random_batch(size, (6, 5, 1)))
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        assert targets.min() >= 0


@pytest.mark.parametrize("shape", SIZES)
@every_batch
def test_cutmix_weighs_a_label_by_the_pixels_that_are_left_exactly(shape, size):
    part, area = Mixing(cutmix_alpha=1.0, mode="elem"), shape[0] * shape[1]
    for step in range(3):
        inputs, targets = apply(part, drawn(part, (size, *shape), step), numbered(size, shape))
        for i in range(size):
            left = np.count_nonzero(inputs[i] == i) / shape[2]
            # One float32 division and one subtraction from 1 round by 2^-25 each.
            assert abs(float(targets[i, i]) - left / area) <= 2**-24
            assert np.isin(inputs[i], [i, size - 1 - i]).all()


@pytest.mark.parametrize("box", [(0, 2, 9, 12), (6, 7, 0, 12), (3, 3, 1, 5), (0, 7, 0, 12), (2, 5, 4, 8)])
def test_cutmix_pastes_exactly_the_box_of_the_plan(box):
    top, bottom, left, right = box
    part, batch = Mixing(cutmix_alpha=1.0), random_batch(4, (7, 12, 3))
    lam = np.full(4, 1 - (bottom - top) * (right - left) / 84, np.float32)
    inputs, targets = apply(part, {"lam": lam, "cut": np.full(4, True), "box": np.int32([box] * 4)}, batch)
    expected, partner = batch.inputs.numpy().copy(), batch.inputs.numpy()[::-1]
    expected[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    assert np.array_equal(inputs, expected)
    labels = batch.targets.numpy()
    np.testing.assert_allclose(targets, lam[0] * labels + (1 - lam[0]) * labels[::-1], rtol=1e-6)


def test_boxes_stay_inside_the_image_and_some_are_cut_at_each_border():
    top, bottom, left, right = draw_boxes(key(0), 2000, 7, 12, 1.0).numpy().T
    assert top.min() == left.min() == 0
    assert (bottom.max(), right.max()) == (7, 12)
    assert np.all((bottom >= top) & (right >= left))
    assert np.mean(bottom - top == right - left) < 0.9


def test_the_mean_area_of_boxes_follows_from_uniform_centres_and_beta():
    """A side s about a uniform centre leaves s - s^2/4; with s^2 uniform (alpha = 1), E (s - s^2/4)^2 = 77/240."""
    height, width, count = 500, 700, 20_000
    top, bottom, left, right = draw_boxes(key(1), count, height, width, 1.0).numpy().astype(float).T
    areas = (bottom - top) * (right - left) / (height * width)
    assert areas.mean() == pytest.approx(77 / 240, abs=4 * areas.std() / count**0.5 + 1 / height)


def test_mixup_is_the_weighted_mean_with_the_mirrored_sample():
    part, batch, lam = Mixing(mixup_alpha=1.0), random_batch(5, (4, 3, 2)), np.float32([0.9, 0.1, 0.5, 1.0, 0.0])
    inputs, targets = apply(part, {"lam": lam}, batch)
    for i in range(5):
        x, y = batch.inputs.numpy(), batch.targets.numpy()
        np.testing.assert_allclose(inputs[i], lam[i] * x[i] + (1 - lam[i]) * x[4 - i], atol=1e-6)
        np.testing.assert_allclose(targets[i], lam[i] * y[i] + (1 - lam[i]) * y[4 - i], atol=1e-6)


@pytest.mark.parametrize("mode", ["batch", "pair"])
@pytest.mark.parametrize("alphas", [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
def test_pairs_that_share_a_draw_keep_the_totals_of_the_batch(mode, alphas):
    part, batch = Mixing(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], mode=mode), random_batch(16, (7, 12, 3))
    for step in range(3):
        inputs, targets = apply(part, drawn(part, (16, 7, 12, 3), step), batch)
        np.testing.assert_allclose(inputs.sum(axis=0), batch.inputs.numpy().sum(axis=0), rtol=3e-6)
        np.testing.assert_allclose(targets.sum(axis=0), batch.targets.numpy().sum(axis=0), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.2, 0.01, 0.001])
def test_beta_has_mean_one_half_and_its_standard_deviation(alpha):
    count, deviation = 40_000, 1 / (2 * np.sqrt(2 * alpha + 1))
    draws = beta(key(0), count, alpha).numpy().astype(np.float64)
    assert draws.mean() == pytest.approx(0.5, abs=4 * deviation / count**0.5)
    # The excess kurtosis of Beta(a, a) is -6 / (2a + 3), hence the standard error of the variance.
    error = deviation**2 * np.sqrt((2 - 6 / (2 * alpha + 3)) / count)
    assert np.mean((draws - 0.5) ** 2) == pytest.approx(deviation**2, abs=4 * error)


@pytest.mark.parametrize("alpha", [5.0, 1.0, 0.2])
def test_beta_has_the_distribution_of_scipy(alpha):
    # Bins, not a Kolmogorov-Smirnov test: float32 rounds what is within 3e-8 of 1, and for alpha = 0.2 that is 2%.
    tenths = stats.beta(alpha, alpha).ppf(np.linspace(0.1, 0.9, 9))
    counts = np.bincount(np.searchsorted(tenths, beta(key(2), 20_000, alpha).numpy()), minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1.0, 0.2, 0.001])
def test_beta_lies_between_zero_and_one_and_is_never_nan(alpha):
    draws = beta(key(3), 40_000, alpha).numpy()
    assert draws.min() >= 0
    assert draws.max() <= 1


@every_mode
@pytest.mark.parametrize("settings", [{"prob": 0.0}, {"off_after": 0.5}])
def test_no_chance_and_past_the_end_leave_batches_bit_for_bit(mode, settings):
    part, batch = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode, **settings), random_batch(7, (4, 6, 1))
    for step in range(2):
        inputs, targets = apply(part, drawn(part, (7, 4, 6, 1), step, progress=0.5), batch)
        assert np.array_equal(inputs, batch.inputs)
        assert np.array_equal(targets, batch.targets)


def test_mixing_stops_at_the_very_step_given():
    part = with_fractions(Mixing(mixup_alpha=1.0, off_after="700st"), Clock(999, 10))
    mixes = [drawn(part, (4, 2, 2, 1), s, np.float32(s) / np.float32(999))["lam"][0] < 1 for s in range(695, 705)]
    assert mixes == [True] * 5 + [False] * 5


@every_batch
@every_mode
def test_a_mode_draws_once_per_batch_pair_or_element(mode, size):
    plan = drawn(Mixing(mixup_alpha=1.0, mode=mode), (size, 5, 5, 1))
    assert plan["lam"].shape == (size,)
    assert len(np.unique(plan["lam"])) == {"batch": 1, "pair": (size + 1) // 2, "elem": size}[mode]


@every_mode
def test_boxes_are_drawn_once_per_batch_pair_or_element(mode):
    plan = drawn(Mixing(cutmix_alpha=1.0, mode=mode), (15, 200, 300, 1))
    assert len(np.unique(plan["box"], axis=0)) == {"batch": 1, "pair": 8, "elem": 15}[mode]


@every_batch
@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_a_sample_and_its_partner_share_their_draw(mode, size):
    plan = drawn(Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode), (size, 9, 9, 1))
    assert all(np.array_equal(value, value[::-1]) for value in plan.values())


@pytest.mark.parametrize("prob", [0.2, 0.7])
@pytest.mark.parametrize("switch", [0.0, 0.25, 1.0])
def test_shares_of_mixing_and_of_cutmix_are_as_given(prob, switch):
    count = 5000
    part = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, prob=prob, switch_prob=switch, mode="elem")
    plan = drawn(part, (count, 100, 100, 1))
    cut = plan["cut"].sum()
    mixed_up = np.count_nonzero((plan["lam"] < 1) & ~plan["cut"])
    for seen, share in ((cut, prob * switch), (mixed_up, prob * (1 - switch))):
        assert abs(seen - count * share) <= 4 * np.sqrt(count * share * (1 - share))


def test_the_same_key_gives_the_same_plan_and_another_step_or_seed_another():
    part = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mode="elem")
    plans = [part.draw(k, [16, 9, 9, 1], tf.constant(0.0))["lam"].numpy() for k in (key(3), key(3), key(4), key(3, 1))]
    assert np.array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])
    assert not np.array_equal(plans[0], plans[3])


@every_mode
def test_draws_are_not_frozen_when_the_graph_is_traced(mode):
    part = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode)
    steps = tf.data.Dataset.range(40).map(lambda s: part.draw(key(s), [4, 8, 8, 1], tf.constant(0.0)))
    plans = list(steps.as_numpy_iterator())
    assert len({p["lam"].tobytes() for p in plans}) > 20  # some weights saturate at 0 or 1 in float32
    assert {p["cut"].any() for p in plans} == {True, False}
    for step in (0, 17, 39):
        assert np.array_equal(plans[step]["lam"], drawn(part, (4, 8, 8, 1), step)["lam"])


def test_no_mixing_is_the_identity():
    batch = random_batch(3, (4, 4, 1))
    mixed = NoMixing().apply(NoMixing().draw(key(0), [3, 4, 4, 1], tf.constant(0.0)), batch)
    assert all(np.array_equal(a, b) for a, b in zip(mixed, batch, strict=True))

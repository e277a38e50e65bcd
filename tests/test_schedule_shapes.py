"""What is particular to one schedule: where its parts begin and end, and which others it equals."""

import math

import numpy as np
import pytest

from descent.schedule import WSD, Constant, Cosine, CosineRestarts, InverseSqrt, Linear, OneCycle, Polynomial


def middles(steps: int) -> np.ndarray:
    return (np.arange(steps) + 0.5) / steps


def test_inverse_sqrt_with_the_warmup_as_timescale_is_the_papers():
    # Vaswani et al. 2017, eq. 3, over its peak: min(s^-1/2, s w^-3/2) w^1/2, of the (continuous) step s.
    steps, warmup = 400, 40
    s = np.arange(steps) + 0.5
    paper = np.minimum(s**-0.5, s * warmup**-1.5) * warmup**0.5
    schedule = InverseSqrt(warmup=warmup / steps, timescale=warmup / steps)
    np.testing.assert_allclose(schedule(middles(steps)), paper, rtol=1e-12)


def test_the_timescale_is_where_the_rate_is_one_over_root_two():
    assert InverseSqrt(warmup=0.1, timescale=0.3)(np.array([0.4]))[0] == pytest.approx(2**-0.5, rel=1e-12)


def test_polynomial_of_power_one_is_linear_and_one_cosine_cycle_is_cosine():
    places = middles(50)
    np.testing.assert_allclose(Polynomial(power=1, end=0.3)(places), Linear(end=0.3)(places), rtol=1e-14)
    np.testing.assert_array_equal(CosineRestarts(cycles=1)(places), Cosine()(places))


@pytest.mark.parametrize("multiplier", [1, 1.5, 2])
def test_a_restart_is_at_the_decayed_peak_and_before_it_at_zero(multiplier):
    lengths = np.array([multiplier**i for i in range(4)])
    starts = np.cumsum([0, *lengths[:-1]]) / lengths.sum()
    schedule = CosineRestarts(cycles=4, multiplier=multiplier, decay=0.5)
    np.testing.assert_allclose(schedule(starts + 1e-9), 0.5 ** np.arange(4), rtol=1e-12)
    np.testing.assert_allclose(schedule(np.append(starts[1:], 1) - 1e-9), 0, atol=1e-12)


def test_a_restart_at_a_step_holds_from_that_very_step_on():
    values = CosineRestarts(cycles=3, multiplier=2)(middles(700))
    assert (np.flatnonzero(np.diff(values) > 0) + 1).tolist() == [100, 300]


def test_very_many_cycles_of_a_large_multiplier_stay_finite():
    values = CosineRestarts(cycles=500, multiplier=1000.0)(np.append(middles(100), [0, 1]))
    assert np.all(np.isfinite(values))


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_starts_peaks_and_ends_where_it_says(anneal):
    schedule = OneCycle(rise=0.25, div=5, final_div=1000, anneal=anneal)
    np.testing.assert_allclose(schedule(np.array([0, 0.25, 1, 2])), [0.2, 1, 0.001, 0.001], rtol=1e-12)
    np.testing.assert_allclose(schedule(np.array([0.125, 0.625])), [0.6, 0.5005], rtol=1e-12)  # half-way, either form


@pytest.mark.parametrize(("rise", "ends"), [(0.0, (1, 0.01)), (1.0, (0.1, 1))])
def test_one_cycle_may_be_all_fall_or_all_rise(rise, ends):
    values = OneCycle(rise=rise, div=10, final_div=100)(np.array([0.0, 1.0]))
    np.testing.assert_allclose(values, ends, rtol=1e-12)


def test_one_cycle_after_a_warmup_rises_for_the_length_it_says():
    values = OneCycle(warmup=0.2, rise=0.2, div=10, final_div=100)(np.linspace(0.2, 1, 8001))
    assert values.argmax() == 2000
    assert np.all(OneCycle(warmup=0.6, rise=0.6)(middles(100)) <= 1)


def test_a_linear_wsd_is_a_constant_with_a_cooldown():
    settings = {"warmup": 0.1, "cooldown": 0.3, "floor": 0.05}
    np.testing.assert_array_equal(WSD(form="linear", **settings)(middles(90)), Constant(**settings)(middles(90)))


@pytest.mark.parametrize(("form", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("1-sqrt", 1 - math.sqrt(0.5))])
def test_wsd_is_the_peak_until_its_decay_which_ends_at_the_floor(form, halfway):
    schedule = WSD(warmup=0.1, cooldown=0.4, form=form, floor=0.2)
    expected = [1, 1, 1, 0.2 + 0.8 * halfway, 0.2, 0.2]
    np.testing.assert_allclose(schedule(np.array([0.1, 0.3, 0.6, 0.8, 1.0, 2.0])), expected, rtol=1e-12)


def test_the_quarters_of_a_decay_tell_its_forms_apart():
    at = np.array([0.25, 0.75])
    cosine = [math.cos(math.pi / 8) ** 2, math.cos(3 * math.pi / 8) ** 2]
    np.testing.assert_allclose(WSD(cooldown=1, form="cosine")(at), cosine, rtol=1e-12)
    np.testing.assert_allclose(WSD(cooldown=1, form="1-sqrt")(at), [0.5, 1 - math.sqrt(0.75)], rtol=1e-12)

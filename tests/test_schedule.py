"""Schedules against closed forms, and the laws that every shape obeys."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

from descent import schedule as group
from descent.schedule import (
    WSD,
    Constant,
    Cosine,
    CosineRestarts,
    Custom,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
)

PLACES = (0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.75, 0.9, 1.0)

# Closed forms of x, the fraction of the run after a warm-up of w; written without the implementation's expressions.


def inverse_sqrt(x, w):
    return math.sqrt(0.1 / (0.1 + x - w))


def cosine_restarts(x, w):
    # Cycles of 1/7, 2/7 and 4/7; the half-angle form of the wave.
    u = 7 * (x - w) / (1 - w) if w < 1 else 0.0
    cycle, start = (0, 0) if u < 1 else (1, 1) if u < 3 else (2, 3)
    return 0.5**cycle * math.cos(math.pi / 2 * (u - start) / 2**cycle) ** 2


def one_cycle(x, w):
    # Up for 0.2 of the run from a tenth, then down to a hundredth.
    t = (x - w) / 0.2
    if t < 1:
        return 0.1 + 0.9 * math.sin(math.pi * t / 2) ** 2
    return 0.01 + 0.99 * math.cos(math.pi / 2 * (x - w - 0.2) / (1 - w - 0.2)) ** 2


def step(x, w):
    return 0.5 ** sum(x >= milestone for milestone in (0.25, 0.5, 0.75))


def multistep(x, w):
    return 1.0 if x < 0.3 else 0.5 if x < 0.6 else 0.25


def parabola(progress):
    return (1 - progress) ** 2


def along(closed):
    """A shape that begins where the warm-up ends, of its own fraction."""
    return lambda x, w: closed((x - w) / (1 - w) if w < 1 else 0.0)


SHAPES = {
    "constant": (Constant, {}, along(lambda u: 1.0)),
    "linear": (Linear, {"end": 0.2}, along(lambda u: 0.2 * u + (1 - u))),
    "polynomial": (Polynomial, {"power": 3, "end": 0.1}, along(lambda u: 0.1 + 0.9 * (1 - u) * (1 - u) * (1 - u))),
    "cosine": (Cosine, {}, along(lambda u: math.cos(math.pi * u / 2) ** 2)),
    "exponential": (Exponential, {"end": 0.01}, along(lambda u: 10.0 ** (-2 * u))),
    "inverse_sqrt": (InverseSqrt, {"timescale": 0.1}, inverse_sqrt),
    "cosine_restarts": (CosineRestarts, {"cycles": 3, "multiplier": 2, "decay": 0.5}, cosine_restarts),
    "one_cycle": (OneCycle, {"rise": 0.2, "div": 10, "final_div": 100}, one_cycle),
    "wsd": (WSD, {"cooldown": 0}, along(lambda u: 1.0)),
    "step": (Step, {"every": 0.25, "gamma": 0.5}, step),
    "multistep": (MultiStep, {"milestones": (0.6, 0.3), "gamma": 0.5}, multistep),
    "custom": (Custom, {"function": f"{__name__}.parabola"}, along(parabola)),
}
RISES = ("cosine_restarts", "one_cycle")
every_shape = pytest.mark.parametrize("name", SHAPES)


def build(name: str, **settings) -> Schedule:
    kind, own, _ = SHAPES[name]
    return kind(**{**own, **settings})


def closed(name: str, places, warmup: float = 0.0) -> np.ndarray:
    return np.array([SHAPES[name][2](x, warmup) for x in places])


def middles(steps: int) -> np.ndarray:
    return (np.arange(steps) + 0.5) / steps


def test_every_schedule_has_its_closed_form_here():
    classes = {value for value in vars(group).values() if isinstance(value, type) and issubclass(value, Schedule)} - {
        Schedule
    }
    assert {kind for kind, _, _ in SHAPES.values()} == classes


@every_shape
def test_a_schedule_is_named_by_where_it_is_imported_from(name):
    assert SHAPES[name][0].__module__ == "descent.schedule"


@every_shape
def test_a_shape_is_its_closed_form_from_start_to_end(name):
    np.testing.assert_allclose(build(name)(np.array(PLACES)), closed(name, PLACES), rtol=1e-12, atol=1e-16)


@every_shape
@pytest.mark.parametrize("settings", [{}, {"warmup": 0.1, "floor": 0.2}, {"cooldown": 0.3, "floor": 0.05}])
def test_past_the_end_a_schedule_keeps_its_end_value(name, settings):
    schedule = build(name, **settings)
    end = schedule(np.array([1.0]))[0]
    assert schedule(np.array([1.0 + 1e-9, 1.5, 2.0, 3.0, 1e6])).tolist() == [end] * 5


@every_shape
def test_values_stay_between_zero_and_one_for_any_warmup_cooldown_and_floor(name):
    rng = np.random.default_rng(0)
    places = np.concatenate([middles(500), [0, 1, 1.5]])
    for warmup, cooldown, floor in rng.uniform(0, [0.5, 0.5, 1.0], (50, 3)):
        values = build(name, warmup=warmup, cooldown=cooldown, floor=floor)(places)
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in RISES])
def test_a_schedule_never_rises_after_its_warmup(name):
    values = build(name, warmup=0.2, cooldown=0.3, floor=0.1)(np.linspace(0.2, 1, 801))
    assert np.all(np.diff(values) <= 1e-15)


@every_shape
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_warmup_is_linear_from_zero_to_the_shapes_start(name, floor):
    schedule = build(name, warmup=0.2, floor=floor)
    places = np.array([0.0, 0.05, 0.1, 0.15, 0.2])
    start = floor + (1 - floor) * closed(name, [0.2], 0.2)
    np.testing.assert_allclose(schedule(places), start * places / 0.2, rtol=1e-12)


@every_shape
def test_the_first_step_of_a_warmup_has_half_a_steps_rate(name):
    first = build(name, warmup=0.1)(middles(1000))[0]
    assert first == pytest.approx(closed(name, [0.1], 0.1)[0] * 0.5 / 100, rel=1e-12)


@every_shape
def test_after_the_warmup_a_shape_fills_what_is_left_of_the_run(name):
    places = np.linspace(0.2, 1, 162)[1:]  # none of them on a drop
    values = build(name, warmup=0.2, floor=0.1)(places)
    np.testing.assert_allclose(values, 0.1 + 0.9 * closed(name, places, 0.2), rtol=1e-9)


@every_shape
@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_cooldown_falls_in_proportion_and_ends_at_the_floor(name, floor):
    form = {"form": "linear"} if name == "wsd" else {}
    schedule = build(name, cooldown=0.4, floor=floor, **form)
    places = np.array([0.31, 0.59, 0.7, 0.8, 0.95, 1.0])
    share = np.array([1.0, 1.0, 0.75, 0.5, 0.125, 0.0])
    expected = floor + (1 - floor) * closed(name, places) * share
    np.testing.assert_allclose(schedule(places), expected, rtol=1e-12, atol=1e-15)
    assert schedule(np.array([1.0]))[0] == floor


@every_shape
def test_warmup_cooldown_and_floor_compose(name):
    form = {"form": "linear"} if name == "wsd" else {}
    schedule = build(name, warmup=0.2, cooldown=0.25, floor=0.1, **form)
    places = middles(97)
    after = np.array([0.1 + 0.9 * SHAPES[name][2](max(x, 0.2), 0.2) * min(1, (1 - x) / 0.25) for x in places])
    np.testing.assert_allclose(schedule(places), np.minimum(1, places / 0.2) * after, rtol=1e-9)


@every_shape
def test_floor_maps_zero_to_itself_and_one_to_one(name):
    plain, raised = build(name)(middles(64)), build(name, floor=0.3)(middles(64))
    np.testing.assert_allclose(raised, 0.3 + 0.7 * plain, rtol=1e-12)


@every_shape
def test_a_value_does_not_depend_on_which_others_are_asked_for(name):
    schedule = build(name, warmup=0.1)
    together = schedule(middles(24).reshape(2, 3, 4))
    alone = [float(schedule(np.array(x))) for x in middles(24)]
    assert together.shape == (2, 3, 4)
    # Not to the bit: NumPy's vector kernels (of a power, say) may part from its scalar ones in the last place.
    np.testing.assert_allclose(together.ravel(), alone, rtol=1e-15)


@every_shape
def test_a_run_that_is_all_warmup_ends_at_the_shapes_start(name):
    values = build(name, warmup=1.0)(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(values, closed(name, [1.0], 1.0) * [0, 0.5, 1], rtol=1e-12)


# --- the mean over the steps is the integral -----------------------------------------------------------------------


def slope(schedule: Schedule, integral: float) -> float:
    """The order of convergence of the mid-step mean: of log error on log steps."""
    steps = np.array([20, 40, 80, 160, 320, 640])
    errors = [abs(schedule(middles(n)).mean() - integral) for n in steps]
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


LOG = math.log(0.01)
SMOOTH = {
    "exponential": (Exponential(end=0.01), (0.01 - 1) / LOG),
    "exponential_warmup_floor": (
        Exponential(end=0.01, warmup=0.25, floor=0.2),
        0.25 / 2 + 0.75 * (0.2 + 0.8 * (0.01 - 1) / LOG),
    ),
    "cosine_cooldown": (Cosine(cooldown=0.5), 3 / 8 + 1 / math.pi**2),
    "polynomial": (Polynomial(power=3, end=0.1), 0.1 + 0.9 / 4),
    "inverse_sqrt": (InverseSqrt(timescale=0.5), math.sqrt(3) - 1),
    "inverse_sqrt_warmup": (
        InverseSqrt(timescale=0.25, warmup=0.25),
        0.25 / 2 + 2 * 0.25 * (2 - 1),
    ),
    "custom": (Custom(function="descent.schedule.example"), 2 / 3),
}


@pytest.mark.parametrize("case", SMOOTH)
def test_the_mean_over_steps_tends_to_the_integral_at_second_order(case):
    assert slope(*SMOOTH[case]) == pytest.approx(-2, abs=0.03)


MEANS = {
    "linear": (Linear(end=0.2), 0.6),
    "cosine_restarts": (CosineRestarts(cycles=3, multiplier=2, decay=0.5), 0.5 * (1 + 2 * 0.5 + 4 * 0.25) / 7),
    "one_cycle": (OneCycle(rise=0.2, div=10, final_div=100), 0.2 * 0.55 + 0.8 * 0.505),
    "one_cycle_linear": (OneCycle(rise=0.5, div=4, final_div=8, anneal="linear"), 0.5 * 0.625 + 0.5 * 0.5625),
    "wsd_linear": (WSD(cooldown=0.4, form="linear"), 0.6 + 0.4 / 2),
    "wsd_cosine": (WSD(cooldown=0.4, form="cosine"), 0.6 + 0.4 / 2),
    "wsd_1-sqrt": (WSD(cooldown=0.4, form="1-sqrt"), 0.6 + 0.4 / 3),
    "multistep": (MultiStep(milestones=(0.25, 0.75), gamma=0.2), 0.25 + 0.5 * 0.2 + 0.25 * 0.04),
}


@pytest.mark.parametrize("case", MEANS)
def test_the_mean_over_many_steps_is_the_integral(case):
    # A jump (a restart, a drop) costs at most half a step each; a square root's start costs steps^-1.5.
    schedule, integral = MEANS[case]
    assert schedule(middles(20_000)).mean() == pytest.approx(integral, abs=2 * 0.5 / 20_000)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("schedule", [Cosine(), Linear()])
def test_the_mean_of_a_symmetric_fall_is_one_half_for_any_number_of_steps(steps, schedule):
    assert schedule(middles(steps)).mean() == pytest.approx(0.5, abs=1e-14)


def test_the_mean_of_warmup_and_cooldown_alone_is_a_trapezium():
    schedule = Constant(warmup=0.2, cooldown=0.3, floor=0.1)
    integral = 0.2 / 2 + 0.5 + 0.3 * (0.1 + 0.9 / 2)
    assert schedule(middles(1000)).mean() == pytest.approx(integral, rel=1e-12)


@pytest.mark.parametrize("steps", [10, 33, 101, 1000, 7919])
def test_the_mean_of_a_step_schedule_is_within_half_a_step_of_each_drop(steps):
    mean = Step(every=0.3, gamma=0.5)(middles(steps)).mean()
    integral = 0.3 * (1 + 0.5 + 0.25) + 0.1 * 0.125
    assert abs(mean - integral) <= (1 - 0.125) * 0.5 / steps + 1e-12


@pytest.mark.parametrize("per_epoch", [36.5, 1168 / 32, 3.1, 1 / 3])
@pytest.mark.parametrize("epochs", [3, 40, 1000])
def test_a_drop_of_every_epoch_is_at_the_first_step_whose_middle_is_in_it(per_epoch, epochs):
    steps = round(per_epoch * epochs)
    drops = -np.log2(Step(every=1 / epochs, gamma=0.5)(middles(steps)))
    exact = [Fraction(2 * i + 1, 2 * steps) * epochs for i in range(steps)]
    np.testing.assert_allclose(drops, [math.floor(x) for x in exact], atol=1e-9)


BAD = {
    "linear": {"end": 1.1},
    "polynomial": {"power": 0},
    "exponential": {"end": 2},
    "inverse_sqrt": {"timescale": "0ep"},
    "cosine_restarts": {"multiplier": 0.5},
    "one_cycle": {"div": 0.5},
    "wsd": {"form": "square"},
    "step": {"every": "0st"},
    "multistep": {"milestones": (0.5, 2)},
    "custom": {"every": 0},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_name(name):
    with pytest.raises(ValueError, match=next(iter(BAD[name]))):
        build(name, **BAD[name])


@every_shape
def test_every_length_of_a_schedule_is_among_its_fields(name):
    kind = SHAPES[name][0]
    assert {"warmup", "cooldown"} <= set(kind.lengths) <= {f.name for f in dataclasses.fields(kind)}

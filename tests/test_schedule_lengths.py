"""Lengths of schedules in steps and epochs, and the exact step of a drop."""

import numpy as np
import pytest

from descent import UserError, compose
from descent.schedule import Cosine, InverseSqrt, MultiStep, OneCycle, Step
from descent.types import Clock, with_fractions


def middles(steps: int) -> np.ndarray:
    return (np.arange(steps) + 0.5) / steps


@pytest.mark.parametrize("steps", [50, 997, 10_007])
@pytest.mark.parametrize("every", [1, 7, 30])
def test_a_milestone_at_a_step_holds_from_that_very_step_on(steps, every):
    schedule = with_fractions(Step(every=f"{every}st", gamma=0.5), Clock(steps, 10))
    drops = np.arange(steps) // every
    assert np.array_equal(schedule(middles(steps)), 0.5**drops)


@pytest.mark.parametrize("warmup", ["3st", "10st"])
def test_milestones_are_counted_from_the_start_of_the_run_also_after_a_warmup(warmup):
    schedule = with_fractions(Step(every="20st", gamma=0.5, warmup=warmup), Clock(90, 10))
    after = int(warmup[:-2])
    np.testing.assert_array_equal(schedule(middles(90))[after:], 0.5 ** (np.arange(90) // 20)[after:])


def test_a_milestone_in_epochs_may_fall_within_a_step():
    schedule = with_fractions(Step(every="1ep", gamma=0.5), Clock(50, 12.5))
    np.testing.assert_array_equal(schedule(middles(50)), 0.5 ** ((np.arange(50) + 0.5) // 12.5))


def test_no_drop_falls_on_the_end_of_the_run():
    assert Step(every=1 / 3, gamma=0.1)(np.array([1.0, 2.0])) == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize(
    ("length", "fraction"),
    [("500st", 0.25), ("5ep", 0.2), ("2.5ep", 0.1), ("0st", 0.0), (0.3, 0.3), (0.0, 0.0), ("9000st", 1.0)],
)
def test_a_length_resolves_to_its_fraction_of_the_run(length, fraction):
    resolved = with_fractions(Cosine(warmup=length, floor=0.1), Clock(2000, 80))
    assert resolved == Cosine(warmup=fraction, floor=0.1)


def test_steps_and_epochs_resolve_for_every_length_of_a_schedule():
    resolved = with_fractions(Step(warmup="10st", cooldown="2ep", every="0.5ep"), Clock(200, 12.5))
    assert (resolved.warmup, resolved.cooldown, resolved.every) == (0.05, 0.125, 0.03125)


@pytest.mark.parametrize("steps", [50, 997, 10_007])
@pytest.mark.parametrize("milestones", [[1], [7, 30], [30, 7, 8, 49], [3, 3], []])
def test_each_of_several_milestones_holds_from_its_very_step_on(steps, milestones):
    schedule = with_fractions(MultiStep(milestones=[f"{m}st" for m in milestones], gamma=0.5), Clock(steps, 10))
    drops = sum((np.arange(steps) >= m for m in milestones), np.zeros(steps))
    assert np.array_equal(schedule(middles(steps)), 0.5**drops)


@pytest.mark.parametrize("warmup", ["3st", "10st"])
def test_several_milestones_are_counted_from_the_start_of_the_run_also_after_a_warmup(warmup):
    schedule = with_fractions(MultiStep(milestones=("20st", "45st"), gamma=0.5, warmup=warmup), Clock(90, 10))
    after, s = int(warmup[:-2]), np.arange(90)
    np.testing.assert_array_equal(schedule(middles(90))[after:], (0.5 ** ((s >= 20) + 1.0 * (s >= 45)))[after:])


@pytest.mark.parametrize(
    "part", [MultiStep(milestones=("3st",), gamma=0.1, warmup="10st"), Step(every="3st", gamma=0.1, warmup="10st")]
)
def test_a_drop_within_the_warmup_holds_from_its_step_on(part):
    found = with_fractions(part, Clock(20, 10))(middles(20))
    drops = np.minimum(np.arange(20) // 3, 99 if isinstance(part, Step) else 1)
    np.testing.assert_allclose(found, np.minimum(1, (np.arange(20) + 0.5) / 10) * 0.1**drops, rtol=1e-12)


@pytest.mark.parametrize("steps_per_epoch", [12.5, 36.5, 0.5, 7.3])
def test_a_milestone_at_the_middle_of_a_step_holds_for_that_step(steps_per_epoch):
    steps = 111
    schedule = with_fractions(MultiStep(milestones=("1ep", "3ep"), gamma=0.5), Clock(steps, steps_per_epoch))
    # In twentieths of a step, so that the comparison is exact.
    places, epoch = 20 * np.arange(steps) + 10, round(20 * steps_per_epoch)
    drops = (places >= epoch) + 1.0 * (places >= 3 * epoch)
    np.testing.assert_array_equal(schedule(middles(steps)), 0.5**drops)


def test_units_of_milestones_mix_and_one_past_the_end_never_comes():
    schedule = with_fractions(MultiStep(milestones=("30st", 0.5, "8ep", "200st"), gamma=0.5), Clock(100, 10))
    assert schedule.milestones == (0.3, 0.5, 0.8, 1.0)
    assert schedule(np.array([0.2, 0.4, 0.6, 0.9, 1.0, 2.0])).tolist() == [1, 0.5, 0.25, 0.125, 0.125, 0.125]


def test_lengths_of_other_schedules_resolve_too():
    clock = Clock(200, 12.5)
    assert with_fractions(OneCycle(rise="2ep"), clock) == OneCycle(rise=0.125)
    assert with_fractions(InverseSqrt(timescale="40st", warmup="40st"), clock) == InverseSqrt(timescale=0.2, warmup=0.2)


def test_milestones_from_the_command_line_are_exact_in_the_runs_rates():
    run = compose(
        "schedule=multistep", "schedule.milestones=[2ep,100st]", "trainer.epochs=4", "optimizer.learning_rate=1.0"
    )
    drops = np.flatnonzero(np.diff(run.rates())) + 1
    assert run.clock.steps_per_epoch == 36.5
    assert drops.tolist() == [73, 100]


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ("[0.5,x]", r"schedule.milestones\[1\]=x: should be a fraction of the run"),
        ("[1.5]", r"schedule.milestones\[0\]=1.5: should be a fraction of the run"),
        ("0.5", "schedule.milestones=0.5: should be a list"),
    ],
)
def test_a_bad_milestone_is_one_line(milestones, message):
    with pytest.raises(UserError, match=message):
        compose("schedule=multistep", f"schedule.milestones={milestones}")

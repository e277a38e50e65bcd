"""Schedules that are functions of the user's own."""

import sys
import types

import numpy as np
import pytest

from descent import UserError, compose
from descent.schedule import Custom, example
from descent.types import Clock, with_fractions

CALLS: list[tuple[float, ...]] = []


def tent(progress):
    """With a plain `if`, which fails on arrays: the function is called with numbers."""
    CALLS.append((progress,))
    return 2 * progress if progress < 0.5 else 2 - 2 * progress


def keras_like(epoch, rate):
    """The example of Keras' documentation: constant for some epochs, then exponential."""
    CALLS.append((epoch, rate))
    return rate if epoch < 3 else rate * 0.9


BAD = {
    "text": lambda *_: "0.5",
    "nothing": lambda *_: None,
    "flag": lambda *_: True,
    "above": lambda *_: 1.5,
    "below": lambda *_: -0.1,
    "nan": lambda *_: float("nan"),
    "infinite": lambda *_: float("inf"),
    "array": lambda *_: np.ones(3),
    "failing": lambda *_: 1 / 0,
}


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    module = types.ModuleType("my_schedules")
    for name, function in {"tent": tent, "keras_like": keras_like, **BAD}.items():
        setattr(module, name, function)
    module.late = lambda u: 0.5 if u < 0.7 else 1.25
    module.late_nan = lambda epoch, rate: rate if epoch < 4 else float("nan")
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_schedules", module)
    CALLS.clear()


def middles(steps: int) -> np.ndarray:
    return (np.arange(steps) + 0.5) / steps


def test_a_function_of_the_fraction_gives_its_values_by_hand():
    values = Custom(function="my_schedules.tent")(np.array([0, 0.125, 0.25, 0.5, 0.75, 1, 1.5]))
    assert values.tolist() == [0, 0.25, 0.5, 1, 0.5, 0, 0]


def test_a_function_of_epoch_and_rate_gives_the_list_by_hand():
    schedule = with_fractions(Custom(function="my_schedules.keras_like", of="epoch_and_rate"), Clock(12, 2))
    # Six epochs of two steps: three at the peak, then 0.9 of the one before.
    expected = [1, 1, 1, 1, 1, 1, 0.9, 0.9, 0.81, 0.81, 0.729, 0.729]
    np.testing.assert_allclose(schedule(middles(12)), expected, rtol=1e-15)
    assert schedule(np.array([1.0, 2.0])) == pytest.approx([0.729, 0.729])


def test_it_is_called_as_keras_does_once_an_epoch_with_the_rate_before():
    schedule = with_fractions(Custom(function="my_schedules.keras_like", of="epoch_and_rate"), Clock(12, 2))
    CALLS.clear()
    schedule(middles(12))
    assert [epoch for epoch, _ in CALLS] == [0, 1, 2, 3, 4, 5]
    assert [rate for _, rate in CALLS] == pytest.approx([1, 1, 1, 1, 0.9, 0.81])


def test_it_is_the_rate_that_keras_callback_sets():
    """A whole loop of the reference's arithmetic: rate = f(epoch, rate), from the optimizer's peak, in order."""
    peak, rate, reference = 0.003, 0.003, []
    for epoch in range(40):
        rate = keras_like(epoch, rate)
        reference.append(rate)
    run = compose("schedule=custom", "schedule.function=my_schedules.keras_like", "schedule.of=epoch_and_rate")
    assert run.optimizer.learning_rate == peak
    epochs = ((np.arange(1460) + 0.5) // 36.5).astype(int)
    np.testing.assert_allclose(run.rates(), np.array(reference)[epochs], rtol=1e-12)


def test_a_step_belongs_to_the_epoch_its_middle_is_in():
    schedule = with_fractions(Custom(function="my_schedules.keras_like", of="epoch_and_rate"), Clock(111, 12.5))
    epoch = (2 * np.arange(111) + 1) // 25
    np.testing.assert_allclose(schedule(middles(111)), 0.9 ** np.maximum(0, epoch - 2), rtol=1e-12)


@pytest.mark.parametrize(("every", "calls"), [("1ep", 1), ("50ep", 1), (0.25, 4), ("3st", 3)])
def test_the_function_is_called_as_often_as_it_says(every, calls):
    settings = {"function": "my_schedules.keras_like", "of": "epoch_and_rate", "every": every}
    schedule = with_fractions(Custom(**settings), Clock(8, 10))
    CALLS.clear()
    schedule(middles(8))
    assert len(CALLS) == calls


def test_epochs_are_counted_from_the_start_of_the_run_also_after_a_warmup():
    settings = {"function": "my_schedules.keras_like", "of": "epoch_and_rate"}
    plain = with_fractions(Custom(**settings), Clock(60, 6))(middles(60))
    warm = with_fractions(Custom(**settings, warmup="9st"), Clock(60, 6))(middles(60))
    np.testing.assert_allclose(warm[9:], plain[9:], rtol=1e-15)
    np.testing.assert_allclose(warm[:9], middles(60)[:9] / 0.15, rtol=1e-12)


def test_floor_and_cooldown_compose_with_epochs():
    settings = {"function": "my_schedules.keras_like", "of": "epoch_and_rate", "every": 0.1}
    values = Custom(**settings, floor=0.2, cooldown=0.5)(np.array([0.05, 0.45, 0.75, 1.0]))
    np.testing.assert_allclose(values, [1, 0.2 + 0.8 * 0.81, 0.2 + 0.8 * 0.9**5 * 0.5, 0.2], rtol=1e-12)


@pytest.mark.parametrize("of", ["fraction", "epoch_and_rate"])
@pytest.mark.parametrize("name", BAD)
def test_a_function_that_gives_no_rate_is_refused_when_the_config_is_checked(name, of):
    call = r"my_schedules.\w+\(0\)" if of == "fraction" else r"my_schedules.\w+\(0, 1\)"
    with pytest.raises(ValueError, match=f"{call} (gives|fails)"):
        Custom(function=f"my_schedules.{name}", of=of)


def test_a_value_outside_the_range_says_where():
    with pytest.raises(UserError, match=r"my_schedules.late\(0.75\) gives 1.25; should be a number from 0 to 1"):
        Custom(function="my_schedules.late")(middles(10))
    with pytest.raises(UserError, match=r"my_schedules.late_nan\(4, 1\) gives nan"):
        Custom(function="my_schedules.late_nan", of="epoch_and_rate", every=0.1)(middles(10))


NOWHERE = {
    "tent": "should be a dotted path",
    "no_such_module.tent": "ModuleNotFoundError: No module named 'no_such_module'",
    "my_schedules.no_such": "has no attribute 'no_such'",
    "my_schedules.number": "should be a function, and is of type int",
    "my_schedules..tent": "cannot be imported",
    ".tent": "should be a dotted path",
}


@pytest.mark.parametrize("path", NOWHERE)
def test_a_path_that_leads_nowhere_is_one_line_that_names_it(path):
    with pytest.raises(ValueError, match=NOWHERE[path]):
        Custom(function=path)
    with pytest.raises(UserError) as caught:
        compose("schedule=custom", f"schedule.function={path}")
    assert str(caught.value).startswith(f"schedule.function={path}: ")
    assert NOWHERE[path] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_when_imported_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_schedules.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"broken_schedules.f: cannot be imported \(ZeroDivisionError: division by zero\)"
    ):
        compose("schedule=custom", "schedule.function=broken_schedules.f")


def test_the_option_as_it_comes_is_the_printed_example():
    rates = compose("schedule=custom", "optimizer.learning_rate=0.5").rates()
    np.testing.assert_allclose(rates, [0.5 * example(u) for u in middles(1460)], rtol=1e-12)

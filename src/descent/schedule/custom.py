"""A schedule that is a function of the user's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator

from descent.schedule.base import LAST, Schedule
from descent.types import Length, UserError, is_zero, part


def example(progress: float) -> float:
    """`1 - progress^2`: what `schedule=custom` is until it is given a function of yours."""
    return 1 - progress**2


def located(path: str) -> Callable[..., Any]:
    """The function at a dotted path.

    Raises:
        ValueError: there is none.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError("should be a dotted path, as in my_module.my_function")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(f"cannot be imported ({_told(error)})") from error
    if not callable(function):
        raise ValueError(f"should be a function, and is of type {type(function).__name__}")
    return function


def _importable(path: str) -> str:
    located(path)
    return path


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@part
class Custom(Schedule):
    """A Python function of yours, called on the host before training starts; it must give numbers in [0, 1].

    Of the fraction u in [0, 1] of what follows the warm-up: `rate = f(u)`. Or recursively of the epoch and the rate
    before, as Keras' `LearningRateScheduler` has it: `r_0 = f(0, 1)`, `r_e = f(e, r_(e-1))`, e counted from the
    start of the run; r is a fraction of the peak here, so `lambda epoch, rate: 0.9 * rate` is the same in both.

    Attributes:
        function: dotted path of the function; it is called once when the config is checked.
        of: what it is a function of.
        every: length of an "epoch" of `epoch_and_rate`: how often the function gives a new rate.
    """

    lengths: ClassVar[tuple[str, ...]] = ("warmup", "cooldown", "every")
    lowest: ClassVar[float] = -math.inf

    function: Annotated[str, AfterValidator(_importable)]
    of: Literal["fraction", "epoch_and_rate"] = "fraction"
    every: Length = "1ep"

    def __post_init__(self) -> None:
        if is_zero(self.every):
            raise ValueError("every should be above 0")
        first = (0.0,) if self.of == "fraction" else (0, 1.0)
        _rate(self.function, located(self.function), *first)

    def shape(self, u: np.ndarray) -> np.ndarray:
        """The function's values.

        Raises:
            UserError: one of them is not a number in [0, 1]; says for which arguments.
        """
        try:
            return self._of_epochs(u) if self.of == "epoch_and_rate" else self._of_fractions(np.maximum(u, 0.0))
        except ValueError as error:
            raise UserError(f"schedule.function: {error}") from error

    def _of_fractions(self, u: np.ndarray) -> np.ndarray:
        function = located(self.function)
        rates = [_rate(self.function, function, float(value)) for value in u.ravel()]
        return np.array(rates, np.float64).reshape(u.shape)

    def _of_epochs(self, u: np.ndarray) -> np.ndarray:
        # An epoch may begin in the very middle of a step; rounding must not decide to which it belongs.
        epochs = np.floor(np.minimum(self.elapsed(u), LAST) / float(self.every) + 1e-9).astype(int)
        function, rates = located(self.function), [1.0]
        for epoch in range(epochs.max(initial=-1) + 1):
            rates.append(_rate(self.function, function, epoch, rates[-1]))
        return np.array(rates)[epochs + 1]


def _rate(path: str, function: Callable[..., Any], *arguments: float) -> float:
    try:
        rate = function(*arguments)
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{_call(path, arguments)} fails ({_told(error)})") from error
    number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not number or not 0 <= rate <= 1:
        raise ValueError(f"{_call(path, arguments)} gives {_short(rate)}; should be a number from 0 to 1")
    return float(rate)


def _call(path: str, arguments: tuple[float, ...]) -> str:
    return f"{path}({', '.join(f'{value:.6g}' for value in arguments)})"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else " ".join(repr(value).split())[:40]

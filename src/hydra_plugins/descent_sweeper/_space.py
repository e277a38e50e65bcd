"""What is varied, in Hydra's words and in Optuna's.

The underscore in its name keeps Hydra, which imports all plugins at every start, from importing this one and Optuna.
"""

from __future__ import annotations

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from descent.types import UserError


def distribution(override: Override) -> BaseDistribution:
    """What Hydra's syntax of a swept value says: `interval`, `range`, `choice`, with tags `log` and `int`.

    Raises:
        UserError: it is something else.
    """
    try:
        return _distribution(override)
    except (ValueError, IndexError) as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        if "int" in value.tags:
            return IntDistribution(int(value.start), int(value.end), log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if isinstance(value, RangeSweep) and not value.shuffle and override.key_or_group:
        numbers = [float(text) for text in override.sweep_string_iterator()]
        step = float(value.step)
        if all(number.is_integer() for number in (*numbers, step)):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(step))
        return FloatDistribution(numbers[0], numbers[-1], step=step)
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise UserError(
        f"{override.input_line}: choose interval(a, b), range(a, b), choice(a, b) or tag(log, interval(a, b))"
    )

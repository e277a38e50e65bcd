"""What chooses the trials of a study, and what gives them up."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from descent.sweep.settings import Pruner, Sampler
from descent.types import UserError

Space = dict[str, BaseDistribution]
REDUCTION = 3  # of successive halving: a third of the trials goes on at each rung (Li et al. 2018)
STARTUP = 5  # trials that run to their end before the median prunes


def extremes(space: Space) -> list[dict[str, Any]]:
    """Settings that together have every end point and every choice, each beside the first values of the others."""
    ends = {key: _ends(one) for key, one in space.items()}
    first = {key: values[0] for key, values in ends.items()}
    return [first] + [first | {key: value} for key, values in ends.items() for value in values[1:]]


def _ends(one: BaseDistribution) -> list[Any]:
    if isinstance(one, CategoricalDistribution):
        return list(one.choices)
    assert isinstance(one, (IntDistribution, FloatDistribution))
    return [one.low, one.high]


def pruner(kind: Pruner, evaluations: int) -> optuna.pruners.BasePruner:
    """A pruner of runs that are evaluated so often."""
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=evaluations // 10)
    if kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=evaluations, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()


def sampler(kind: Sampler, space: Space, seed: int, known: int) -> optuna.samplers.BaseSampler:
    """A sampler; one that draws starts anew after a restart, with another seed, so that it does not repeat itself."""
    if kind == "grid":
        return Grid(cells(space), seed=seed)
    if kind == "qmc":
        with warnings.catch_warnings():  # that its interface may change, which is bounded in pyproject.toml
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_asynchronous_seeding=False)
    made: dict[str, Any] = {
        "tpe": functools.partial(optuna.samplers.TPESampler, multivariate=True),
        "cmaes": optuna.samplers.CmaEsSampler,
        "random": optuna.samplers.RandomSampler,
    }
    return made[kind](seed=seed + known)


def cells(space: Space) -> dict[str, list[Any]]:
    """The values of a grid.

    Raises:
        UserError: an interval has no such values.
    """
    return {key: _grid(key, one) for key, one in space.items()}


class Grid(optuna.samplers.GridSampler):
    """Optuna's own, which at its end stops a loop of Optuna's that does not run here."""

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        pass


def _grid(key: str, one: BaseDistribution) -> list[Any]:
    if isinstance(one, CategoricalDistribution):
        return list(one.choices)
    if isinstance(one, IntDistribution) and not one.log:
        return list(range(one.low, one.high + 1, one.step))
    if isinstance(one, FloatDistribution) and one.step:
        return [one.low + i * one.step for i in range(round((one.high - one.low) / one.step) + 1)]
    raise UserError(f"{key}: a grid needs choice or range, not an interval")

"""A study of Optuna in a sweep's folder: what is varied, which trial comes next, what came out, when to give one up."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from descent.callback import higher_is_better
from descent.sweep.job import PRUNED, Job, Outcome, summary
from descent.types import Record, UserError
from descent.watching import Watch

Sampler = Literal["tpe", "cmaes", "random", "grid", "qmc"]
Pruner = Literal["none", "median", "hyperband", "asha"]
COSTS = ("seconds", "parameters", "steps", "epochs")  # of a summary: the less the better
FILE = "study.db"
NAME = "sweep"
REDUCTION = 3  # of successive halving: a third of the trials goes on at each rung (Li et al. 2018)
STARTUP = 5  # trials that run to their end before the median prunes

optuna.logging.set_verbosity(optuna.logging.ERROR)


def extremes(space: dict[str, BaseDistribution]) -> list[dict[str, Any]]:
    """Settings that together have every end point and every choice, each beside the first values of the others."""
    ends = {key: _ends(one) for key, one in space.items()}
    first = {key: values[0] for key, values in ends.items()}
    return [first] + [first | {key: value} for key, values in ends.items() for value in values[1:]]


def _ends(one: BaseDistribution) -> list[Any]:
    if isinstance(one, CategoricalDistribution):
        return list(one.choices)
    assert isinstance(one, (IntDistribution, FloatDistribution))
    return [one.low, one.high]


def words(params: dict[str, Any]) -> list[str]:
    """Overrides; six digits of a number are enough to tell and to type it."""
    return [f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


class Pruning(NamedTuple):
    """What a worker needs to ask the study about its trial: plain data."""

    folder: Path
    trial: int
    pruner: Pruner
    monitor: str
    steps: int
    rung: int

    def watch(self) -> Watch:
        """Tells the study of every evaluation; says why to stop where the pruner gives the trial up."""
        store = storage(self.folder)
        study = optuna.load_study(study_name=NAME, storage=store, pruner=pruner(self.pruner, self.steps, self.rung))

        def watch(record: Record) -> str:
            if self.monitor not in record:
                return ""
            store.set_trial_intermediate_value(self.trial, int(record["step"]), record[self.monitor])
            gives_up = study.pruner.prune(study, store.get_trial(self.trial))
            return f"{PRUNED} by {self.pruner} at step {record['step']}" if gives_up else ""

        return watch


def storage(folder: Path) -> optuna.storages.RDBStorage:
    """SQLite in the sweep's folder: what is written survives a kill; others wait their turn."""
    return optuna.storages.RDBStorage(f"sqlite:///{folder / FILE}", engine_kwargs={"connect_args": {"timeout": 120}})


def pruner(kind: Pruner, steps: int, rung: int) -> optuna.pruners.BasePruner:
    """A pruner of runs of so many steps, evaluated every `rung` steps."""
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=steps // 10)
    if kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=rung, reduction_factor=REDUCTION)
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=rung, max_resource=steps, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()


def sampler(kind: Sampler, space: dict[str, BaseDistribution], seed: int, known: int) -> optuna.samplers.BaseSampler:
    """A sampler; one that draws starts anew after a restart, with another seed, so that it does not repeat itself."""
    if kind == "grid":
        return Grid({key: _grid(key, one) for key, one in space.items()}, seed=seed)
    if kind == "qmc":
        return optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_asynchronous_seeding=False)
    made: dict[str, Any] = {
        "tpe": functools.partial(optuna.samplers.TPESampler, multivariate=True),
        "cmaes": optuna.samplers.CmaEsSampler,
        "random": optuna.samplers.RandomSampler,
    }
    return made[kind](seed=seed + known)


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


@dataclasses.dataclass(kw_only=True)
class Study:
    """The trials of a sweep. Every change of one is in the database before anything follows from it."""

    folder: Path
    space: dict[str, BaseDistribution]
    trials: int
    sampler: Sampler
    seed: int
    objectives: Sequence[str]

    def __post_init__(self) -> None:
        store = storage(self.folder)
        directions: list[Any] = ["maximize" if rises(name) else "minimize" for name in self.objectives]
        self.study = optuna.create_study(study_name=NAME, storage=store, directions=directions, load_if_exists=True)
        if [d.name.lower() for d in self.study.directions] != directions:
            raise UserError(f"{self.folder / FILE}: it has other objectives; give the sweep another name")
        self.study.sampler = sampler(self.sampler, self.space, self.seed, len(self.study.get_trials(deepcopy=False)))
        self.study.set_user_attr("objectives", list(self.objectives))

    def left(self) -> list[FrozenTrial]:
        """Trials that a killed launcher left running; those that never got all their values are given up."""
        found = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in found:
            if set(trial.params) != set(self.space):
                self.study.tell(trial.number, state=TrialState.FAIL)
        return [trial for trial in found if set(trial.params) == set(self.space)]

    def begun(self) -> int:
        """Trials that are finished or running."""
        return sum(set(trial.params) == set(self.space) for trial in self.study.get_trials(deepcopy=False))

    def ask(self) -> FrozenTrial | None:
        """A new trial; None where there are enough, or the grid is done."""
        grid = self.study.sampler
        if self.begun() >= self.trials or (
            isinstance(grid, optuna.samplers.GridSampler) and grid.is_exhausted(self.study)
        ):
            return None
        number = self.study.ask(self.space).number
        return self.study.get_trials(deepcopy=False)[number]

    def tell(self, trial: FrozenTrial, job: Job, outcome: Outcome) -> None:
        """Enters how a trial's job ended; one that was stopped stays open."""
        if outcome.state == "done":
            self.study.tell(trial.number, [reached(job, name) for name in self.objectives])
        elif outcome.state == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif outcome.state in ("failed", "halted"):
            self.study.tell(trial.number, state=TrialState.FAIL)


def rises(name: str) -> bool:
    """Whether more of an objective is better."""
    return name not in COSTS and higher_is_better(name, "auto")


def reached(job: Job, name: str) -> float:
    """An objective of a finished job: the best of the monitored metric, else what the summary holds."""
    content = summary(job)
    best = content.get("best", {})
    if name == best.get("monitor"):
        return float(best["value"])
    if name not in content:
        raise UserError(f"hydra.sweeper.objective={name}: the runs have no such metric")
    return float(content[name])

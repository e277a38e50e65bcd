"""A study of Optuna in a sweep's folder: which trial comes next, what came out, when to give one up."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from descent import metric
from descent.callback import higher_is_better
from descent.sweep.job import PRUNED, Job, Outcome, summary
from descent.sweep.sampling import Space, cells, pruner, sampler
from descent.sweep.settings import Pruner, Settings, Storage
from descent.types import Record, Spec, UserError
from descent.watching import Watch

COSTS = ("seconds", "parameters", "steps", "epochs")  # of a summary: the less the better
FILES: dict[Storage, str] = {"sqlite": "study.db", "journal": "study.log"}
NAME = "sweep"

optuna.logging.set_verbosity(optuna.logging.ERROR)


def words(params: dict[str, Any]) -> list[str]:
    """Overrides; six digits of a number are enough to tell and to type it."""
    return [f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


class Pruning(NamedTuple):
    """What a worker needs to ask the study about its trial: plain data.

    Attributes:
        folder: of the sweep.
        trial: Optuna's id of it.
        pruner: what may give it up.
        monitor: the metric that is watched.
        evaluations: the steps at which it is evaluated. Trials are compared by the number of the evaluation: with
            another batch size, the same number of epochs is another number of steps.
    """

    folder: Path
    trial: int
    pruner: Pruner
    monitor: str
    evaluations: Sequence[int]

    def watch(self) -> Watch:
        """Tells the study of every evaluation; says why to stop where the pruner gives the trial up."""
        store = storage(self.folder)
        judge = pruner(self.pruner, len(self.evaluations))
        study = optuna.load_study(study_name=NAME, storage=store, pruner=judge)

        def watch(record: Record) -> str:
            if self.monitor not in record:
                return ""
            number = bisect.bisect_right(self.evaluations, int(record["step"]))
            store.set_trial_intermediate_value(self.trial, number, record[self.monitor])
            gives_up = judge.prune(study, store.get_trial(self.trial))
            return f"{PRUNED} by {self.pruner} at step {record['step']}" if gives_up else ""

        return watch


# --- where it is kept ------------------------------------------------------------------------------------------------


def storage(folder: Path, kind: Storage = "sqlite") -> RDBStorage | JournalStorage:
    """The study of a sweep's folder, kept as it was begun: what is written survives a kill; others wait their turn."""
    begun = [known for known, name in FILES.items() if (folder / name).exists()]
    kind = begun[0] if begun else kind
    path = str(folder / FILES[kind])
    if kind == "journal":
        return JournalStorage(JournalFileBackend(path, lock_obj=MendingLock(path)))
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 120}})


class MendingLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal; who gets it takes back the line that a killed process has left unfinished."""

    def acquire(self) -> bool:
        got = super().acquire()
        with open(self._lock_target_file, "rb+") as file:
            content = _tail(file)
            if content and not content.endswith(b"\n"):
                file.truncate(file.tell() - len(content) + content.rfind(b"\n") + 1)
        return got


def _tail(file: Any, most: int = 2**20) -> bytes:
    """The last bytes of a file, longer than any line of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - most))
    return bytes(file.read())


def read(folder: Path) -> optuna.Study | None:
    """The study of a sweep's folder; None where there is none."""
    if not any((folder / name).exists() for name in FILES.values()):
        return None
    return optuna.load_study(study_name=NAME, storage=storage(folder))


# --- its trials ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(kw_only=True)
class Study:
    """The trials of a sweep. Every change of one is in the storage before anything follows from it.

    Attributes:
        folder: of the sweep.
        space: what is varied.
        settings: how it is searched.
        objectives: metrics of a run's summary.
    """

    folder: Path
    space: Space
    settings: Settings
    objectives: Sequence[str]

    def __post_init__(self) -> None:
        store = storage(self.folder, self.settings.storage)
        directions: list[Any] = ["maximize" if rises(name) else "minimize" for name in self.objectives]
        self.study = optuna.create_study(study_name=NAME, storage=store, directions=directions, load_if_exists=True)
        if self.study.user_attrs.get("objectives", list(self.objectives)) != list(self.objectives):
            raise UserError(f"{self.folder}: its study has other objectives; give the sweep another name")
        self._check_search()
        known = self.study.get_trials(deepcopy=False)
        for key in self.space:
            self._check(key, known)
        self.study.sampler = sampler(self.settings.sampler, self.space, self.settings.seed, len(known))
        self.study.set_user_attr("objectives", list(self.objectives))

    def _check_search(self) -> None:
        """How it is searched stays as it was begun: trials that were chosen in another way are no part of it."""
        for name in ("sampler", "pruner", "seed"):
            now = getattr(self.settings, name)
            begun = self.study.user_attrs.get(name, now)
            if begun != now:
                raise UserError(
                    f"hydra.sweeper.{name}={now}: the study in {self.folder} was begun with {begun}; "
                    "give another name, as in name=again"
                )
            self.study.set_user_attr(name, now)

    def _check(self, key: str, known: Sequence[FrozenTrial]) -> None:
        """Bounds may be moved; choices may not."""
        for before in (trial.distributions[key] for trial in known if key in trial.distributions):
            try:
                check_distribution_compatibility(before, self.space[key])
            except ValueError as error:
                raise UserError(f"{key}: its study had other choices; give the sweep another name") from error

    def left(self) -> list[FrozenTrial]:
        """Trials that a killed launcher left running; those that never got all their values are given up."""
        found = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in found:
            if set(trial.params) != set(self.space):
                self.give_up(trial)
        return [trial for trial in found if set(trial.params) == set(self.space)]

    def begun(self) -> int:
        """Trials that are finished or running."""
        return sum(set(trial.params) == set(self.space) for trial in self.study.get_trials(deepcopy=False))

    def retry(self) -> None:
        """Has trials that failed asked for again, beside those that are left; each once, however often this is said."""
        known = [(trial, _values(trial)) for trial in self.study.get_trials(deepcopy=False)]
        for i, (trial, values) in enumerate(known):
            whole = trial.state == TrialState.FAIL and set(values) == set(self.space)
            if whole and all(values != later for _, later in known[i + 1 :]):
                self.study.enqueue_trial(values)

    def ask(self) -> FrozenTrial | None:
        """A new trial; None where there are enough, or the grid is done."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        enough = self.begun() >= self.settings.trials or (self.settings.sampler == "grid" and self._covered())
        if enough and not waiting:
            return None
        number = self.study.ask(self.space).number
        return self.study.get_trials(deepcopy=False)[number]

    def _covered(self) -> bool:
        """Whether a trial of every cell of the grid has begun; Optuna's own answer waits until all have ended."""
        values = cells(self.space)
        trials = (trial.params for trial in self.study.get_trials(deepcopy=False))
        begun = {tuple(params[key] for key in values) for params in trials if set(params) == set(values)}
        return all(cell in begun for cell in itertools.product(*values.values()))

    def give_up(self, trial: FrozenTrial) -> None:
        """Closes a trial that cannot run."""
        self.study.tell(trial.number, state=TrialState.FAIL)

    def tell(self, trial: FrozenTrial, job: Job, outcome: Outcome) -> None:
        """Enters how a trial's job ended; one that was stopped stays open."""
        if outcome.state == "done":
            self.study.tell(trial.number, [reached(job, name) for name in self.objectives])
        elif outcome.state == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif outcome.state in ("failed", "halted"):
            self.study.tell(trial.number, state=TrialState.FAIL)


def _values(trial: FrozenTrial) -> dict[str, Any]:
    """Of a trial, also of one that waits for being asked for."""
    return dict(trial.system_attrs.get("fixed_params", trial.params))


def objectives(spec: Spec) -> tuple[str, ...]:
    """What a study can aim at: the metrics of the splits that are held out, and costs."""
    evaluated = [f"{split}/{name}" for split in ("val", "test") for name in metric.names(spec)]
    return (*evaluated, *(f"test/{name}" for name in metric.final_names(spec)), *COSTS)


def rises(name: str) -> bool:
    """Whether more of an objective is better."""
    return name not in COSTS and higher_is_better(name, "auto")


def reached(job: Job, name: str) -> float:
    """An objective of a finished job: the best of the monitored metric, else what the summary holds."""
    content = summary(job)
    best = content.get("best", {})
    return float(best["value"] if name == best.get("monitor") else content[name])

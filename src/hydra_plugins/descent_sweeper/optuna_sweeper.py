"""Trials chosen by Optuna, in the pool, resumable at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from descent.sweep.job import Job, Outcome


class OptunaSweeper(Sweeper):
    """Ask, run, tell; see `conf/hydra/sweeper/optuna.yaml` for the arguments."""

    def __init__(
        self,
        trials: int = 20,
        sampler: str = "tpe",
        pruner: str = "none",
        objective: str | Sequence[str] | None = None,
        seed: int = 0,
        params: dict[str, str] | None = None,
    ) -> None:
        self.trials, self.sampler, self.pruner, self.seed = trials, sampler, pruner, seed
        self.objective = [objective] if isinstance(objective, str) else list(objective or ())
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.parser = OverridesParser.create(hydra_context.config_loader)
        self.open: dict[Path, FrozenTrial] = {}  # the trial that runs in each folder
        self.twins: dict[Path, list[tuple[FrozenTrial, Job]]] = {}  # those that wait for its result
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from descent.config import run_main

        run_main(lambda: self._sweep(arguments))

    def _sweep(self, arguments: list[str]) -> None:
        from descent.folder import locked
        from descent.sweep import closing, running, study
        from descent.sweep.board import Board
        from hydra_plugins.descent_sweeper._space import distribution

        typed = {word.lstrip("+").split("=")[0] for word in arguments}
        given = [f"{key}={value}" for key, value in self.params.items() if key not in typed]
        parsed = self.parser.parse_overrides([*given, *arguments])
        space = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        self.fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
        first = self._checked(space)
        with locked(self.launcher.sweep):
            self.study = study.Study(
                folder=self.launcher.sweep,
                space=space,
                trials=self.trials,
                sampler=self.sampler,  # type: ignore[arg-type]
                seed=self.seed,
                objectives=self.objective or [first.monitor],
            )
            self.board = Board((), total=self.trials)
            self.board.say(f"study   {self.study.begun()} of {self.trials} trials begun\nfolder  {self.launcher.sweep}")
            self.left = self.study.left()
            with self.launcher.executor([first] * self.trials) as executor, self.board:
                stopped = running.drive(executor, self.board, self._more, self._ended)
            code = closing.close(self.launcher.sweep, self.board, stopped)
        self.launcher.leave(code)

    def _checked(self, space: dict[str, Any]) -> Job:
        """One job of the space, once its end points and choices are known to be right."""
        from descent.config import fail
        from descent.sweep import study

        if not space:
            fail("a study needs something to vary, as in 'optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))'")
        overrides = [[*self.fixed, *study.words(params)] for params in study.extremes(space)]
        return self.launcher.checked(overrides, 0)[0]

    def _job(self, trial: FrozenTrial) -> Job:
        import dataclasses

        from descent.sweep import study

        words = study.words(trial.params)
        job: Job = self.launcher.job([*self.fixed, *words], trial.number, words)
        if self.pruner == "none" or len(self.study.objectives) > 1:
            return job
        rung = max(1, round(job.per_epoch))
        watched = study.Pruning(self.launcher.sweep, trial._trial_id, self.pruner, job.monitor, job.steps, rung)  # type: ignore[arg-type]
        return dataclasses.replace(job, pruning=watched)

    def _more(self, free: int) -> list[Job]:
        """New trials for the free workers, those first that were left open."""
        from descent.sweep import running

        new: list[Job] = []
        while len(new) < free and (trial := self.left.pop(0) if self.left else self.study.ask()):
            job = self._job(trial)
            if job.folder in self.open:  # the same setting is running: one run is the result of both
                self.twins.setdefault(job.folder, []).append((trial, job))
                continue
            if running.admit(job, self.board, retry=False):
                self.open[job.folder] = trial
                new.append(job)
            else:
                self.study.tell(trial, job, self.board.outcomes[job.number])
        return new

    def _ended(self, job: Job, outcome: Outcome) -> None:
        self.study.tell(self.open.pop(job.folder), job, outcome)
        for trial, twin in self.twins.pop(job.folder, ()):
            self.board.add(twin, outcome)
            self.study.tell(trial, twin, outcome)

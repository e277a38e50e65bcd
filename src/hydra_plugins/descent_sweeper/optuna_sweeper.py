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
    from descent.sweep.sampling import Space
    from descent.sweep.settings import Settings


class OptunaSweeper(Sweeper):
    """Ask, run, tell; see `conf/hydra/sweeper/optuna.yaml` for the arguments."""

    def __init__(
        self,
        objective: str | Sequence[str] | None = None,
        params: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.given = {**settings, "objective": [objective] if isinstance(objective, str) else list(objective or ())}
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.parser = OverridesParser.create(hydra_context.config_loader)
        self.retry = config.retry is True  # anything else but false is refused with the first job
        self.open: dict[Path, FrozenTrial] = {}  # the trial that runs in each folder
        self.twins: dict[Path, list[tuple[FrozenTrial, Job]]] = {}  # those that wait for its result
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from descent.entry import run_main

        run_main(lambda: self._sweep(arguments))

    def _sweep(self, arguments: list[str]) -> None:
        from descent.folder import locked
        from descent.sweep import running
        from descent.sweep.board import Board
        from descent.sweep.study import Study

        self.settings, space = self._settings(), self._space(arguments)
        first = self._checked(space)
        with locked(self.launcher.sweep):
            objectives = self.settings.objective or (first.monitor,)
            self.study = Study(folder=self.launcher.sweep, space=space, settings=self.settings, objectives=objectives)
            if self.retry:
                self.study.retry()
            trials = self.settings.trials
            self.board = Board((), total=trials)
            self.board.say(f"study   {self.study.begun()} of {trials} trials begun\nfolder  {self.launcher.sweep}")
            self.left = self.study.left()
            workers = self.launcher.executor([first] * trials)
            code = running.conduct(workers, self.board, self.launcher.sweep, self._more, self._ended)
        self.launcher.leave(code)

    def _settings(self) -> Settings:
        from descent import wording
        from descent.sweep.settings import Settings

        return wording.built(Settings, self.given, "hydra.sweeper")

    def _space(self, arguments: list[str]) -> Space:
        """What is varied, on the command line and in `params`; the other words are kept as `fixed`."""
        from hydra_plugins.descent_sweeper._space import distribution

        typed = {word.lstrip("+").split("=")[0] for word in arguments}
        given = [f"{key}={value}" for key, value in self.params.items() if key not in typed]
        parsed = self.parser.parse_overrides([*given, *arguments])
        self.fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
        return {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}

    def _checked(self, space: Space) -> Job:
        """One job of the space, once its end points and choices, and the objectives, are known to be right."""
        from descent.config import to_experiment
        from descent.entry import fail
        from descent.sweep import sampling, study

        if not space:
            fail("a study needs something to vary, as in 'optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))'")
        sampling.sampler(self.settings.sampler, space, self.settings.seed, 0)  # it may not be for such a space
        overrides = [[*self.fixed, *study.words(params)] for params in sampling.extremes(space)]
        first: Job = self.launcher.checked(overrides, 0)[0]
        known = study.objectives(to_experiment(first.config).data.spec)
        for name in self.settings.objective:
            if name not in known:
                fail(f"hydra.sweeper.objective={name}: no run has it; choose from {', '.join(known)}")
            if self.settings.pruner != "none" and name != first.monitor:
                fail(
                    f"hydra.sweeper.objective={name}: hydra.sweeper.pruner={self.settings.pruner} compares trials by "
                    f"{first.monitor}; set callback.checkpoint.monitor={name}, or hydra.sweeper.pruner=none"
                )
        return first

    def _job(self, trial: FrozenTrial) -> Job:
        import dataclasses

        from descent.sweep import study

        words = study.words(trial.params)
        job: Job = self.launcher.job([*self.fixed, *words], trial.number, words)
        if self.settings.pruner == "none":
            return job
        watched = study.Pruning(
            folder=self.launcher.sweep,
            trial=trial._trial_id,
            pruner=self.settings.pruner,
            monitor=job.monitor,
            evaluations=job.evaluations,
        )
        return dataclasses.replace(job, pruning=watched)

    def _more(self, free: int) -> list[Job]:
        """New trials for the free workers, those first that were left open."""
        from descent.sweep import running
        from descent.types import UserError

        new: list[Job] = []
        while len(new) < free and (trial := self.left.pop(0) if self.left else self.study.ask()):
            try:
                job = self._job(trial)
            except UserError as error:  # values that are right one by one need not be so together
                self.board.say(f"trial {trial.number} is none: {error}")
                self.study.give_up(trial)
                continue
            if job.folder in self.open:  # the same setting is running: one run is the result of both
                self.twins.setdefault(job.folder, []).append((trial, job))
                continue
            if running.admit(job, self.board, self.retry):
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

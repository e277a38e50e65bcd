"""Every combination of the values given, each variant with its own rate if asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

# In the place of Hydra's own of that name, its default. An `override` in conf/train.yaml would win over every preset.
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node={"defaults": ["grid"]}, provider="descent")

if TYPE_CHECKING:
    from descent.sweep.job import Job
    from descent.sweep.tuning import Tuning


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, in one batch: our launchers check every job before the first starts, and keep the queue.

    See `conf/hydra/sweeper/grid.yaml` for the arguments.
    """

    launcher: Any

    def __init__(self, params: dict[str, str] | None = None, tune: Mapping[str, Any] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.tune = tune or None

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        pass

    def sweep(self, arguments: list[str]) -> Any:
        from descent.entry import run_main

        run_main(lambda: self._sweep(arguments))

    def _sweep(self, arguments: list[str]) -> None:
        from descent.sweep.job import distinct

        if self.tune is None:
            super().sweep(arguments)
            return
        words = self.combinations(arguments)
        self.conduct(words, distinct(words))

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """As Hydra's own, which of an interval says neither where it is nor what would take it."""
        from descent.types import UserError

        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise UserError(
                    f"{override.input_line}: a grid needs values; hydra/sweeper=optuna searches an interval"
                )
        batches: list[list[list[str]]] = BasicSweeper.split_arguments(overrides, max_batch_size)
        return batches

    def combinations(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job that Hydra's syntax of swept values means."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)[0]

    def conduct(
        self,
        words: Sequence[Sequence[str]],
        named: Sequence[Sequence[str]],
        begin: Callable[[list[Job | None]], None] = lambda _: None,
    ) -> None:
        """Runs the jobs of these overrides, called so; tuned first where that is asked for.

        Args:
            words: overrides of each job.
            named: what each is called.
            begin: told of the jobs before they run; of None for each whose variant could not be tuned.

        Raises:
            SystemExit: a job failed, or the sweep was stopped.
        """
        values, code = self._tuned(words, named) if self.tune is not None else ([[]] * len(words), 0)
        known = [i for i, value in enumerate(values) if value is not None]
        jobs = self.launcher.checked(
            [[*words[i], *values[i]] for i in known], 0, named=[[*named[i], *values[i]] for i in known]
        )
        placed = dict(zip(known, jobs, strict=True))
        self.launcher.sweep.mkdir(parents=True, exist_ok=True)
        begin([placed.get(i) for i in range(len(words))])
        self.launcher.leave(max(code, self.launcher.conduct(jobs, self.launcher.sweep)))

    def _tuned(self, words: Sequence[Sequence[str]], named: Sequence[Sequence[str]]) -> tuple[list[Any], int]:
        """For each job the override that sets its variant's best value, None for none; and the exit code of the search.

        Raises:
            SystemExit: the search was stopped.
        """
        from descent.sweep import closing, tuning

        plan = self._plan(words)
        labels = {tuning.variant(own): tuning.variant(called) for own, called in zip(words, named, strict=True)}
        variants, folder = list(labels), self.launcher.sweep / tuning.FOLDER
        folds = tuning.folds(words)
        called = plan.trials(list(labels.values()), folds)
        jobs = self.launcher.checked(plan.trials(variants, folds), 0, named=called, folder=folder)
        tuning.begin(self.launcher.sweep, plan)
        if (code := self.launcher.conduct(jobs, folder)) == closing.STOPPED:
            raise SystemExit(code)
        chosen = plan.chosen(variants, jobs)
        shown = {" ".join(labels[one]): chosen.get(one) for one in variants}
        tuning.write(self.launcher.sweep, plan, shown)
        print(f"\n{tuning.told(plan, shown, len(jobs) // len(variants))}\n", flush=True)
        best = {one: [f"{plan.key}={choice.value}"] for one, choice in chosen.items()}
        return [best.get(tuning.variant(own)) for own in words], code

    def _plan(self, words: Sequence[Sequence[str]]) -> Tuning:
        """What is tuned, once it is known to suit the comparison and the sweep's folder."""
        from descent import wording
        from descent.sweep import tuning
        from descent.types import UserError

        if not isinstance(self.tune, Mapping):
            given = wording.shown(self.tune)
            raise UserError(f"hydra.sweeper.tune={given}: should have key, values and seeds, as in sweep=tuned")
        plan = wording.built(tuning.Tuning, self.tune, "hydra.sweeper.tune")
        plan.check(words)
        tuning.check_key(self.launcher.sweep, plan)
        self._check_seeds(words, plan)
        return plan

    def _check_seeds(self, words: Sequence[Sequence[str]], plan: Tuning) -> None:
        """A wrong seed of the comparison ends the sweep before it begins; its variants are checked with the trials."""
        seeds = {next((word for word in own if word.startswith("seed=")), ""): own for own in words}
        self.launcher.checked([[*own, f"{plan.key}={plan.values[0]}"] for own in seeds.values()], 0)

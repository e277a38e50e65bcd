"""Which technique helps: each off in turn from the full recipe, and on alone, with the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra_plugins.descent_sweeper.grid import GridSweeper

if TYPE_CHECKING:
    from descent.sweep.job import Job


class AblationSweeper(GridSweeper):
    """Arms around the recipe that is composed; see `conf/hydra/sweeper/ablation.yaml` for the arguments."""

    def __init__(
        self,
        params: dict[str, str] | None = None,
        techniques: Mapping[str, str | None] | None = None,
        factors: Mapping[str, Sequence[str] | None] | None = None,
        tune: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params=params, tune=tune)
        self.techniques, self.factors = techniques, factors

    def _sweep(self, arguments: list[str]) -> None:
        from descent.sweep import ablation
        from descent.sweep.job import distinct

        arms = ablation.arms(*ablation.checked(self.techniques, self.factors))
        repeats = self.combinations(arguments)

        def begin(jobs: list[Job | None]) -> None:
            folders = iter(job.folder.name if job else "" for job in jobs)
            plan = ablation.Plan(tuple(arms), {arm.name: [next(folders) for _ in repeats] for arm in arms})
            plan.write(self.launcher.sweep)

        words = [ablation.merged([own, arm.words]) for arm in arms for own in repeats]
        self.conduct(words, [[arm.name, *own] for arm in arms for own in distinct(repeats)], begin)

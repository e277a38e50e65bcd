"""The launcher of a sweep: every job's config is checked before the first job starts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

ConfigStore.instance().store(
    group="hydra/launcher",
    name="checked",
    node={"_target_": "hydra_plugins.descent_launcher.launcher.CheckedLauncher"},
    provider="descent",
)


class CheckedLauncher(Launcher):
    """Runs jobs one after the other in this process, in folders named from their overrides and identity."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        try:
            configs = self._checked(job_overrides, initial_job_idx)
        except SystemExit:
            _leave_nothing(Path(str(self.config.hydra.sweep.dir)))
            raise
        returned = []
        for number, config in enumerate(configs):
            print(f"\njob {number + 1} of {len(configs)}: {' '.join(job_overrides[number])}", flush=True)
            returned.append(
                run_job(
                    hydra_context=self.hydra_context,
                    task_function=self.task_function,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return returned

    def _checked(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
        """Every job's config, composed and validated; the first that is wrong ends the sweep with its name."""
        from descent.config import fail, reworded, to_experiment
        from descent.identity import identity
        from descent.types import UserError

        configs = []
        for number, overrides in enumerate(job_overrides):
            where = f"job {number + 1} ({' '.join(overrides)})"
            try:
                config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
                experiment = to_experiment(config)
            except UserError as error:
                fail(f"{where}: {error}")
            except Exception as error:  # composition: whatever Hydra raises is reworded
                fail(f"{where}: {reworded(error, overrides)}")
            with open_dict(config):
                config.hydra.job.id = str(first + number)
                config.hydra.job.num = first + number
                config.hydra.sweep.subdir = f"{_folder_name(overrides)}-{identity(experiment)}"
            OmegaConf.set_readonly(config.hydra, None)
            configs.append(config)
        return configs


def _leave_nothing(folder: Path) -> None:
    """Takes back what Hydra's sweeper wrote before it called the launcher, where nothing else is there."""
    if [p.name for p in folder.iterdir()] == ["multirun.yaml"]:
        (folder / "multirun.yaml").unlink()
        for empty in (folder, folder.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _folder_name(overrides: Sequence[str]) -> str:
    """The overrides as a file name: `optimizer=adam,seed=1`, at most 120 characters."""
    words = ",".join(overrides) or "default"
    safe = "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in words)
    return safe[:120]

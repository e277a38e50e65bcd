"""What is entered from a command line: errors told in one line, the folder checked, the run started."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from descent import environment, initial
from descent.config import AUTO, COMPOSING, CONF, config_groups, planned, reworded
from descent.folder import RunFolder
from descent.signals import LEFT, Interruption
from descent.types import UserError

HELP = {"-h", "--help"}


def run_main(main: Callable[[], Any]) -> None:
    """Runs an entry; whatever a user can mend is one line on stderr and exit code 2."""
    try:
        main()
    except UserError as error:
        fail(str(error), error.code)
    except COMPOSING as error:
        fail(reworded(error, sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(LEFT) from None
    except OSError as error:
        fail(str(error), code=4)


def run_train(main: Callable[[], Any]) -> None:
    """Runs Hydra's main of `train.py`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, for us to reword
    try:
        run_main(main if not HELP & set(sys.argv[1:]) else lambda: print(_help()))
    except SystemExit as end:
        if end.code != LEFT:
            raise
        sys.stdout.flush()
        os._exit(LEFT)  # all is written, and TensorFlow would take more than a second to take itself down


def _help() -> str:
    """What `--help` shows. Hydra's own walks all groups twice, which takes it a second."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose("train", return_hydra_config=True)
    groups = (f"  {g}: {', '.join(sorted(p.stem for p in (CONF / g).glob('*.yaml')))}" for g in sorted(config_groups()))
    keys = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    words = config.hydra.help
    return "\n".join([words.header, "Groups (group=option):", *groups, "", "Keys (key=value):", keys, words.footer])


def fail(message: str, code: int = 2) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


class Guard(Callback):
    """Checks the whole config before Hydra makes the run folder, so that a mistake leaves nothing behind."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            run = planned(config, list(config.hydra.overrides.task), config.hydra.run.dir)
            if run.strategy.worker():
                return  # the chief sees to the folder
            _check_folder(config, list(config.hydra.overrides.hydra))
            if not RunFolder(config.hydra.run.dir).used:
                initial.checked(run)
        except UserError as error:
            fail(str(error))


def _check_folder(config: DictConfig, words: list[str]) -> None:
    """Whether the folder that Hydra is about to make suits a start: before it is made."""
    fixed = any(word.startswith("hydra.run.dir=") for word in words)
    if config.resume == AUTO and not fixed:
        raise UserError("resume=auto needs a folder that is the same each time: add hydra.run.dir=FOLDER")
    own = config.resume and config.resume != AUTO
    if own and Path(config.resume).absolute() != Path(config.hydra.run.dir).absolute():
        raise UserError(f"resume={config.resume}: a run goes on in its own folder; leave hydra.run.dir out")
    if not config.resume and RunFolder(config.hydra.run.dir).used:
        raise UserError(
            f"{config.hydra.run.dir} holds a run already, which is not overwritten; continue it with resume=auto"
        )


class ComparisonAtTheEnd(Callback):
    """Compares the runs of a sweep when it is over; what it writes stands beside their folders."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from descent import compare
        from descent.runs import find

        folder = Path(str(config.hydra.sweep.dir))
        try:
            found = compare.compare(find([folder]))
        except UserError as error:  # every run failed, say: the sweep has said so
            print(error, file=sys.stderr)
            return
        print(f"\n{compare.text(found)}\n{compare.write(found, folder / 'comparison')}")


def start(config: DictConfig) -> float:
    """The body of `train.py`: trains the planned run in the folder Hydra made; returns the objective."""
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    folder = hydra.runtime.output_dir
    experiment = planned(config, overrides, folder)
    try:
        with Interruption():  # a signal ends the process at once
            environment.load()
        result = experiment.run(folder, overrides=overrides, mismatch=config.resume_mismatch)
    # Here, because Hydra has words of its own for what leaves its main.
    except UserError as error:
        with contextlib.suppress(OSError):  # it is not empty
            Path(folder).rmdir()
        fail(str(error), error.code)
    except OSError as error:
        fail(str(error), code=4)
    sweeping = hydra.mode == RunMode.MULTIRUN
    if result.exit_code and not (sweeping and result.summary["status"] == "halted"):
        raise SystemExit(result.exit_code)  # a halted job of a sweep is a result: the others go on
    return result.objective

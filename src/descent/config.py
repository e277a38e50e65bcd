"""Hydra and OmegaConf live here: composing, instantiating, readable errors, and reading a run back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from descent import initial, wording
from descent.data import Remembered, absent
from descent.experiment import Experiment, refuse_another
from descent.folder import RunFolder
from descent.strategy import Single
from descent.types import UserError

if TYPE_CHECKING:
    import keras
    import pandas

    from descent.session import Built

_HERE = Path(__file__).resolve().parent
PROJECT = _HERE.parents[1] if (_HERE.parents[1] / "conf").is_dir() else Path.cwd()
CONF = PROJECT / "conf" if (PROJECT / "conf").is_dir() else _HERE / "conf"

# Keys of the root config that say how to run, not what.
NOT_FIELDS = ("hydra", "resume", "resume_mismatch", "retry")
# What may differ when a run is continued: it changes no result.
FREE_ON_RESUME = ("resume", "resume_mismatch", "logger", "hydra", "strategy")
NOT_OF_SWEEP = ("name=", "tags=", "retry=", "resume_mismatch=", "logger")  # what a sweep may be given anew with
AUTO = "auto"  # resume=auto: start, continue, or report that the run is complete

# What composing raises; Hydra says "Config group override must be" with a plain ValueError.
COMPOSING = (HydraException, OmegaConfBaseException, ValueError)


# --- resolvers: where a run writes -------------------------------------------------------------------------------


def new_folder(name: str) -> Path:
    """A folder for a new run, under the project's `outputs/` whatever the working directory is."""
    return PROJECT / "outputs" / name / f"{datetime.now():%Y%m%d-%H%M%S-%f}"


def sweep_folder(name: str, words: Sequence[str]) -> Path:
    """The folder of a sweep: of what is varied and of what is fixed, but not of the values that are tried.

    So the same command finds its jobs again, and one with more values adds to them.
    """
    words = sorted(word for word in words if not word.startswith(NOT_OF_SWEEP))
    varied = [o.is_sweep_override() for o in OverridesParser.create().parse_overrides(words)]
    keys = [word.split("=")[0] if swept else word for word, swept in zip(words, varied, strict=True)]
    shown = "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in ",".join(keys) or "default")[:80]
    digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:6]
    return PROJECT / "outputs" / name / f"sweep-{shown}-{digest}"


def _run_dir(resume: Any, name: str) -> str:
    """The folder of the run; of a `resume` that `check_course` will refuse a new one, which is never made."""
    continued = isinstance(resume, str) and resume not in ("", AUTO)
    return str(Path(resume).absolute() if continued else new_folder(str(name)))


# Cached: Hydra resolves the folder several times, and it must stay the same one.
OmegaConf.register_new_resolver("run_dir", _run_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver("sweep_dir", lambda name, words: str(sweep_folder(str(name), words)), replace=True)


# --- from a config to an experiment ------------------------------------------------------------------------------


def to_experiment(config: DictConfig | dict[str, Any]) -> Experiment:
    """The experiment that a composed config, or its plain data, describes.

    Raises:
        UserError: a value is wrong, in one line.
    """
    known = [str(key) for key in config if key not in NOT_FIELDS]
    config = OmegaConf.masked_copy(config if isinstance(config, DictConfig) else OmegaConf.create(config), known)
    try:
        return instantiate(config)
    except InstantiationException as error:
        raise UserError(_instantiation(error, config)) from error
    except OmegaConfBaseException as error:
        raise UserError(wording.composition(str(error), (), {})) from error


def _instantiation(error: InstantiationException, config: DictConfig) -> str:
    found = re.search(r"full_key: ([^\s\"]+)", str(error))
    key = found[1] if found else ""
    node = OmegaConf.select(config, key) if key else config
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, ValidationError):
        return wording.validation(cause, key, _class(target))
    if isinstance(cause, (ImportError, AttributeError)) or "locat" in str(error):
        return f"{key or 'config'}._target_={target}: no such class can be imported"
    if isinstance(cause, UserError):
        return str(cause)
    return f"{key or 'config'}: {' '.join(str(cause).split())}"


def _class(target: str | None) -> type | None:
    try:
        return get_class(target) if target else None
    except Exception:
        return None


def check_course(config: DictConfig) -> None:
    """Whether the keys that say how to run, and not what, mean something: a part that is built checks its own.

    Raises:
        UserError: one of them does not.
    """
    resume = config.resume
    known = {
        "resume": (resume is None or (isinstance(resume, str) and resume != ""), "a folder, or auto"),
        "resume_mismatch": (config.resume_mismatch in ("refuse", "warn"), "refuse or warn"),
        "retry": (isinstance(config.retry, bool), "true or false"),
    }
    for key, (right, wanted) in known.items():
        if not right:
            raise UserError(f"{key}={wording.shown(_plain(config[key]))}: should be {wanted}")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def saved_overrides(overrides: list[str]) -> list[str]:
    """Overrides that a run being continued must not be given."""
    return [word for word in overrides if _group(word) not in FREE_ON_RESUME]


def _group(word: str) -> str:
    """The first part of an override's key, as in `logger` of `+logger.wandb.mode=offline`."""
    return re.split(r"[./=@]", word.lstrip("+~"))[0]


def planned(config: DictConfig, overrides: list[str], folder: str | Path) -> Experiment:
    """What is to be run in a folder: the composed config, or the saved one of the run that is continued.

    Raises:
        UserError: a value is wrong, or what was given does not agree with the run that is there.
    """
    check_course(config)
    place = RunFolder(folder)
    if not config.resume or (config.resume == AUTO and not place.used):
        return to_experiment(config)
    if config.resume == AUTO:
        composed = to_experiment(config)
        saved = load_experiment(place.path)
        refuse_another(composed, saved, place)
        return dataclasses.replace(saved, logger=composed.logger, strategy=composed.strategy)
    if refused := saved_overrides(overrides):
        raise UserError(f"{refused[0]}: a run is continued with its own config; only logger and strategy may differ")
    saved = load_experiment(config.resume)
    given = {_group(word) for word in overrides} & {"logger", "strategy"}
    composed = to_experiment(config) if given else saved
    return dataclasses.replace(saved, **{name: getattr(composed, name) for name in given})


def load_experiment(folder: str | Path, *, data: bool = True) -> Experiment:
    """The experiment a run folder was made by, with what its data had fitted.

    Args:
        folder: of the run.
        data: whether the data is wanted; without, it may be gone, and what the folder tells of it is enough.

    Raises:
        UserError: the folder holds no run.
    """
    config, place = _saved(folder), Path(folder).absolute()
    if not data and (place / absent.FILE).exists():
        config.data = {"_target_": "descent.data.absent.Absent", "folder": str(place), "source": config.data}
    experiment = to_experiment(config)
    if isinstance(experiment.data, Remembered):
        return dataclasses.replace(experiment, data=experiment.data.kept(place))
    return experiment


def _saved(folder: str | Path) -> DictConfig:
    """The config in the folder of a run."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: no run folder (it has no config.yaml)")
    try:
        config = OmegaConf.load(path)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} is damaged: it holds no mapping")
    config["_convert_"] = "all"
    return config


# --- from Python -----------------------------------------------------------------------------------------------------


def compose(*overrides: str) -> Experiment:
    """The experiment of `python train.py OVERRIDES`, without the command line.

    Raises:
        UserError: an override is wrong, in one line.
    """
    if wrong := [word for word in overrides if not isinstance(word, str)]:
        raise UserError(f"compose: {wrong[0]!r} is no text; write compose('optimizer=sgd', 'seed=1')")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return initial.checked(to_experiment(hydra_compose("train", list(overrides))))
    except COMPOSING as error:
        raise UserError(reworded(error, overrides)) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A finished run, for a notebook.

    Attributes:
        model: the Keras model with its best weights.
        experiment: the run's config, as the value it is.
        metrics: the log, a row a record, indexed by step.
        summary: the content of `summary.json`.
    """

    model: keras.Model
    experiment: Experiment
    metrics: pandas.DataFrame
    summary: dict[str, Any]


def load(folder: str | Path) -> Loaded:
    """Reads a finished run back.

    Raises:
        UserError: the folder holds no run, or its best weights are missing or damaged.
    """
    import pandas

    from descent.folder import read_rows

    experiment, built, place = restore(folder)
    metrics = pandas.DataFrame(read_rows(place.metrics)).set_index("step")
    summary = place.read_json("summary.json")
    return Loaded(model=built.state.model, experiment=experiment, metrics=metrics, summary=summary)


def restore(folder: str | Path, *, data: bool = True) -> tuple[Experiment, Built, RunFolder]:
    """The experiment of a finished run, built, with the best weights in its model; `data` as in `load_experiment`.

    Raises:
        UserError: the folder holds no run, or its best weights are missing or damaged.
    """
    from descent import checkpoint
    from descent.session import build

    place = RunFolder(folder)
    experiment = dataclasses.replace(load_experiment(place.path, data=data), strategy=Single())
    if not place.complete and not (place.checkpoints / "best").is_dir():
        raise UserError(f"{place.near}: the run is not finished; go on with python train.py resume={place.near}")
    weights = checkpoint.load_weights(place.checkpoints / "best")
    built = build(experiment.resolved())
    built.state.best = weights
    built.state.use_best()
    return experiment, built, place


# --- errors --------------------------------------------------------------------------------------------


def reworded(error: BaseException, overrides: Sequence[str]) -> str:
    """What Hydra or OmegaConf raised while composing, in one line."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override; write key=value, and quote what has spaces or brackets"
    if isinstance(error, OmegaConfBaseException) or "Could not" in str(error):
        groups = {group: [path.stem for path in (CONF / group).glob("*.yaml")] for group in config_groups()}
        return wording.composition(str(error), _known_keys(overrides), groups)
    if isinstance(error, ValueError) and "Config group override" not in str(error):
        raise error
    return wording.composition(str(error), (), {})


def config_groups() -> list[str]:
    return [str(p.relative_to(CONF)) for p in CONF.rglob("*") if p.is_dir() and p.name != "hydra"]


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every key of the config with the options that were chosen, dotted."""
    groups, chosen = config_groups(), []
    for word in overrides:
        group, _, option = word.partition("=")
        if group in groups and (CONF / group / f"{option}.yaml").is_file():
            chosen.append(word)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(hydra_compose("train", chosen))

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        inner = [key for name, child in node.items() for key in walk(child, f"{prefix}.{name}".lstrip("."))]
        return [*([prefix] if prefix else []), *inner]

    return [key for key in walk(config, "") if not key.endswith("_")]

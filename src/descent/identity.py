"""A run's config as plain data, and the hash that says which run it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# What a run is called, where it writes, what it shows: none of it changes a result.
OUTSIDE = ("name", "tags", "logger", "resume")
# Where a run computes changes its last bits (and dropout's masks), which a checkpoint's provenance tells.
ONE_DEVICE = {"_target_": "descent.strategy.Single"}
# What is no part of the compiled program: seed and rates are variables of it, the rest acts from outside.
UNCOMPILED = ("seed", "schedule", "callback", "init_from", *OUTSIDE)
# Paths that say what a run is, and not only where its data lies on this machine.
ALWAYS = ("init_from",)


def as_config(value: Any) -> Any:
    """A part as the config that makes it: `_target_` and every field, down to plain data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: as_config(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"_target_": target(value), **fields}
    if isinstance(value, Mapping):
        return {key: as_config(inner) for key, inner in value.items()}
    return [as_config(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def target(value: Any) -> str:
    """The shortest public path of a part's class, so that moving it inside its package changes no hash."""
    cls, words = type(value), type(value).__module__.split(".")
    for length in range(1, len(words)):
        package = ".".join(words[:length])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def to_yaml(value: Any) -> str:
    return yaml.safe_dump(as_config(value), sort_keys=False, allow_unicode=True)


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config with its dotted key; an empty mapping is a value."""
    if not isinstance(config, Mapping) or not config:
        yield prefix, config
        return
    for key, value in config.items():
        yield from flat(value, f"{prefix}.{key}".lstrip("."))


def identity(experiment: Any) -> str:
    """Twelve hex digits that are equal for runs with equal results.

    Only what differs from the defaults is hashed, so an option added later does not change the hash of a run
    that does not use it.
    """
    chosen = {key: value for key, value in _differing(experiment).items() if key not in OUTSIDE}
    chosen["strategy"] = ONE_DEVICE
    return _digest(chosen)


def program(experiment: Any) -> str:
    """Twelve hex digits that are equal for experiments with the same compiled program."""
    config = {name: value for name, value in as_config(experiment).items() if name not in UNCOMPILED}
    if type(experiment.optimizer).__module__.startswith("descent."):  # one from elsewhere may use it as it likes
        del config["optimizer"]["learning_rate"]
    return _digest(config)


def _digest(config: Any) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=_plain).encode()).hexdigest()[:12]


def _plain(table: Any) -> list[str]:
    """What tells an array that a part has made for its data from others."""
    if not isinstance(table, np.ndarray):
        raise TypeError(f"{type(table).__name__} is no plain data")
    return [str(table.dtype), str(table.shape), hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()]


def _differing(value: Any) -> Any:
    """The config of a part without the fields that have their default value, and without absolute paths."""
    if dataclasses.is_dataclass(value):
        config: dict[str, Any] = {"_target_": target(value)}
        for field in dataclasses.fields(value):
            now = getattr(value, field.name)
            if not _is_default(field, now) and (field.name in ALWAYS or not _is_absolute(now)):
                config[field.name] = _differing(now)
        return config
    if isinstance(value, Mapping):
        return {key: _differing(inner) for key, inner in value.items()}
    return as_config(value)


def _is_default(field: dataclasses.Field[Any], now: Any) -> bool:
    # A part as a default (the model, say) is always named: which one is the default may change.
    return not dataclasses.is_dataclass(now) and field.default is not dataclasses.MISSING and field.default == now


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()

"""What the scripts share: their arguments, read into a part, and mistakes in them told in one line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from descent import wording
from descent.config import HELP, PROJECT, run_main
from descent.types import UserError

T = TypeVar("T")


def script_words(about: str | None) -> list[str]:
    """The arguments of a script; without any, or where help is asked for, prints what it is about and ends."""
    words = sys.argv[1:]
    if not words or words[0] in HELP:
        print(about)
        raise SystemExit(0 if words else 2)
    sys.path.insert(0, str(PROJECT))  # where `python train.py` finds a user's own modules
    return words


def run_script(command: Callable[..., Callable[[], None]]) -> None:
    """Runs a script of `key=value` arguments: a part whose fields are the keys and whose call is the work."""
    words = script_words(sys.modules[command.__module__].__doc__)
    run_main(lambda: made(command, dict(_pair(word) for word in words))())


def parted(kind: type[T], words: Iterable[str]) -> tuple[T, list[str]]:
    """Words for a script's own part, and those that are left: overrides of a run.

    Raises:
        UserError: a value is wrong.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    own = [word for word in words if word.partition("=")[0] in names]
    return made(kind, dict(_pair(word) for word in own)), [word for word in words if word not in own]


def made(kind: Callable[..., T], given: dict[str, str]) -> T:
    """A part from its fields as written in a shell.

    Raises:
        UserError: there is no such field, or its value is wrong.
    """
    try:
        return kind(**{key: _value(text) for key, text in given.items()})
    except ValidationError as error:
        raise UserError(wording.validation(error, "", kind if isinstance(kind, type) else None)) from error


def _value(text: str) -> Any:
    """As YAML, in which 1e-6 is no number, but here it is."""
    value = yaml.safe_load(text)
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{word}: write key=value")
    return key, value

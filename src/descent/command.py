"""What the scripts share: their arguments, read into a part, and mistakes in them told in one line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import yaml

from descent import wording
from descent.config import PROJECT
from descent.entry import HELP, run_main
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


def run_script(command: type[Callable[[], None]]) -> None:
    """Runs a script of `key=value` arguments: a part whose fields are the keys and whose call is the work."""
    words = script_words(sys.modules[command.__module__].__doc__)
    run_main(lambda: _made(command, words)())


def parted(kind: type[T], words: Sequence[str]) -> tuple[T, list[str]]:
    """Words for a script's own part, and those that are left: overrides of a run.

    Raises:
        UserError: a value is wrong.
    """
    own = [word for word in words if word.partition("=")[0] in _kinds(kind)]
    return _made(kind, own), [word for word in words if word not in own]


def _made(kind: type[T], words: Sequence[str]) -> T:
    """A part from its fields as written in a shell."""
    given, kinds = dict(map(_pair, words)), _kinds(kind)
    return wording.built(kind, {key: _value(text, kinds.get(key, "")) for key, text in given.items()})


def _kinds(kind: Any) -> dict[str, str]:
    """The annotation of each field."""
    return {field.name: str(field.type) for field in dataclasses.fields(kind)}


def _value(text: str, kind: str) -> Any:
    """As YAML, in which 1e-6 is no number, but here it is; words where words are wanted stay as they are."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind.startswith("str"):
        return None if value is None else text
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

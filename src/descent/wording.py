"""Errors for people: one line that names the key, the value and what would be right."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from descent.types import UserError

T = TypeVar("T")


def close(word: str, choices: Iterable[str]) -> str:
    """A remark to append: "did you mean ...?", or all choices where there are few, or nothing."""
    known = sorted(set(choices))
    if near := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return f"; did you mean {near[0]}?"
    return f"; choose one of {', '.join(known)}" if 0 < len(known) <= 20 else ""


def built(kind: type[T], given: Mapping[str, Any], key: str = "") -> T:
    """The part at `key` that has these fields.

    Raises:
        UserError: there is no such field, or its value is wrong.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        raise UserError(validation(error, key, kind)) from error


def validation(error: ValidationError, key: str, cls: type | None) -> str:
    """The first mistake in the values of a part at `key`; more are counted."""
    # A mistyped key comes before the one that is missing because of it.
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"].startswith("missing"))
    line = _mistake(mistakes[0], key, cls)
    return line if len(mistakes) == 1 else f"{line} (and {len(mistakes) - 1} more)"


def _mistake(mistake: Any, key: str, cls: type | None) -> str:
    kind, where = mistake["type"], [str(word) for word in mistake["loc"]]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        fields = [f.name for f in dataclasses.fields(cls)] if cls and dataclasses.is_dataclass(cls) else []
        return f"{_join(key, where)}: there is no such key{close(where[-1], fields)}"
    if kind.startswith("missing"):
        return f"{_join(key, where)} is needed"
    said = _plain(mistake["msg"])
    if not where:  # a check over several fields, which names them itself
        return f"{key}: {said}" if key else said
    return f"{_join(key, where)}={shown(mistake['input'])}: {said}"


_PLAIN = (
    (r"^(Value error, |Input )", ""),
    (r"should be a valid integer.*", "should be a whole number"),
    (r"should be a valid (tuple|list)", "should be a list, as in [64,32]"),
    (r"should be a valid boolean", "should be true or false"),
    (r"should be a valid ", "should be a "),
    (r"should be greater than or equal to", "should be at least"),
    (r"should be less than or equal to", "should be at most"),
    (r"should be greater than", "should be above"),
    (r"should be less than", "should be below"),
    (
        r"(?:Tuple|List|Value) should have at least (\d+) (items?) after validation, not \d+",
        r"should have at least \1 \2",
    ),
    (r"should be an instance of (\w+)", r"should be a part of the kind \1"),
)


def _plain(message: str) -> str:
    """Pydantic's message in the words of the command line."""
    for pattern, plain in _PLAIN:
        message = re.sub(pattern, plain, message)
    return message


def _join(key: str, words: list[str]) -> str:
    joined = ".".join([*([key] if key else []), *words])
    return re.sub(r"\.(\d+)\b", r"[\1]", joined)


def shown(value: Any) -> str:
    """A value as one would write it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(shown(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{shown(v)}" for k, v in value.items()) + "}"
    return str(value) if isinstance(value, (str, int, float)) else type(value).__name__


def composition(text: str, keys: Iterable[str], groups: Mapping[str, Sequence[str]]) -> str:
    """What Hydra says of an unknown group, option or key, in one line; `groups` are there with their options."""
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'\s+Available options in '[^']+':(.*)", text, re.S):
        group, option, rest = found.groups()
        options = rest.split("Config search path")[0].split()
        return f"{group}={option}: there is no such option{close(option, options)}"
    if found := re.search(r"Could not override '([^']+)'", text):
        key, known = found[1].split("@")[0], list(keys)
        if "." in key or key in {k.split(".")[0] for k in known}:
            return f"{key}: there is no such key{_close_key(key, known)}"
        near = close(key, [*groups, *(k for k in known if "." not in k)])
        return f"{key}: there is no such group or key{near or _close_key(key, known)}"
    if found := re.search(r"Could not load '([^']+)/([^'/]+)'", text):  # one of a list
        return f"{found[1]}: there is no option {found[2]}{close(found[2], groups.get(found[1], ()))}"
    if found := re.search(r"Ambiguous value for argument '([^']+?)=([^']*)'", text):
        return f"{found[1]}={found[2]}: to sweep over these values add -m; as a list, write {found[1]}=[{found[2]}]"
    if found := re.search(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"+{found[1]}: the key is there already; leave out the +"
    if "Config group override must be" in text:
        return "a group cannot be null; choose an option (`none` where it can be off)"
    return " ".join(text.split())


SHORT = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "epoch": "epochs",
    "beta1": "beta_1",
}


def _close_key(key: str, known: list[str]) -> str:
    """The key that was meant: an alike or abbreviated one beside it, the same one elsewhere, or all beside it."""
    parent, _, last = key.rpartition(".")
    last = SHORT.get(last, last)
    beside = [k.rsplit(".", 1)[-1] for k in known if k.rpartition(".")[0] == parent]
    if near := difflib.get_close_matches(last, [word for word in beside if _join(parent, [word]) != key], n=1):
        return f"; did you mean {_join(parent, near)}?"
    if elsewhere := [k for k in known if k.rsplit(".", 1)[-1] == last and k != key]:
        return f"; did you mean {elsewhere[0]}?"
    return f"; choose one of {', '.join(sorted(beside))}" if parent and 0 < len(beside) <= 20 else ""


def fault(error: BaseException) -> str:
    """What a library or the system says of its failure, without the names of graph nodes."""
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    said = re.sub(r"^.*?Error in user-defined function.*?Iterator::\S+: ", "", said, flags=re.S)
    nodes = r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\](?: name:)?|Detected at node.*"
    return " ".join(re.sub(nodes, " ", said, flags=re.S).split())

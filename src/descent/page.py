"""Pages that need only a browser: what those of a run and of a sweep share."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """A page from a template of this package. It loads nothing, and prints well."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values)


def embedded(content: bytes, kind: Literal["png", "svg+xml"]) -> str:
    """A figure as an address that needs no file."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def reproduction(environment: dict[str, Any], *, alone: bool) -> tuple[str, dict[str, str]]:
    """The command that makes a run (or, not alone, the sweep it is part of) again, and what else it depends on."""
    typed, overrides = environment.get("command", []), environment.get("overrides", [])
    words = ["train.py", *overrides, *_beside(typed, overrides)] if alone and overrides else typed
    rest = {key: in_words(v) for key, v in environment.items() if key not in ("command", "overrides", "seed")}
    return shlex.join(["python", *words]), rest


def in_words(value: Any) -> str:
    """A value of JSON for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {in_words(v)}" for key, v in value.items())
    if isinstance(value, list):
        value = ", ".join(map(in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


def _beside(typed: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """What else a run of a sweep takes: where its options are, and to be one run where an experiment is a sweep."""
    found = [word for word in typed if word.startswith("hydra.searchpath=")]
    job = any(word not in typed for word in overrides)
    sweeping = any(word.startswith(("experiment=", "sweep=")) for word in overrides)
    return found + ["hydra.mode=RUN"] * (job and sweeping)

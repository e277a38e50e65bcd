"""The design of an ablation: the recipe, without each technique in turn, and with each alone; where its runs are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from descent import wording
from descent.folder import write_atomic
from descent.types import UserError

FILE = "ablation.json"
FULL, BARE = "full recipe", "none of them"
Kind = Literal["recipe", "in the recipe", "alone", "all together", "factor"]


class Arm(NamedTuple):
    """One setting of the ablation (an arm of the trial).

    Attributes:
        name: of its folders and in tables.
        words: the overrides that make it from the full recipe.
        kind: what it is compared for; "recipe": it is compared with nothing.
        subject: the technique, or the level of a factor.
        reference: name of the arm it is compared with.
    """

    name: str
    words: tuple[str, ...] = ()
    kind: Kind = "recipe"
    subject: str = ""
    reference: str = FULL


def checked(techniques: Any, factors: Any) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What an ablation is asked to compare, as `arms` takes it; what is set to null is not asked about.

    Raises:
        UserError: there is nothing, or something is written in another form.
    """
    off, levels = _asked("techniques", techniques), _asked("factors", factors)
    if not off and not levels:
        raise UserError("hydra.sweeper.techniques: an ablation needs techniques or factors; try sweep=ablation")
    for name, words in off.items():
        if not _overrides(words):
            _refuse(f"techniques.{name}", words, "overrides in one text, apart by spaces, as in 'a.b=0 c=none'")
    for name, own in levels.items():
        if not isinstance(own, list) or not all(map(_overrides, own)):
            example = f"[{own}]" if _overrides(own) else "[a.b=1,'a.b=2 c=none']"
            _refuse(f"factors.{name}", own, f"a list of levels, each as overrides in one text, as in {example}")
    return off, levels


def _asked(key: str, given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        _refuse(key, given, "a mapping of names, as in sweep=ablation")
    return {str(name): value for name, value in (given or {}).items() if value is not None and value not in ("", [])}


def _overrides(text: Any) -> bool:
    words = text.split() if isinstance(text, str) else []
    return bool(words) and all("=" in word or word.startswith("~") for word in words)


def _refuse(key: str, value: Any, wanted: str) -> NoReturn:
    raise UserError(f"hydra.sweeper.{key}={wording.shown(value)}: should be {wanted}")


def arms(techniques: Mapping[str, str], factors: Mapping[str, Sequence[str]]) -> list[Arm]:
    """The recipe; without each technique; with each alone; with none; and with each level of each factor.

    Args:
        techniques: for each what takes it out of the recipe: overrides, apart by spaces.
        factors: for each the levels it has beside the recipe's own: each as overrides.
    """
    off = {name: tuple(words.split()) for name, words in techniques.items()}
    found = [Arm(FULL)]
    found += [Arm(f"without {name}", words, "in the recipe", name) for name, words in off.items()]
    if off:
        found.append(Arm(BARE, merged(off.values()), "all together", "all together"))
    if len(off) > 1:
        others = {name: [words for key, words in off.items() if key != name] for name in off}
        found += [Arm(f"{name} alone", merged(rest), "alone", name, BARE) for name, rest in others.items()]
    for factor, levels in factors.items():
        for level in levels:
            name = " ".join([factor, *(word.partition("=")[2] or word for word in level.split())])
            found.append(Arm(name, tuple(level.split()), "factor", name))
    return found


def merged(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Overrides one after the other; of the same key the last counts."""
    return tuple({word.split("=")[0]: word for words in parts for word in words}.values())


class Plan(NamedTuple):
    """The arms, and the folder of each of their runs: one a repetition, in the same order; "" where there is none."""

    arms: tuple[Arm, ...]
    folders: Mapping[str, Sequence[str]]

    def write(self, sweep: Path) -> None:
        content = {"arms": [arm._asdict() for arm in self.arms], "folders": dict(self.folders)}
        write_atomic(sweep / FILE, json.dumps(content, indent=2) + "\n")

    @property
    def names(self) -> dict[str, str]:
        """The arm of each folder; of two arms with the same config the first."""
        return {folder: arm.name for arm in reversed(self.arms) for folder in self.folders[arm.name] if folder}

    @property
    def idle(self) -> list[str]:
        """Techniques and levels that change nothing: they are so in the recipe already."""
        acting = {arm.subject for arm in self.arms if not self.is_idle(arm)}
        return list(dict.fromkeys(arm.subject for arm in self.arms if arm.subject and arm.subject not in acting))

    def is_idle(self, arm: Arm) -> bool:
        """Whether its runs are those of the arm it is compared with."""
        return bool(arm.subject) and self.folders[arm.name] == self.folders[arm.reference]


def plan(sweep: Path) -> Plan | None:
    """The plan of a sweep that is an ablation."""
    if not (sweep / FILE).exists():
        return None
    content = json.loads((sweep / FILE).read_text(encoding="utf-8"))
    rows = [Arm(**{**arm, "words": tuple(arm["words"])}) for arm in content["arms"]]
    return Plan(tuple(rows), content["folders"])

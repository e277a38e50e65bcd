"""Finished runs, read back from their folders: what was run, what came out, and which runs are seeds of one variant."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from descent.folder import read_rows
from descent.identity import flat
from descent.types import Record, UserError

# What says nothing of the variant: names, displays, and what tells its repetitions apart.
FOLD = "data.fold"
REPEATS = ("seed", FOLD)
TUNING = "tuning"  # the folder of a sweep's runs that set each variant's rate: no part of its comparison
CHOSEN = "tuning.json"  # what they led to
COMPARABLE = ("val/accuracy", "val/mse", "val/mae")  # mean the same whatever loss is minimised
OUTSIDE = ("name", "tags", "logger", "resume", "resume_mismatch", "retry", "hydra")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """One run folder with a summary.

    Attributes:
        config: the resolved config, as plain data.
        summary: the content of `summary.json`.
        overrides: words of the command line that started it; none where it was started from Python.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    overrides: tuple[str, ...]

    @property
    def repeat(self) -> tuple[Any, ...]:
        """Which repetition of its variant: the seed, and the fold where there is one."""
        return self.config.get("seed", 0), self.config.get("data", {}).get("fold")

    @property
    def completed(self) -> bool:
        return self.summary.get("status") == "completed"

    @cached_property
    def rows(self) -> list[Record]:
        """The log."""
        return read_rows(self.path / "metrics.jsonl")

    @cached_property
    def timing(self) -> list[Record]:
        """Seconds at each evaluation."""
        return read_rows(self.path / "timing.jsonl")

    def final(self, name: str) -> float:
        """A final metric by its record name; NaN where the run has none or it is not finite."""
        value = float(self.summary.get(name, np.nan))
        return value if np.isfinite(value) else np.nan

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric in the log."""
        pairs = [(row["step"], row[name]) for row in self.rows if name in row]
        return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs])


@dataclasses.dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but seed and fold, in the order of these."""

    label: str
    runs: tuple[FinishedRun, ...]

    def final(self, name: str) -> dict[tuple[Any, ...], float]:
        """The final metric of each repetition."""
        return {run.repeat: run.final(name) for run in self.runs}


def read(folder: Path) -> FinishedRun:
    """One run folder.

    Raises:
        UserError: it is none, or one of its files is damaged.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder}: no finished run ({Path(error.filename).name} is missing)") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder}: damaged run folder: {' '.join(str(error).split())}") from error
    return FinishedRun(folder, config, summary, tuple(about.get("overrides", ())))


def find(folders: Iterable[str | Path]) -> list[FinishedRun]:
    """All runs with a summary in or below the folders, in the order of their paths, but for those that only tuned.

    Where a sweep was tuned again and chose another value for a variant, the runs with the one before are left out, too.

    Raises:
        UserError: a folder is not there or holds no such run.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
        below = [path.parent for path in sorted(folder.rglob("summary.json")) if (path.parent / "config.yaml").exists()]
        below = [path for path in below if not only_tuned(path, folder)]
        if not below:
            raise UserError(f"{folder}: no finished run in it (none has config.yaml and summary.json)")
        found |= {path.resolve(): read(path) for path in below if path.resolve() not in found}
    tuned = {parent: _tuned(parent) for parent in {run.path.parent for run in found.values()}}
    return [run for run in found.values() if not _superseded(run, tuned[run.path.parent])]


def only_tuned(run: Path, folder: Path) -> bool:
    """Whether a run below a folder only set the rate of a sweep's variant: any folder may be named so."""
    above = [place for place in run.parents if place.is_relative_to(folder) and place != folder]
    return any(place.name == TUNING and (place.parent / CHOSEN).exists() for place in above)


def _tuned(sweep: Path) -> dict[str, Any]:
    """What tuning led to in a sweep; nothing where nothing was tuned."""
    path = sweep / CHOSEN
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"key": "", "chosen": []}


def _superseded(run: FinishedRun, tuned: Mapping[str, Any]) -> bool:
    """Whether its sweep has chosen another value of what was tuned for its variant."""
    words = _of_variant(run.overrides)
    value = {word for word in words if word.startswith(f"{tuned['key']}=")}
    return any(
        _of_variant(one["overrides"]) == words - value and value != {f"{tuned['key']}={one['value']}"}
        for one in tuned["chosen"]
        if "overrides" in one
    )


def _of_variant(words: Iterable[str]) -> set[str]:
    return {word for word in words if not outside(word.lstrip("+~").split("=")[0])}


def variants(runs: Sequence[FinishedRun]) -> list[Variant]:
    """The runs grouped by their configs without seed and fold, in the order in which they were started.

    Of two runs with the same config and seed, the one started later counts.
    """
    groups: dict[str, dict[tuple[Any, ...], FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.path / "environment.json").stat().st_mtime_ns):
        groups.setdefault(json.dumps(_chosen(run), sort_keys=True), {})[run.repeat] = run
    parts = [tuple(group[key] for key in sorted(group, key=str)) for group in groups.values()]
    return [Variant(label, part) for label, part in zip(_labels(parts), parts, strict=True)]


def _chosen(run: FinishedRun) -> dict[str, Any]:
    """The flat config of a run without what does not belong to its variant."""
    return {key: value for key, value in flat(run.config) if not outside(key)}


def _labels(parts: Sequence[tuple[FinishedRun, ...]]) -> list[str]:
    """Names that tell the variants apart: the words of their command lines, else what differs in their configs."""
    words = [_differing_words([part[0].overrides for part in parts], part[0].overrides) for part in parts]
    if len(parts) > 1 and "" not in words and len(set(words)) == len(parts):
        return words
    chosen = [_chosen(part[0]) for part in parts]
    differing = [k for k in dict.fromkeys(k for one in chosen for k in one) if len({str(c.get(k)) for c in chosen}) > 1]
    shared = [key for key in differing if all(key in one for one in chosen)]
    short = [" ".join(_word(key, one[key]) for key in shared) for one in chosen]
    if len(set(short)) < len(parts):  # what only some of them have tells them apart
        short = [" ".join(_word(key, one[key]) for key in differing if key in one) for one in chosen]
    return [label or str(part[0].summary.get("name", "run")) for label, part in zip(short, parts, strict=True)]


def _differing_words(every: Sequence[tuple[str, ...]], own: tuple[str, ...]) -> str:
    """The words of one command line that not all have; those that name no variant are left out."""
    shared = set.intersection(*map(set, every))
    return " ".join(word for word in own if word not in shared and not outside(word.split("=")[0]))


def losses_differ(runs: Sequence[FinishedRun]) -> bool:
    """Whether the runs minimise different losses: each one's `val/loss` is then of its own, and does not compare."""
    return len({json.dumps(run.config.get("loss"), sort_keys=True) for run in runs}) > 1


def outside(key: str) -> bool:
    """Whether a key says nothing of the variant."""
    return key in REPEATS or key.split(".")[0] in OUTSIDE


def _word(key: str, value: Any) -> str:
    if key.endswith("._target_"):
        return f"{key.removesuffix('._target_')}={str(value).rsplit('.', 1)[-1]}"
    return f"{key}={value}"

"""Each variant's own learning rate, found with as many runs as any other's, before the variants are compared.

The protocol: for every variant and every value one run with each of the tuning's seeds; the value with the best mean of
the monitored validation metric is the variant's. Then the variants run with other seeds, and these runs alone are
compared, on the test split. So no variant has had more tries than another, and none is judged on what it was tuned on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from descent import runs
from descent.folder import write_atomic
from descent.sweep import ranking
from descent.sweep.job import Job, before
from descent.types import Names, UserError, Whole, part

FILE, FOLDER = runs.CHOSEN, runs.TUNING
Variant = tuple[str, ...]  # all overrides of a run but its seed and fold


@part
class Tuning:
    """What is tuned, and on what.

    Attributes:
        key: of the config.
        values: that are tried, in their order.
        seeds: of the runs that try them; none of these is one of the comparison's.
    """

    key: str = "optimizer.learning_rate"
    values: Annotated[Names, Field(min_length=2)]
    seeds: Annotated[tuple[Whole, ...], Field(min_length=1)]

    def trials(self, variants: Sequence[Variant], folds: Sequence[str] = ()) -> list[list[str]]:
        """The overrides of the runs that tune: the same number for each variant, on every one of the folds."""
        return [
            [*variant, *fold, f"{self.key}={value}", f"seed={seed}"]
            for variant in variants
            for value in self.values
            for fold in ([[fold] for fold in folds] or [[]])
            for seed in self.seeds
        ]

    def check(self, words: Sequence[Sequence[str]]) -> None:
        """Raises UserError where the comparison would use a seed of the tuning, or sets what is tuned."""
        given = {word.split("=", 1)[1] for own in words for word in own if word.startswith("seed=")} or {"0"}
        if shared := sorted(given & set(map(str, self.seeds))):
            raise UserError(
                f"hydra.sweeper.tune.seeds: {', '.join(shared)} is a seed of the comparison, too; tune with others"
            )
        if any(word.startswith(f"{self.key}=") for own in words for word in own):
            raise UserError(f"{self.key}: it is tuned for each variant; give hydra.sweeper.tune.values instead")

    def chosen(self, variants: Sequence[Variant], jobs: Sequence[Job]) -> dict[Variant, Choice]:
        """The best value of each variant, from the jobs of `trials`; a value counts if all its runs are completed."""
        each = len(jobs) // len(variants)
        found = {one: self._choice(one, jobs[i * each : (i + 1) * each]) for i, one in enumerate(variants)}
        return {one: choice for one, choice in found.items() if choice}

    def _choice(self, variant: Variant, jobs: Sequence[Job]) -> Choice | None:
        """The best value of a variant by a metric of its own: variants may be monitored by different ones."""
        ended = {job.folder: runs.read(job.folder) for job in jobs if before(job).state == "done"}
        if not ended:
            return None
        basis = ranking.basis(list(ended.values()))
        reached = [basis.value(ended[job.folder]) if job.folder in ended else math.nan for job in jobs]
        means = np.array(reached).reshape(len(self.values), -1).mean(axis=1)
        if not np.isfinite(means).any():
            return None
        best = int(np.nanargmax(means if basis.higher else -means))
        edge = best in (0, len(self.values) - 1)
        return Choice(self.values[best], float(means[best]), edge, tuple(map(float, means)), variant, basis.name)


class Choice(NamedTuple):
    """What was chosen for a variant.

    Attributes:
        value: the best.
        mean: the metric it reached, on average.
        edge: whether it is the first or the last that was tried.
        means: of all values.
        overrides: the variant's own.
        metric: what it was chosen by.
    """

    value: str
    mean: float
    edge: bool
    means: tuple[float, ...]
    overrides: Variant
    metric: str


def variant(words: Sequence[str]) -> Variant:
    return tuple(word for word in words if word.split("=")[0] not in runs.REPEATS)


def folds(words: Sequence[Sequence[str]]) -> list[str]:
    """The overrides that set a fold, each once."""
    return list(dict.fromkeys(word for own in words for word in own if word.split("=")[0] == runs.FOLD))


def check_key(sweep: Path, tuning: Tuning) -> None:
    """Raises UserError where another key was tuned in this folder: the runs with its values would stay, and compare."""
    begun = read(sweep).get("key", tuning.key)
    if begun != tuning.key:
        raise UserError(
            f"hydra.sweeper.tune.key={tuning.key}: the sweep in {sweep} was begun with {begun}; "
            "give the sweep another name, as in name=again"
        )


def begin(sweep: Path, tuning: Tuning) -> None:
    """Says, before the first run, what is tuned here: the folder `tuning` is then known for what it is."""
    if not read(sweep):
        sweep.mkdir(parents=True, exist_ok=True)
        write(sweep, tuning, {})


def write(sweep: Path, tuning: Tuning, chosen: Mapping[str, Choice | None]) -> None:
    """`tuning.json`: the protocol, and what it led to."""
    rows = [{"variant": label, **choice._asdict()} for label, choice in chosen.items() if choice]
    content = {"key": tuning.key, "values": tuning.values, "seeds": tuning.seeds, "monitor": _by(chosen)}
    write_atomic(sweep / FILE, json.dumps({**content, "chosen": rows}, indent=2) + "\n")


def _by(chosen: Mapping[str, Choice | None]) -> str:
    """The metrics that were chosen by."""
    return ", ".join(dict.fromkeys(choice.metric for choice in chosen.values() if choice))


def read(sweep: Path) -> dict[str, Any]:
    """The content of `tuning.json`; nothing where nothing was tuned."""
    path = sweep / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def told(tuning: Tuning, chosen: Mapping[str, Choice | None], count: int) -> str:
    """What was chosen with so many runs a variant, for a terminal."""
    by = _by(chosen)
    lines = [f"tuned   {tuning.key}{f' by {by}' if by else ''}, {count} runs a variant:"]
    for label, choice in chosen.items():
        if choice is None:
            lines.append(f"        {label or 'the run'}: left out, as at no value all runs came to their end")
            continue
        edge = "  (at the end of the values: give more)" if choice.edge else ""
        lines.append(f"        {label or 'the run'}: {choice.value}  {choice.metric} {choice.mean:.4g}{edge}")
    return "\n".join(lines)

"""What a sweep folder holds: its runs, what was varied in them, what failed, and what it cost."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from descent.folder import write_atomic
from descent.runs import FinishedRun, find, only_tuned, outside
from descent.sweep import ablation, effects, ranking
from descent.sweep import job as jobs_of
from descent.sweep.job import FAILURE, LOG, PRUNED
from descent.sweep.ranking import Rank
from descent.types import UserError

if TYPE_CHECKING:
    import optuna


class Failure(NamedTuple):
    """A job that left no result, and its log, relative to the sweep's folder; "" where it wrote to the terminal."""

    job: str
    message: str
    log: str


@dataclasses.dataclass(frozen=True)
class Collected:
    """The runs of a sweep folder, in the order of their start."""

    folder: Path
    runs: Sequence[FinishedRun]

    @cached_property
    def words(self) -> list[dict[str, str]]:
        """The overrides of each run, key and value."""
        return [dict(_split(word) for word in run.overrides) for run in self.runs]

    @cached_property
    def varied(self) -> list[str]:
        """Keys of the command line whose value is not the same in all runs."""
        keys = dict.fromkeys(key for words in self.words for key in words)
        return [key for key in keys if len({words.get(key) for words in self.words}) > 1]

    @cached_property
    def plan(self) -> ablation.Plan | None:
        """What the runs are for, where the sweep is an ablation."""
        return ablation.plan(self.folder)

    @cached_property
    def effects(self) -> list[effects.Effect]:
        """What the techniques add, where the sweep is an ablation and enough of it is done."""
        try:
            return effects.measured(self.folder, self.plan) if self.plan else []
        except UserError:
            return []

    @cached_property
    def axes(self) -> list[str]:
        """What was varied and tells variants apart; nothing in an ablation, which has arms in place of axes."""
        return [] if self.plan else [key for key in self.varied if not outside(key.lstrip("~"))]

    @cached_property
    def short(self) -> dict[str, str]:
        """Each varied key by its last word, where that is no other's."""
        last = {key: key.rsplit(".", 1)[-1] for key in self.varied}
        count = Counter(last.values())
        return {key: word if count[word] == 1 else key for key, word in last.items()}

    def label(self, rank: Rank) -> str:
        """A variant in few words, for a figure."""
        pairs = zip(self.axes, self.settings(rank), strict=True)
        return " ".join(f"{self.short[key]}={_rounded(value)}" for key, value in pairs) or rank.variant.label

    def values(self, key: str) -> list[str]:
        """The values a key had, numbers in their order."""
        return sorted({words.get(key, "") for words in self.words}, key=order)

    @cached_property
    def ranks(self) -> list[Rank]:
        ranks = ranking.rank([run for run in self.runs if not pruned(run)])
        return ranking.named(ranks, self.plan.names) if self.plan else ranks

    def settings(self, rank: Rank) -> list[str]:
        """The values of the axes in a variant."""
        words = dict(_split(word) for word in rank.variant.runs[0].overrides)
        return [words.get(key, "") for key in self.axes]

    @cached_property
    def failures(self) -> list[Failure]:
        """Jobs that failed and were not completed since, or halted."""
        noted = [path for path in sorted(self.folder.rglob(FAILURE)) if not only_tuned(path.parent, self.folder)]
        left = [path for path in noted if not jobs_of.completed(path.parent)]
        found = [self._failure(path.parent, json.loads(path.read_text(encoding="utf-8"))["message"]) for path in left]
        halted = [run for run in self.runs if run.summary.get("status") == "halted"]
        return found + [self._failure(run.path, "halted at a number that was not finite") for run in halted]

    def _failure(self, folder: Path, message: str) -> Failure:
        log = folder / LOG
        return Failure(self.place(folder), message, self.place(log) if log.exists() else "")

    def place(self, path: Path) -> str:
        """Where something lies in the sweep's folder, as its page links to it."""
        return path.relative_to(self.folder).as_posix()

    @cached_property
    def study(self) -> optuna.Study | None:
        """The study that chose the runs, where there is one and Optuna (extra `optuna`) to read it."""
        if not importlib.util.find_spec("optuna"):
            return None
        from descent.sweep import study

        return study.read(self.folder)

    @cached_property
    def warnings(self) -> list[tuple[int, dict[str, str]]]:
        """What the checklists of the runs warn of, the most frequent first, with the number of runs."""
        lines = [line for run in self.runs for line in run.summary.get("checklist", ()) if line["status"] == "warning"]
        counted = Counter(line["subject"] for line in lines)
        first = {line["subject"]: line for line in reversed(lines)}
        return [(count, first[subject]) for subject, count in counted.most_common()]

    @property
    def seconds(self) -> float:
        """Of all runs together."""
        return sum(float(run.summary.get("seconds", 0)) for run in self.runs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each run: what was varied, how it ended, every final metric."""
        for run, words in zip(self.runs, self.words, strict=True):
            monitor, value = ranking.monitored(run)
            yield {
                "folder": self.place(run.path),
                **{key: words.get(key, "") for key in self.varied},
                "status": "pruned" if pruned(run) else run.summary.get("status", ""),
                "steps": run.summary.get("steps", ""),
                "monitor": monitor,
                "best": "" if math.isnan(value) else value,
                **{name: run.summary[name] for name in run.summary if name.startswith(("val/", "test/"))},
                "parameters": run.summary.get("parameters", ""),
                "seconds": run.summary.get("seconds", ""),
            }

    def write_csv(self) -> Path:
        """`sweep.csv`: all of `rows`."""
        rows = list(self.rows())
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.folder / "sweep.csv", text.getvalue())
        return self.folder / "sweep.csv"


def collect(folder: Path) -> Collected:
    """The runs below a folder.

    Raises:
        UserError: there is none.
    """
    runs = sorted(find([folder]), key=lambda run: (run.path / "environment.json").stat().st_mtime_ns)
    if not any(run.completed for run in runs):
        raise UserError(f"{folder}: none of its runs is completed")
    return Collected(folder, runs)


def pruned(run: FinishedRun) -> bool:
    return str(run.summary.get("stopped", "")).startswith(PRUNED)


def _split(word: str) -> tuple[str, str]:
    key, _, value = word.lstrip("+").partition("=")
    return key, value


def _rounded(value: str, most: int = 6) -> str:
    """A number of many digits with three."""
    number = order(value)[0]
    return f"{number:.3g}" if len(value) > most and math.isfinite(number) else value


def order(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value

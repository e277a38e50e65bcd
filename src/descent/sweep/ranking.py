"""The runs of a sweep in order of merit: the best monitored value on the validation split, over their seeds.

Where the runs are not monitored by one metric of one meaning, another one on the validation split takes its place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from descent import statistics
from descent.callback import higher_is_better
from descent.runs import COMPARABLE, FinishedRun, Variant, losses_differ, read, variants
from descent.statistics import Estimate

SHARED = (*COMPARABLE, "val/loss")  # metrics that all runs on the same data have


class Basis(NamedTuple):
    """What runs are ranked by.

    Attributes:
        name: of the metric.
        why: the monitored one is not it, in a sentence; "": it is.
    """

    name: str
    why: str = ""

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return higher_is_better(self.name, "auto")

    @property
    def title(self) -> str:
        return self.name if self.why else f"best {self.name}"

    def value(self, run: FinishedRun) -> float:
        """What a run reached: of the monitored metric its best, of another its value at the weights that are kept."""
        return at_kept(run, self.name) if self.why else monitored(run)[1]


def basis(runs: Sequence[FinishedRun]) -> Basis:
    """What these runs can be compared by: the metric that all are monitored by, unless that is each one's own."""
    names = list(dict.fromkeys(monitored(run)[0] for run in runs))
    own = losses_differ(runs)
    if len(names) == 1 and not (own and names[0].endswith("/loss")):
        return Basis(names[0])
    known = [name for name in SHARED if all(name in run.summary for run in runs) and not (own and name == "val/loss")]
    name = known[0] if known else names[0]
    reason = "val/loss is of each run's own loss" if own else f"the runs are monitored by {' and '.join(names)}"
    return Basis(name, f"{reason}, which does not compare: ranked by {name}, at the weights that were kept")


def at_kept(run: FinishedRun, name: str) -> float:
    """A validation metric at the step whose weights were kept; the last where none were."""
    step = run.summary.get("best", {}).get("step")
    return next((float(row[name]) for row in run.rows if row["step"] == step and name in row), run.final(name))


class Rank(NamedTuple):
    """A variant, its place from 1, and what it reached.

    Attributes:
        basis: what ranks it.
        reached: the value of each run.
        value: their mean.
        test: name and value of the first test metric after the loss; of the loss where there is no other.
        seconds: wall time of a run.
    """

    place: int
    variant: Variant
    basis: Basis
    reached: tuple[float, ...]
    value: Estimate
    test: tuple[str, Estimate]
    seconds: float


def ranked(folders: Sequence[Path]) -> list[Rank]:
    """The completed runs of these folders, the best variant first. The test split has no say in it."""
    return rank([read(folder) for folder in folders])


def rank(runs: Sequence[FinishedRun]) -> list[Rank]:
    completed = [run for run in runs if run.completed]
    if not completed:
        return []
    by = basis(completed)
    found = [_measured(variant, by) for variant in variants(completed)]
    known = [one for one in found if not math.isnan(one.value.mean)]
    order = sorted(known, key=lambda one: -one.value.mean if by.higher else one.value.mean)
    order += [one for one in found if math.isnan(one.value.mean)]
    return [one._replace(place=place) for place, one in enumerate(order, start=1)]


def named(ranks: Sequence[Rank], labels: Mapping[str, str]) -> list[Rank]:
    """The ranking with the labels that the folders of the runs have here, where they have one."""
    found = []
    for one in ranks:
        label = labels.get(one.variant.runs[0].path.name) or one.variant.label
        found.append(one._replace(variant=dataclasses.replace(one.variant, label=label)))
    return found


def monitored(run: FinishedRun) -> tuple[str, float]:
    """The metric that decides which weights are kept, and its best value; else the last validation loss."""
    best = run.summary.get("best", {})
    if best.get("value") is None:
        return "val/loss", run.final("val/loss")
    return best["monitor"], float(best["value"])


def _measured(variant: Variant, by: Basis) -> Rank:
    values = tuple(by.value(run) for run in variant.runs)
    names = [name for name in variant.runs[0].summary if name.startswith("test/")]
    test = next((name for name in names if name != "test/loss"), "test/loss")
    return Rank(
        place=0,
        variant=variant,
        basis=by,
        reached=values,
        value=statistics.interval(values),
        test=(test, statistics.interval([run.final(test) for run in variant.runs])),
        seconds=sum(float(run.summary["seconds"]) for run in variant.runs) / len(variant.runs),
    )


def estimate(value: Estimate, name: str) -> str:
    """A mean and half the width of its 95 % interval: `98.31% ± 0.40`."""
    if math.isnan(value.mean):
        return ""
    half = value.high - value.mean
    if name.endswith("accuracy"):
        return f"{value.mean:.2%}" + ("" if math.isnan(half) else f" ± {100 * half:.2f}")
    return f"{value.mean:.4g}" + ("" if math.isnan(half) else f" ± {half:.2g}")


def table(ranks: Sequence[Rank]) -> Table:
    """The ranking for the terminal."""
    by, test = ranks[0].basis, ranks[0].test[0]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("rank", justify="right")
    made.add_column("variant", overflow="fold")
    for name in ("runs", by.title, test, "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in ranks:
        made.add_row(
            str(one.place),
            Text(one.variant.label),  # its brackets are no markup
            str(one.value.n),
            estimate(one.value, by.name),
            estimate(one.test[1], one.test[0]),
            f"{one.seconds:.1f}",
        )
    return made

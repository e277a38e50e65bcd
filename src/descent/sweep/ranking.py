"""The runs of a sweep in order of merit: the best monitored value on the validation split, over their seeds."""

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
from descent.runs import FinishedRun, Variant, read, variants
from descent.statistics import Estimate


class Rank(NamedTuple):
    """A variant, its place from 1, and what it reached.

    Attributes:
        monitor: name of the metric that ranks it.
        value: the best monitored value.
        test: name and value of the first test metric after the loss; of the loss where there is no other.
        seconds: wall time of a run.
    """

    place: int
    variant: Variant
    monitor: str
    value: Estimate
    test: tuple[str, Estimate]
    seconds: float


def ranked(folders: Sequence[Path]) -> list[Rank]:
    """The completed runs of these folders, the best variant first. The test split has no say in it."""
    return rank([read(folder) for folder in folders])


def rank(runs: Sequence[FinishedRun]) -> list[Rank]:
    completed = [run for run in runs if run.completed]
    found = [_measured(variant) for variant in variants(completed)] if completed else []
    known = [one for one in found if not math.isnan(one.value.mean)]
    order = sorted(known, key=lambda one: -one.value.mean if _higher(one) else one.value.mean)
    order += [one for one in found if math.isnan(one.value.mean)]
    return [one._replace(place=place) for place, one in enumerate(order, start=1)]


def named(ranks: Sequence[Rank], labels: Mapping[str, str]) -> list[Rank]:
    """The ranking with the labels that the folders of the runs have here, where they have one."""
    found = []
    for one in ranks:
        label = labels.get(one.variant.runs[0].path.name) or one.variant.label
        found.append(one._replace(variant=dataclasses.replace(one.variant, label=label)))
    return found


def _higher(one: Rank) -> bool:
    return higher_is_better(one.monitor, "auto")


def monitored(run: FinishedRun) -> tuple[str, float]:
    """The metric that decides which weights are kept, and its best value; else the last validation loss."""
    best = run.summary.get("best", {})
    if best.get("value") is None:
        return "val/loss", run.final("val/loss")
    return best["monitor"], float(best["value"])


def _measured(variant: Variant) -> Rank:
    values = [monitored(run)[1] for run in variant.runs]
    names = [name for name in variant.runs[0].summary if name.startswith("test/")]
    test = next((name for name in names if name != "test/loss"), "test/loss")
    return Rank(
        place=0,
        variant=variant,
        monitor=monitored(variant.runs[0])[0],
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
    monitor, test = ranks[0].monitor, ranks[0].test[0]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("rank", justify="right")
    made.add_column("variant", overflow="fold")
    for name in ("runs", f"best {monitor}", test, "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in ranks:
        made.add_row(
            str(one.place),
            Text(one.variant.label),  # its brackets are no markup
            str(one.value.n),
            estimate(one.value, one.monitor),
            estimate(one.test[1], one.test[0]),
            f"{one.seconds:.1f}",
        )
    return made

"""Variants against each other, each run with several seeds: curves with bands, paired differences, costs; one page."""

from __future__ import annotations

import base64
import csv
import dataclasses
from collections.abc import Collection, Sequence
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from descent import display, plot
from descent.callback import higher_is_better
from descent.folder import write_atomic
from descent.runs import COMPARABLE, FinishedRun, Variant, losses_differ, variants
from descent.statistics import Estimate, band, holm, interval, log_band, paired, steps_to
from descent.types import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAVOURITES = ("test/accuracy", "test/loss", "test/mse", "test/mae", "val/accuracy", "val/loss")
CURVE = "val/loss"
NOTE = "the runs minimise different losses: val/loss and test/loss are each one's own and do not compare"


class Standing(NamedTuple):
    """What a variant reached, and what it cost; each over its seeds.

    Attributes:
        metric: the final metric.
        lost: runs without a finite one.
        seconds: of a whole run.
        rate: training samples a second.
        steps: to the target, of the runs that reached it.
        reached: how many did.
    """

    label: str
    runs: int
    metric: Estimate
    lost: int
    seconds: Estimate
    rate: Estimate
    steps: Estimate
    reached: int


class Pair(NamedTuple):
    """A variant less another on the seeds they share; `adjusted` is p by Holm's correction over all pairs."""

    left: str
    right: str
    difference: Estimate
    p: float
    adjusted: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything there is to say.

    Attributes:
        curve: name of what is drawn over the epochs.
        metric: name of the final metric.
        target: value of `curve` whose first step is the cost.
        curves: for each variant, epochs [m] and the values of its runs [n, m]; NaN where a run has ended.
        note: what a reader has to know of `curve` and `metric`; "": nothing.
    """

    curve: str
    metric: str
    target: float
    standings: list[Standing]
    pairs: list[Pair]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    note: str = ""


def compare(
    runs: Sequence[FinishedRun],
    *,
    curve: str | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Compares the variants among the runs; with a baseline each with it, else each with each.

    Args:
        runs: of all variants, in any order.
        curve: name of an evaluated metric; None: the validation loss.
        metric: name of a final metric; None: the test accuracy where there is one, else the test loss. Where the runs
            minimise different losses, which do not compare, the next metric takes the place of both.
        baseline: label of a variant.
        target: value of `curve`; None: the worst of the variants' mean best values, which most runs reach.

    Raises:
        UserError: no run has such a metric, or no variant such a label.
    """
    found = variants(runs)
    whole = [run for run in runs if run.summary.get("status", "completed") == "completed"] or runs  # others lack a test
    own = losses_differ(runs)
    curve = curve or (_first(COMPARABLE, [{k for row in run.rows for k in row} for run in whole]) if own else CURVE)
    metric = metric or _first([m for m in FAVOURITES if not (own and m.endswith("/loss"))], [r.summary for r in whole])
    labels = [variant.label for variant in found]
    if baseline is not None and baseline not in labels:
        raise UserError(f"baseline={baseline}: there is no such variant; choose one of {', '.join(labels)}")
    if not any(len(run.curve(curve)[0]) for run in runs):
        raise UserError(f"curve={curve}: no run has it in its log")
    if not any(metric in run.summary for run in runs):
        raise UserError(f"metric={metric}: no run has it in its summary")
    curves = {variant.label: _curves(variant, curve) for variant in found}
    target = _target(list(curves.values()), curve) if target is None else target
    standings = [_standing(variant, curve, metric, target) for variant in found]
    return Comparison(curve, metric, target, standings, _pairs(found, metric, baseline), curves, NOTE if own else "")


def _first(names: Sequence[str], known: Sequence[Collection[str]]) -> str:
    """The first of the metrics that all have; else the validation loss."""
    return next((name for name in names if all(name in one for one in known)), CURVE)


def _curves(variant: Variant, name: str) -> tuple[np.ndarray, np.ndarray]:
    every = [{row["epoch"]: row[name] for row in run.rows if name in row} for run in variant.runs]
    epochs = sorted(set().union(*every))
    return np.array(epochs), np.array([[own.get(epoch, np.nan) for epoch in epochs] for own in every])


def _target(curves: Sequence[tuple[np.ndarray, np.ndarray]], name: str) -> float:
    best, worst = (np.nanmax, np.nanmin) if higher_is_better(name, "auto") else (np.nanmin, np.nanmax)
    means = [np.mean([best(own) for own in values if np.isfinite(own).any()]) for _, values in curves if values.size]
    return float(worst(means))


def _standing(variant: Variant, curve: str, metric: str, target: float) -> Standing:
    values = np.array([run.final(metric) for run in variant.runs])
    higher = higher_is_better(curve, "auto")
    steps = np.array([steps_to(*run.curve(curve), target, higher=higher) for run in variant.runs])
    return Standing(
        label=variant.label,
        runs=len(variant.runs),
        metric=_of(values),
        lost=int(np.isnan(values).sum()),
        seconds=_of(np.array([run.final("seconds") for run in variant.runs])),
        rate=_of(np.array([run.final("samples_per_second") for run in variant.runs])),
        steps=_of(steps),
        reached=int(np.isfinite(steps).sum()),
    )


def _of(values: np.ndarray) -> Estimate:
    known = values[np.isfinite(values)]
    return interval(known) if len(known) else Estimate(np.nan, np.nan, np.nan, 0)


def _pairs(found: Sequence[Variant], metric: str, baseline: str | None) -> list[Pair]:
    rows = []
    for left, right in combinations(found, 2):
        if baseline is not None and baseline not in (left.label, right.label):
            continue
        one, other = (right, left) if left.label == baseline else (left, right)
        a, b = one.final(metric), other.final(metric)
        shared = [key for key in a if key in b]
        rows.append((one.label, other.label, *paired([a[k] for k in shared], [b[k] for k in shared])))
    adjusted = holm([p for *_, p in rows])
    return [Pair(*row, float(p)) for row, p in zip(rows, adjusted, strict=True)]


# --- what is written -----------------------------------------------------------------------------------------------


def write(comparison: Comparison, folder: Path) -> Path:
    """`curves.png`, `curves.svg`, `variants.csv`, `pairs.csv` and `comparison.html`, which needs no other file."""
    import jinja2

    picture = plot.save(_drawn(comparison), folder, "curves")
    _write_csv(folder / "variants.csv", [_flat(row) for row in comparison.standings])
    _write_csv(folder / "pairs.csv", [_flat(row) for row in comparison.pairs])
    source = resources.files("descent").joinpath("comparison.html.j2").read_text(encoding="utf-8")
    image = base64.b64encode(picture.read_bytes()).decode()
    page = jinja2.Template(source, autoescape=True).render(c=comparison, picture=image, shown=shown, number=number)
    write_atomic(folder / "comparison.html", page)
    return folder / "comparison.html"


def _drawn(comparison: Comparison) -> Figure:
    """The curves with their bands; what is a loss or an error on a log axis."""
    curves = {label: curve for label, curve in comparison.curves.items() if len(curve[0])}
    positive = all(np.nanmin(values) > 0 for _, values in curves.values())
    log = positive and not comparison.curve.endswith(("accuracy", "r2"))
    over_seeds = log_band if log else band
    return plot.bands({k: (x, *over_seeds(y)) for k, (x, y) in curves.items()}, comparison.curve, log=log)


def _flat(row: NamedTuple) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row._asdict().items():
        if isinstance(value, Estimate):
            flat |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            flat[name] = value
    return flat


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def shown(estimate: Estimate) -> str:
    """The mean, and the interval where there is one."""
    if np.isnan(estimate.low):
        return number(estimate.mean)
    return f"{number(estimate.mean)} [{number(estimate.low)}, {number(estimate.high)}]"


def text(comparison: Comparison) -> str:
    """The table for a terminal."""
    head = ("variant", "runs", f"{comparison.metric} [95%]", f"steps to {number(comparison.target)}", "seconds")
    rows = display.columns([head, *(_cells(standing) for standing in comparison.standings)])
    return f"{rows}\n{comparison.note}" if comparison.note else rows


def _cells(row: Standing) -> tuple[str, ...]:
    steps = f"{number(row.steps.mean)} ({row.reached} of {row.runs})"
    return row.label, str(row.runs), shown(row.metric), steps, number(row.seconds.mean)

"""After training: what the log and the summary show together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from descent.checklist.during import during
from descent.checklist.line import FEWEST_EVALUATIONS, SETTLED, Line, Rows, Status, judged, values_of
from descent.plot import series

if TYPE_CHECKING:
    from descent.experiment import Experiment

DEAD = 0.1  # share of units: a network has room for a few
MOSTLY_DEAD = 0.5  # it trains as one of half the width
EARLY = 0.2  # of the run: best weights before it mean that the rest was of no use


def after(
    experiment: Experiment, rows: Rows, summary: Mapping[str, Any], files: Collection[str] | None = None
) -> list[Line]:
    """What the log and the summary show; `files` are the names in the run's folder, where they should be checked."""
    return [
        *during(experiment, rows),
        *_dead(summary),
        *_best(rows, summary),
        _tested(rows, summary),
        _recorded(experiment, files),
    ]


def _dead(summary: Mapping[str, Any]) -> list[Line]:
    """Nothing, where the model shows no ReLU."""
    if (share := summary.get("dead_units")) is None:
        return []
    advice = "they are lost: a lower rate, a warm-up, or model.activation=gelu where the model has it"
    status: Status = "warning" if share > MOSTLY_DEAD else "note"
    return [judged(share > DEAD, status, "dead units", f"{share:.1%} of the ReLU units give only zeros", advice)]


def _best(rows: Rows, summary: Mapping[str, Any]) -> list[Line]:
    """Nothing, where nothing was monitored."""
    best, evaluated = summary["best"], series(rows, "val/loss")[0]
    if not best["monitor"] or len(evaluated) < FEWEST_EVALUATIONS:
        return []
    share, rates = best["step"] / evaluated[-1], values_of(rows, "train/learning_rate")
    finding = f"best {best['monitor']} {best['value']:.4g} at step {best['step']} of {int(evaluated[-1])}"
    if share < EARLY:
        return [Line("note", "best weights", finding, "most of the run was of no use: lower the rate, or regularise")]
    moving = len(rates) > 0 and rates[-1] > SETTLED * rates.max()
    late = best["step"] >= evaluated[-1] and moving
    return [judged(late, "note", "best weights", finding, "it still improves: train longer, or let the rate fall")]


def _tested(rows: Rows, summary: Mapping[str, Any]) -> Line:
    tested = {name: value for name, value in summary.items() if name.startswith("test/")}
    if any(name.startswith("test/") for row in rows for name in row):
        return Line("warning", "test", "evaluated during training", "choose by validation; test once, at the end")
    if not tested:
        return Line("note", "test", f"not evaluated: the run is {summary['status']}", "continue it to its end")
    found = ", ".join(f"{name} {tested[name]:.4g}" for name in list(tested)[:2])
    if tested.get("test/r2", 1.0) <= 0:
        return Line("warning", "test", f"{found}, r2 {tested['test/r2']:.3g}", "no better than the mean target")
    return Line("pass", "test", f"evaluated once, on the best weights: {found}")


def _recorded(run: Experiment, files: Collection[str] | None) -> Line:
    wanted = ("config.yaml", "environment.json", "metrics.jsonl")
    missing = [name for name in wanted if files is not None and name not in files]
    finding = f"missing {', '.join(missing)}" if missing else f"seed {run.seed} and every setting in {wanted[0]}"
    return judged(bool(missing), "warning", "record", finding, "without them the run cannot be repeated")

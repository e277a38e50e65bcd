"""One line of the checklist, and how the log is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from rich.markup import escape

from descent.plot import series, smoothed

Status = Literal["pass", "note", "warning"]
Rows = Sequence[dict[str, float]]
COLORS: dict[Status, str] = {"pass": "green", "note": "cyan", "warning": "yellow"}

SETTLED = 0.1  # the last rate over the peak below which weights come to rest (a tenth: one classic step decay)
FEWEST_EVALUATIONS = 5  # best weights are picked among them
DIVERGING = 0.5  # share of what the loss had gained that it lost again
DIVERGING_RISE = 0.2  # ... and of the first loss, so that the noise of a curve near its end is no divergence
FEWEST = 10  # rows from which a course is read at all


class Line(NamedTuple):
    """One point of the list: `finding` has the numbers behind it, `advice` what to do (empty where all is well)."""

    status: Status
    subject: str
    finding: str
    advice: str = ""


def text(lines: Sequence[Line], only: Collection[Status] = ("pass", "note", "warning")) -> str:
    """A line each, with rich's markup; `only` some of them."""
    return "\n".join(
        f"[{COLORS[line.status]}]{line.status:7}[/] {escape(f'{line.subject}: {line.finding}')}"
        + (f" [dim]({escape(line.advice)})[/]" if line.advice else "")
        for line in lines
        if line.status in only
    )


def judged(fails: bool, status: Status, subject: str, finding: str, advice: str) -> Line:
    return Line(status, subject, finding, advice) if fails else Line("pass", subject, finding)


def values_of(rows: Rows, name: str) -> np.ndarray:
    values = np.asarray(series(rows, name)[1], np.float64)
    return values[np.isfinite(values)]


def window(values: np.ndarray) -> int:
    return max(3, len(values) // 10)


def levels(rows: Rows) -> tuple[float, float, float]:
    """Mean training loss at the start, at its smoothed best and at the end."""
    values = values_of(rows, "train/loss")
    span = window(values)
    return float(values[:span].mean()), float(smoothed(values, span).min()), float(values[-span:].mean())


def diverges(rows: Rows) -> bool:
    first, best, last = levels(rows)
    return last - best > max(DIVERGING * (first - best), DIVERGING_RISE * abs(first))

"""What a person sees while a run is under way: a panel, a progress bar, or plain lines without a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from descent.types import Record

QUIET_SECONDS = 2.0  # between lines of evaluations
SILENT_SECONDS = 15.0  # without any line, where there is no progress bar
BAR_SECONDS = 0.1  # between two looks of the bar: to move it takes longer than some calls


def panel(console: Console, title: str, facts: Mapping[str, str]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(f"[dim]{name}[/dim]", value)
    console.print(Panel(table, title=title, title_align="left", border_style="dim", expand=False))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words, as many in each, one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def number(value: float, name: str) -> str:
    """A metric's value in a few characters, accuracies in percent; nothing where it is not a number."""
    if math.isnan(value):
        return ""
    return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4g}"


def short(record: Record, prefix: str) -> str:
    """The metrics of a split in a few words, accuracies in percent."""
    words = []
    for name, value in record.items():
        if name.startswith(f"{prefix}/"):
            words.append(f"{name} {number(value, name) or value}")
    return "  ".join(words)


KINDS = {
    "start": "building, before the first call",
    "first_call": "the first call, which compiles",
    "input": "waiting for the input; near 0 where the pipeline keeps up",
    "steps": "the compiled steps",
    "evaluation": "the validation split",
    "saving": "checkpoints, as far as training waits for them",
    "python": "records, loggers' queues, callbacks, this display",
}


def times(spent: Mapping[str, float], rate: float) -> str:
    """Where the seconds of a run went, a line each."""
    total = max(sum(spent.values()), 1e-9)
    lines = [
        f"{kind:10} {spent[kind]:9.3f} s {spent[kind] / total:6.1%}  {KINDS[kind]}" for kind in KINDS if kind in spent
    ]
    return "\n".join([*lines, f"{'all':10} {total:9.3f} s         {rate:,.0f} samples/s in input and steps"]) + "\n"


class Ticker:
    """Shows progress; use it as a context."""

    def __init__(self, console: Console, total: int, start: int) -> None:
        self.console, self.total, self.last = console, total, time.monotonic()
        self.terminal, self.shown, self.evaluation = console.is_terminal, 0.0, Record()
        self.bar = Progress(
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=console,
            transient=True,
            disable=not self.terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=start, rate="", metrics="")

    def __enter__(self) -> Ticker:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, step: int, rate: float) -> None:
        """Moves the bar, or writes a line where there is none; not after each call of a small model."""
        now = time.monotonic()
        if self.terminal and now - self.shown > BAR_SECONDS:
            self.shown = now
            self.bar.update(self.task, completed=step, rate=_pace(rate), metrics=short(self.evaluation, "val"))
        elif not self.terminal and now - self.last > SILENT_SECONDS:
            self._line(step, _pace(rate))

    def evaluated(self, record: Record, rate: float) -> None:
        """A line for each evaluation, but no more than one in two seconds."""
        self.evaluation, step = record, int(record["step"])
        if time.monotonic() - self.last > QUIET_SECONDS or step == self.total:
            self._line(step, f"epoch {record['epoch']:.1f}  {short(record, 'val')}  {_pace(rate)}")

    def _line(self, step: int, text: str) -> None:
        self.last = time.monotonic()
        self.console.print(f"step {step}/{self.total}  {text}", highlight=False)


def _pace(rate: float) -> str:
    return f"{rate:,.0f} samples/s" if rate else ""

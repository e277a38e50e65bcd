"""What a person sees of a sweep: one live table on a terminal, plain lines elsewhere; the ranking at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from descent.display import number
from descent.folder import RunFolder
from descent.runs import REPEATS
from descent.sweep import ranking
from descent.sweep.job import LOG, Job, Outcome, summary

COLORS = {"running": "cyan", "done": "green", "pruned": "dim", "halted": "yellow", "failed": "red", "waiting": "dim"}
SHOWN = {"running": 0, "failed": 1, "halted": 2, "stopped": 3, "done": 4, "pruned": 5, "waiting": 6}
WIDTH = 140
WAITING = Outcome("waiting")
Running = dict[int, tuple[float, dict[str, float]]]


class Board:
    """Follows the jobs; use it as a context."""

    def __init__(self, jobs: Sequence[Job], console: Console | None = None, *, total: int | None = None) -> None:
        self.total = total
        self.console = console or Console(soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH  # a file has no width; the ranking needs some
        self.jobs: list[Job] = []
        self.outcomes: dict[int, Outcome] = {}
        self.latest: list[int] = []
        self.began = time.monotonic()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        for job in jobs:
            self.add(job)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def add(self, job: Job, outcome: Outcome = WAITING) -> None:
        self.jobs.append(job)
        self.outcomes[job.number] = outcome

    def opening(self, sweep: Path) -> None:
        """What is to do, and where."""
        known = [outcome.state for outcome in self.outcomes.values() if outcome.state != "waiting"]
        counts = ", ".join(f"{known.count(state)} {state} before" for state in SHOWN if state in known)
        self.say(f"sweep   {len(self.jobs)} jobs{f', {counts}' if counts else ''}\nfolder  {RunFolder(sweep).near}")
        if "failed" in known:
            self.say("note    what failed before is not tried again without retry=true")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def started(self, job: Job) -> None:
        self.outcomes[job.number] = Outcome("running")

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A line where there is no table."""
        self.outcomes[job.number] = outcome
        self.latest.append(job.number)
        if not self.console.is_terminal:
            told = outcome.message if outcome.state not in ("done", "pruned") else result(job)
            count = self.total or len(self.jobs)
            self.say(f"job {job.number} of {count}  {self.label(job)}  {outcome.state}  {told}".rstrip())

    def label(self, job: Job) -> str:
        """What tells the job from the others."""
        return job.label or " ".join(job.overrides)

    def refresh(self, running: Running) -> None:
        self.outcomes |= dict.fromkeys(running, Outcome("running"))
        if self.console.is_terminal:
            self.live.update(self.table(running), refresh=True)

    def table(self, running: Running) -> Table:
        """The jobs that matter most now, as many as fit."""
        room = max(4, self.console.height - 6)
        order = sorted(self.jobs, key=lambda job: (SHOWN[self.outcomes[job.number].state], self._age(job)))
        shown = sorted(order[:room], key=lambda job: job.number)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=self._title(running), title_justify="left")
        for name in ("job", "overrides", "state", "epoch", "metric", "left"):
            table.add_column(name, justify="left" if name in ("overrides", "state") else "right", no_wrap=True)
        for job in shown:
            table.add_row(*self._row(job, running.get(job.number)))
        if len(shown) < len(self.jobs):
            table.add_row("", f"[dim]and {len(self.jobs) - len(shown)} more[/dim]")
        return table

    def _age(self, job: Job) -> int:
        """The latest first, and those that wait in their order."""
        return -self.latest.index(job.number) if job.number in self.latest else job.number

    def _title(self, running: Running) -> str:
        states = [outcome.state for outcome in self.outcomes.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in SHOWN if state in states)
        return f"{len(self.jobs)} jobs: {counts}; {clock(time.monotonic() - self.began)}"

    def _row(self, job: Job, now: tuple[float, dict[str, float]] | None) -> list[Text | str]:
        outcome = self.outcomes[job.number]
        epochs, value, left = job.steps / job.per_epoch, "", ""
        epoch = f"{epochs:.3g}" if outcome.state in ("done", "halted") else ""
        if now is not None:
            seconds, said = now
            step = said.get("step", 0)
            epoch = f"{step / job.per_epoch:.1f}/{epochs:.3g}"
            value = number(said.get("value", math.nan), job.monitor)
            left = clock(seconds * (job.steps / step - 1)) if step else ""
        elif outcome.state in ("done", "pruned"):
            value = number(best(job), job.monitor)
        state = Text(outcome.state, style=COLORS.get(outcome.state, ""))
        return [str(job.number), Text(self.label(job), overflow="ellipsis"), state, epoch, value, left]

    # --- the end ---

    def close(self) -> None:
        """The ranking, and what failed."""
        done = [job for job in self.jobs if self.outcomes[job.number].state == "done"]
        if ranks := ranking.ranked([job.folder for job in done]):
            labels = {job.folder.name: _unrepeated(job.label) for job in done} if len(ranks) > 1 else {}
            self.console.print(ranking.table(ranking.named(ranks, labels)), highlight=False)
            if why := ranks[0].basis.why:
                self.say(f"note    {why}")
        for job in self.jobs:
            state, message, _ = self.outcomes[job.number]
            if state in ("failed", "halted"):
                log = job.folder / LOG
                where = f"\n        {log}" if log.exists() else ""
                self.say(f"{state}: job {job.number}  {self.label(job)}: {message}{where}")


def result(job: Job) -> str:
    return f"{job.monitor} {number(best(job), job.monitor)}"


def best(job: Job) -> float:
    """The best monitored value of a finished job."""
    content = summary(job)
    value = content.get("best", {}).get("value")
    return float(content.get("val/loss", math.nan) if value is None else value)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _unrepeated(label: str) -> str:
    """A job's label without what tells repetitions apart."""
    return " ".join(word for word in label.split() if word.split("=")[0] not in REPEATS)

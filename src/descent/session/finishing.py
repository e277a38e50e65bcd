"""The end of a run: the test split on the best weights, the summary, the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from descent import checklist, checkpoint, display, metric, report, wording
from descent.folder import read_rows, write_atomic
from descent.logger import Profile
from descent.session import inspecting
from descent.session.run import Run
from descent.session.starting import tell
from descent.types import Record

WALL_CLOCK = ("seconds", "samples_per_second", "time")  # of the summary: not the same in equal runs


def finish(
    run: Run, status: str, checked: list[checklist.Line], reason: str = "", *, awaited: bool = False
) -> dict[str, Any]:
    """Writes what is left of the run and says how it ended; returns the summary.

    Figures may be left to another process (`report.drawn_apart`), unless a logger awaits them.

    Where the disk does not take it, the status is `failed`; the checkpoints hold all that it is made from.
    """
    summary, shown = _summary(run, status, reason), None
    try:
        if status == "completed":
            tested, shown = _test(run)
            summary |= tested
        files = {p.name for p in run.folder.path.iterdir()}
        lines = checklist.after(run.experiment, read_rows(run.folder.metrics), summary, files)
        summary["checklist"] = [line._asdict() for line in (*checked, *lines)]
        run.folder.write_json("summary.json", summary)
        tell(run, lines)
        if status == "halted":  # its curves say why
            _derived(run, lambda: report.draw(run.folder, run.best["step"]))
            _derived(run, lambda: report.write(run.folder, summary))
        elif shown and shown.leaves and not awaited:
            shown.save(run.folder.undrawn)
        elif shown:
            report.conclude(run.folder, summary, shown, run.say)
        elif status == "completed":
            run.folder.write_json("done.json", {"step": summary["steps"]})
        _profile(run, summary)
    except OSError as error:
        summary |= {"status": "failed", "reason": reason or wording.fault(error)}
    run.folder.events.add(summary["status"], run.now, **({"reason": summary["reason"]} if summary["reason"] else {}))
    _tell_end(run, summary)
    return summary


def _profile(run: Run, summary: dict[str, Any]) -> None:
    """The page of a profiled run."""
    if any(isinstance(logger, Profile) for logger in run.experiment.logger.values()):
        page = display.times(summary["time"], run.pace.rate)
        _derived(run, lambda: write_atomic(run.folder.path / "profile.txt", page))
        run.say(page)


def _tell_end(run: Run, summary: dict[str, Any]) -> None:
    if summary["status"] == "completed":
        result = display.short(_headline(run, summary), "test")
        which = "best" if summary["best"]["monitor"] else "last"
        run.console.print(f"[bold]{result}[/bold]  {which} weights of step {summary['best']['step']}", highlight=False)
        return
    if summary["reason"]:
        run.say(f"failed: {summary['reason']}")
    saved = checkpoint.steps(run.folder.checkpoints)
    where = (
        f"go on from step {saved[0]} with: python train.py resume={run.folder.near}" if saved else "nothing is saved"
    )
    run.say(f"{summary['status']} at step {summary['steps']}; {where}")


def _derived(run: Run, write: Callable[[], object]) -> None:
    """See `report.derived`; on the chief."""
    if run.peers.chief:
        report.derived(write, run.say)


def _headline(run: Run, summary: dict[str, Any]) -> Record:
    """The metrics of every evaluation, of the test split; the summary has more."""
    return {name: summary[name] for name in (f"test/{m}" for m in metric.names(run.pipeline.spec))}


def _test(run: Run) -> tuple[Record, report.Material | None]:
    """The test split, once, on the best weights; they stay in the model. What is dead of them, and what is to be shown.

    Only the chief shows anything.
    """
    state = run.state
    if not state.best:
        state.keep_best()
    state.use_best()
    paths = [v.path for v in state.model.variables]
    checkpoint.save_weights(run.folder.checkpoints, "best", state.best, paths, best=run.best)
    outcome, spec = run.evaluator.outcome("test"), run.pipeline.spec
    dead = inspecting.dead_units(state.model, run.pipeline)
    found = {**metric.evaluate(spec, "test", outcome), **metric.final(spec, "test", outcome), **dead}
    return found, report.Material.of(run.pipeline, outcome) if run.peers.chief else None


def _summary(run: Run, status: str, reason: str) -> dict[str, Any]:
    rows = read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
    last = rows[-1] if rows else {}
    host = run.state.host
    top: list[Any] = next((memory["top"] for memory in host.get("callbacks", {}).values() if "top" in memory), [])
    return {
        "status": status,
        "name": run.experiment.name,
        **{name: value for name, value in last.items() if "/" in name},
        "best": run.best,
        **({"top": [{"step": step, "value": value} for value, step in top]} if top else {}),
        "stopped": host.get("stopped", ""),
        "reason": reason,
        "skipped": host.get("skipped", 0),
        "rollbacks": host.get("rollbacks", 0),
        "steps": run.now,
        "epochs": run.now / run.experiment.clock.steps_per_epoch,
        "parameters": run.state.model.count_params(),
        "seconds": round(time.monotonic() - run.began, 3),
        "samples_per_second": round(run.pace.rate, 1),
        "time": run.pace.kinds(),
    }

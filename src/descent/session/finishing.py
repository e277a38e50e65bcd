"""The end of a run: the test split on the best weights, the summary, the report."""

from __future__ import annotations

import time
from typing import Any

from descent import checklist, checkpoint, display, metric, report
from descent.folder import read_rows
from descent.session.building import Run
from descent.session.starting import tell
from descent.types import Record


def finish(run: Run, status: str, checked: list[checklist.Line]) -> dict[str, Any]:
    """Writes what is left of the run and says how it ended; returns the summary."""
    summary = _summary(run, status)
    if status == "completed":
        summary |= _test(run)
    files = {p.name for p in run.folder.path.iterdir()}
    lines = checklist.after(run.experiment, read_rows(run.folder.metrics), summary, files)
    tell(run, lines)
    summary["checklist"] = [line._asdict() for line in (*checked, *lines)]
    run.folder.write_json("summary.json", summary)
    if status == "completed":
        report.write(run.folder, summary)
        run.folder.write_json("done.json", {"step": summary["steps"]})
        result = display.short(_headline(run, summary), "test")
        run.console.print(f"[bold]{result}[/bold]  best weights of step {summary['best']['step']}", highlight=False)
    else:
        run.say(f"{status} at step {summary['steps']}; go on with: python train.py resume={run.folder.near}")
    return summary


def _headline(run: Run, summary: dict[str, Any]) -> Record:
    """The metrics of every evaluation, of the test split; the summary has more."""
    return {name: summary[name] for name in (f"test/{m}" for m in metric.names(run.pipeline.spec))}


def _test(run: Run) -> Record:
    """The test split, once, on the best weights; they stay in the model."""
    state = run.state
    if not state.best:
        state.keep_best()
    state.use_best()
    paths = [v.path for v in state.model.variables]
    checkpoint.save_weights(run.folder.checkpoints, "best", state.best, paths, best=run.best)
    targets, outputs = run.evaluator.outputs("test", state.weights())
    report.draw(run.folder, run.pipeline, run.best["step"], targets, outputs)
    final = metric.final(run.pipeline.spec, "test", targets, outputs)
    return {**run.evaluator.metrics("test", targets, outputs), **final}


def _summary(run: Run, status: str) -> dict[str, Any]:
    rows = read_rows(run.folder.metrics)
    last = rows[-1] if rows else {}
    return {
        "status": status,
        "name": run.experiment.name,
        **{name: value for name, value in last.items() if "/" in name},
        "best": run.best,
        "stopped": run.state.host.get("stopped", ""),
        "steps": run.now,
        "epochs": run.now / run.experiment.clock.steps_per_epoch,
        "parameters": run.state.model.count_params(),
        "seconds": round(time.monotonic() - run.began, 3),
        "samples_per_second": round(run.pace.rate, 1),
    }

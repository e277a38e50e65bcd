"""The start of a run: restores what is there, and writes down and shows what is being run."""

from __future__ import annotations

import numpy as np

from descent import checklist, checkpoint, display, environment, identity, metric
from descent.data import Arrays, Fitted
from descent.folder import write_atomic
from descent.session.building import Run
from descent.types import Split


def start(run: Run) -> int:
    """Restores the newest valid checkpoint if there is one; returns its step."""
    run.folder.path.mkdir(parents=True, exist_ok=True)
    checkpoint.clean(run.folder.checkpoints)
    saved, passed = checkpoint.newest(run.folder.checkpoints)
    for problem in passed:
        run.say(f"checkpoint passed over: {problem}")
    if saved:
        run.state.restore(saved.arrays, saved.host)
    step = saved.step if saved else 0
    run.folder.cut_log(run.state.host.get("log_size", 0), step)
    if not run.folder.used:
        about = environment.describe(run.experiment.seed, run.experiment.trainer, run.overrides)
        run.folder.write_json("environment.json", about)
        if isinstance(run.given.data, Fitted):
            run.given.data.keep(run.folder.path)
        write_atomic(run.folder.config, identity.to_yaml(run.given))
    display.panel(run.console, run.experiment.name, _facts(run, step))
    return step


def check(run: Run) -> list[checklist.Line]:
    """The checklist before training; tells what wants attention."""
    lines = checklist.before(run.experiment, _raw_inputs(run))
    tell(run, lines)
    return lines


def tell(run: Run, lines: list[checklist.Line]) -> None:
    """What of the checklist wants attention; all of it is in the summary and the report."""
    if told := checklist.text(lines, only=("note", "warning")):
        run.console.print(told, highlight=False)


def _raw_inputs(run: Run) -> dict[Split, np.ndarray] | None:
    """The raw elements of each split, of a source in memory."""
    source = run.pipeline.source
    if not isinstance(source, Arrays):
        return None
    return {split: inputs.numpy() for split, (inputs, _) in source.splits.items()}


def _facts(run: Run, start: int) -> dict[str, str]:
    spec, model, trainer, pipeline = run.pipeline.spec, run.state.model, run.experiment.trainer, run.pipeline
    sizes = " / ".join(f"{spec.sizes[split]:,}" for split in metric.PREFIX)
    flops = metric.flops(model)
    xla = "XLA" if run.step.jit else "graph"
    facts = {
        "data": f"{type(run.experiment.data).__name__} {spec.shape}, {sizes} train / validation / test",
        "model": f"{model.name}, {model.count_params():,} parameters, {flops / 1e6:,.3g} MFLOP a sample",
        "device": f"{environment.device()}, {trainer.cores()} threads, {trainer.precision}, {xla}",
        "steps": f"{pipeline.steps:,} of {trainer.batch_size} samples "
        f"({pipeline.steps / run.experiment.clock.steps_per_epoch:.3g} epochs), {pipeline.chunk} a call",
        "folder": run.folder.near,
    }
    return {**facts, "resumed": f"from step {start}"} if start else facts

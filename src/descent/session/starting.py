"""The start of a run: restores what is there, and writes down and shows what is being run."""

from __future__ import annotations

from typing import Literal

import numpy as np

from descent import checklist, checkpoint, display, environment, identity, initial, metric
from descent.data import Arrays, Remembered, absent
from descent.folder import write_atomic
from descent.session.run import Run
from descent.types import Split, UserError

Mismatch = Literal["refuse", "warn"]


def start(run: Run, mismatch: Mismatch) -> int:
    """Restores the newest valid checkpoint if there is one; returns its step.

    Raises:
        UserError: the run has checkpoints and none is valid, or what bits depend on has changed.
    """
    folder = run.folder
    folder.clean()
    checkpoint.clean(folder.checkpoints)
    if saved := run.peers.shared(lambda: _newest(run)):
        if run.peers.chief:
            _compare(run, saved, mismatch)
        run.state.restore(saved.arrays, saved.host)
    elif (source := run.experiment.init_from) is not None:
        for line in initial.put(run.state, run.peers.shared(lambda: initial.read(source)), source):
            run.say(line)
    step = saved.step if saved else 0
    folder.cut_log(run.state.host.get("log_size", 0), step)
    about = environment.describe(run.experiment.seed, run.experiment.trainer, run.overrides, run.replicas)
    if not folder.used:
        folder.write_json("environment.json", about)
        if isinstance(run.given.data, Remembered):
            run.given.data.keep(folder.path)
        absent.keep(folder.path, run.pipeline.spec, run.pipeline.source)
        write_atomic(folder.config, identity.to_yaml(run.given))
    folder.events.add("resumed" if step else "started", step, environment=about)
    display.panel(run.console, run.experiment.name, _facts(run, step))
    return step


def _newest(run: Run) -> checkpoint.Saved | None:
    """The newest valid checkpoint; those that are damaged or gone are named. Never a silent start from scratch."""
    saved, problems = checkpoint.newest(run.folder.checkpoints)
    acknowledged = run.folder.events.acknowledged()
    if not problems and acknowledged > (saved.step if saved else 0):
        problems = [f"step-{acknowledged:06d}: it was written, and is gone"]
    if problems and not saved:
        raise UserError(
            f"{run.folder.checkpoints}: no valid checkpoint is left ({problems[0]}); "
            "start again in a new folder, or remove this one"
        )
    for problem in problems:
        run.say(f"checkpoint passed over: {problem}")
        checkpoint.set_aside(run.folder.checkpoints / problem.split(":")[0])
    return saved


def _compare(run: Run, saved: checkpoint.Saved, mismatch: Mismatch) -> None:
    """Refuses, or tells, that what bits depend on is not what it was."""
    then, now = saved.about.get("provenance", {}), environment.provenance(run.given, run.step.jit, run.replicas)
    changed = [f"{name} was {then[name]}, is {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
    if not changed:
        return
    if mismatch == "refuse":
        told = f"resume: the bits of the result would change: {'; '.join(changed)}"
        raise UserError(f"{told}; resume_mismatch=warn goes on all the same")
    run.say(f"warning: from step {saved.step} on, the bits are not those of an unbroken run: {'; '.join(changed)}")


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
    if trainer.samples:
        sizes = f"{trainer.samples:,} of {sizes}"
    xla = "XLA" if run.step.jit else "graph"
    several = f", {run.replicas} replicas in {run.step.workers} process(es)" if run.replicas > 1 else ""
    facts = {
        "data": f"{type(run.experiment.data).__name__} {spec.shape}, {sizes} train / validation / test",
        "model": f"{model.name}, {model.count_params():,} parameters, {run.flops / 1e6:,.3g} MFLOP a sample",
        "device": f"{environment.device()}, {trainer.cores()} threads, {trainer.precision}, {xla}{several}",
        "steps": f"{pipeline.steps:,} of {trainer.batch_size} samples "
        f"({float(f'{pipeline.steps / run.experiment.clock.steps_per_epoch:.3g}'):,g} epochs), {pipeline.chunk} a call",
        "folder": run.folder.near,
    }
    return {**facts, "resumed": f"from step {start}"} if start else facts

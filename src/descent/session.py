"""One run in its folder: builds what the experiment describes, trains, evaluates, and writes it all down."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epy
from rich.console import Console

from descent import checklist, checkpoint, display, environment, identity, metric, precision, report, seeds
from descent.callback import Checkpoint
from descent.data import Arrays
from descent.data.pipeline import Pipeline
from descent.folder import Log, RunFolder, read_rows, write_atomic
from descent.gradient import Gradient
from descent.logger import Loggers
from descent.signals import Interruption
from descent.state import State
from descent.step import Step
from descent.trainer import Evaluator, Segment, boundaries, train
from descent.types import Record, Split, Verdict

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.experiment import Experiment

EVALUATION_BATCH = 256  # forward passes need little memory; larger batches gained nothing on 2 cores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """What an experiment becomes when its run starts."""

    state: State
    step: Step
    pipeline: Pipeline
    evaluator: Evaluator


def build(experiment: Experiment) -> Built:
    """Opens the data and makes the variables, the compiled step and the pipeline of a resolved experiment."""
    environment.prepare(experiment.trainer)
    source, spec, trainer = experiment.data.open(), experiment.data.spec, experiment.trainer
    with experiment.strategy.build().scope(), seeds.initialization(experiment.seed):
        state = _state(experiment)
    step = _step(experiment, state)
    pipeline = Pipeline(
        source=source,
        spec=spec,
        sample=experiment.augmentation.sample,
        mixing=experiment.augmentation.batch,
        batch_size=trainer.batch_size,
        samples=trainer.used(spec.sizes["train"]),
        steps=experiment.clock.steps,
        chunk=trainer.chunk(experiment.clock, math.prod(spec.shape)),
        seed=experiment.seed,
    )
    evaluator = Evaluator(step=step, pipeline=pipeline, batch_size=max(EVALUATION_BATCH, trainer.batch_size))
    return Built(state=state, step=step, pipeline=pipeline, evaluator=evaluator)


def _state(experiment: Experiment) -> State:
    model = experiment.model.build(experiment.data.spec, experiment.regularization)
    return State(
        model=model,
        optimizer=experiment.optimizer.build(model.trainable_variables),
        averager=experiment.averaging.build(model, experiment.clock.steps),
        scaling=precision.scaling(experiment.trainer.precision),
        step=tf.Variable(0, dtype=tf.int64, trainable=False),
        rate_factor=tf.Variable(1.0, trainable=False),
    )


def _step(experiment: Experiment, state: State) -> Step:
    gradient = Gradient(
        model=state.model,
        spec=experiment.data.spec,
        loss=experiment.loss,
        regularization=experiment.regularization,
        seed=experiment.seed,
        accumulate=experiment.trainer.accumulate,
    )
    return Step(
        state=state,
        spec=experiment.data.spec,
        mixing=experiment.augmentation.batch,
        gradient=gradient,
        sharpness=experiment.sharpness,
        regularization=experiment.regularization,
        clipping=experiment.clipping,
        rates=experiment.rates(),
        jit=experiment.trainer.jits(state.model),
    )


class Pace:
    """Time spent training; the first call, which compiles, is left out."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.seconds, self.samples, self.compiled = batch_size, 0.0, 0, False

    def count(self, segment: Segment) -> None:
        if self.compiled:
            self.seconds += segment.seconds
            self.samples += len(segment.rows) * self.batch_size
        self.compiled = True

    @property
    def rate(self) -> float:
        """Samples a second; 0 before the second call."""
        return self.samples / self.seconds if self.seconds else 0.0


class Session:
    """A run under way. `run` is the story; the order at a boundary is step, evaluation, callbacks, checkpoint."""

    def __init__(self, experiment: Experiment, folder: RunFolder, overrides: list[str]) -> None:
        self.began = time.monotonic()
        self.given, self.experiment = experiment, experiment.resolved()
        self.folder, self.overrides = folder, overrides
        built = build(self.experiment)
        self.state, self.step, self.pipeline, self.evaluator = (
            built.state,
            built.step,
            built.pipeline,
            built.evaluator,
        )
        self.pace = Pace(experiment.trainer.batch_size)
        self.console = Console(soft_wrap=True)

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns the summary, and leaves the best weights in the model."""
        start = self._start()
        self.log = Log(self.folder.metrics)
        self.loggers = Loggers(self.experiment.logger, str(self.folder.path), start)
        try:
            with Interruption() as interruption:
                status = self._train(start, interruption)
                self.save()
        finally:
            self.log.close()
            self.loggers.close()
        return self._finish(status)

    # --- start ---

    def _start(self) -> int:
        """Restores the newest valid checkpoint if there is one, and writes down what is being run."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        checkpoint.clean(self.folder.checkpoints)
        saved, passed = checkpoint.newest(self.folder.checkpoints)
        for problem in passed:
            self.console.print(f"checkpoint passed over: {problem}", highlight=False)
        if saved:
            self.state.restore(saved.arrays, saved.host)
        step = saved.step if saved else 0
        self.folder.cut_log(self.state.host.get("log_size", 0), step)
        if not self.folder.used:
            about = environment.describe(self.experiment.seed, self.experiment.trainer, self.overrides)
            self.folder.write_json("environment.json", about)
            write_atomic(self.folder.config, identity.to_yaml(self.given))
        display.panel(self.console, self.experiment.name, self._facts(step))
        self.checked = checklist.before(self.experiment, self._raw_inputs())
        self._tell(self.checked)
        return step

    def _raw_inputs(self) -> dict[Split, np.ndarray] | None:
        """The raw elements of each split, of a source in memory."""
        source = self.pipeline.source
        if not isinstance(source, Arrays):
            return None
        return {split: inputs.numpy() for split, (inputs, _) in source.splits.items()}

    def _tell(self, lines: list[checklist.Line]) -> None:
        """What of the checklist wants attention; all of it is in the summary and the report."""
        if told := checklist.text(lines, only=("note", "warning")):
            self.console.print(told, highlight=False)

    def _facts(self, start: int) -> dict[str, str]:
        spec, model, trainer = self.pipeline.spec, self.state.model, self.experiment.trainer
        sizes = " / ".join(f"{spec.sizes[split]:,}" for split in metric.PREFIX)
        flops = metric.flops(model)
        xla = "XLA" if self.step.jit else "graph"
        facts = {
            "data": f"{type(self.experiment.data).__name__} {spec.shape}, {sizes} train / validation / test",
            "model": f"{model.name}, {model.count_params():,} parameters, {flops / 1e6:,.3g} MFLOP a sample",
            "device": f"{environment.device()}, {trainer.cores()} threads, {trainer.precision}, {xla}",
            "steps": f"{self.pipeline.steps:,} of {trainer.batch_size} samples "
            f"({self.pipeline.steps / self.experiment.clock.steps_per_epoch:.3g} epochs), {self.pipeline.chunk} a call",
            "folder": self.folder.near,
        }
        return {**facts, "resumed": f"from step {start}"} if start else facts

    # --- training ---

    def _train(self, start: int, interruption: Interruption) -> str:
        """Runs until the end, a callback's stop, a signal or a non-finite step; returns the status."""
        clock = self.experiment.clock
        if self.state.host.get("stopped"):
            return "completed"
        evaluations = set(boundaries(clock.in_steps(self.experiment.trainer.eval_every), clock.steps))
        saves = set(boundaries(clock.in_steps(self.keeper.every), clock.steps)) if self.keeper else set()
        with display.Ticker(self.console, clock.steps, start) as self.ticker:
            for segment in train(self.step, self.pipeline, start, sorted(evaluations | saves)):
                self.pace.count(segment)
                if not self._sound(segment):
                    return "halted"
                stop = self._observe(segment, segment.step in evaluations)
                self.state.host["stopped"] = stop if segment.step < clock.steps else ""
                if segment.step in saves:
                    self.save()
                if self.state.host["stopped"]:
                    self.console.print(f"stopped at step {segment.step}: {self.state.host['stopped']}", highlight=False)
                    return "completed"
                if interruption.received and segment.step < clock.steps:
                    return "interrupted"
        return "completed"

    def _observe(self, segment: Segment, evaluate: bool) -> str:
        """Logs what is due and asks the callbacks; returns why to stop, or nothing."""
        stop = ""
        for i, step in enumerate(range(segment.first, segment.step + 1)):
            evaluated = evaluate and step == segment.step
            if not evaluated and step % self.experiment.trainer.log_every:
                continue
            record = {
                "step": step,
                "epoch": step / self.experiment.clock.steps_per_epoch,
                **segment.record(i),
            }
            if evaluated:
                record |= self._evaluate(step)
                self.ticker.evaluated(record, self.pace.rate)
            self.log.write(record)
            self.loggers.write(record)
            stop = self._ask(record) or stop
        self.ticker.step(segment.step, self.pace.rate)
        return stop

    def _evaluate(self, step: int) -> Record:
        targets, outputs = self.evaluator.outputs("validation", self.state.evaluated())
        row = {
            "step": step,
            "seconds": round(time.monotonic() - self.began, 3),
            "samples_per_second": round(self.pace.rate, 1),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        with self.folder.timing.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return self.evaluator.metrics("validation", targets, outputs)

    def _ask(self, record: Record) -> str:
        """Gives every callback the record; carries out what they say."""
        memories, stop = self.state.host.setdefault("callbacks", {}), ""
        for name, callback in self.experiment.callback.items():
            verdict: Verdict = callback(memories.get(name, {}), record)
            memories[name] = verdict.memory
            stop = stop or verdict.stop
            if verdict.rate_factor is not None:
                self.state.rate_factor.assign(verdict.rate_factor)
            if verdict.best:
                self.state.keep_best()
                self.state.host["best"] = verdict.memory
        return stop

    def _sound(self, segment: Segment) -> bool:
        """Whether training may go on. A step that was not finite has changed nothing."""
        finite = segment.rows[:, segment.names.index("finite")] > 0
        if finite.all() or self.experiment.trainer.nonfinite == "skip":
            return True
        where = int(np.argmin(finite))
        record = segment.record(where)
        self.console.print(
            f"halted: step {segment.first + where} has a loss of {record['train/loss']} and a gradient norm of "
            f"{record['train/grad_norm']}. A lower optimizer.learning_rate, a longer schedule.warmup or "
            "clipping=global_norm may help; trainer.nonfinite=skip leaves such batches out.",
            highlight=False,
        )
        return False

    # --- saving and finishing ---

    @property
    def keeper(self) -> Checkpoint | None:
        return next((c for c in self.experiment.callback.values() if isinstance(c, Checkpoint)), None)

    def save(self) -> None:
        """A checkpoint of this moment, with the length of the log that goes with it, and the best weights."""
        self.state.host["log_size"] = self.log.size()
        checkpoint.save(
            self.folder.checkpoints,
            int(self.state.step.numpy()),
            self.state.snapshot(),
            self.state.host,
            self.state.paths(),
            keep=self.keeper.keep if self.keeper else 1,
        )

    def _finish(self, status: str) -> dict[str, Any]:
        summary = self._summary(status)
        if status == "completed":
            summary |= self._test()
        lines = checklist.after(
            self.experiment, read_rows(self.folder.metrics), summary, {p.name for p in self.folder.path.iterdir()}
        )
        self._tell(lines)
        summary["checklist"] = [line._asdict() for line in (*self.checked, *lines)]
        self.folder.write_json("summary.json", summary)
        if status == "completed":
            report.write(self.folder, summary)
            self.folder.write_json("done.json", {"step": summary["steps"]})
            result = display.short(self._headline(summary), "test")
            self.console.print(
                f"[bold]{result}[/bold]  best weights of step {summary['best']['step']}", highlight=False
            )
        else:
            self.console.print(
                f"{status} at step {summary['steps']}; go on with: python train.py resume={self.folder.near}"
            )
        return summary

    def _headline(self, summary: dict[str, Any]) -> Record:
        """The metrics of every evaluation, of the test split; the summary has more."""
        return {name: summary[name] for name in (f"test/{m}" for m in metric.names(self.pipeline.spec))}

    def _test(self) -> Record:
        """The test split, once, on the best weights; they stay in the model."""
        if not self.state.best:
            self.state.keep_best()
        self.state.use_best()
        paths = [v.path for v in self.state.model.variables]
        checkpoint.save_weights(self.folder.checkpoints, "best", self.state.best, paths, best=self.best)
        targets, outputs = self.evaluator.outputs("test", self.state.weights())
        report.draw(self.folder, self.pipeline, self.best["step"], targets, outputs)
        final = metric.final(self.pipeline.spec, "test", targets, outputs)
        return {**self.evaluator.metrics("test", targets, outputs), **final}

    @property
    def best(self) -> dict[str, Any]:
        """Monitor, value and step of the best weights; of the last step where nothing was monitored."""
        here = int(self.state.step.numpy())
        return self.state.host.get("best") or {"monitor": None, "value": None, "step": here}

    def _summary(self, status: str) -> dict[str, Any]:
        rows = read_rows(self.folder.metrics)
        last = rows[-1] if rows else {}
        step = int(self.state.step.numpy())
        return {
            "status": status,
            "name": self.experiment.name,
            **{name: value for name, value in last.items() if "/" in name},
            "best": self.best,
            "stopped": self.state.host.get("stopped", ""),
            "steps": step,
            "epochs": step / self.experiment.clock.steps_per_epoch,
            "parameters": self.state.model.count_params(),
            "seconds": round(time.monotonic() - self.began, 3),
            "samples_per_second": round(self.pace.rate, 1),
        }

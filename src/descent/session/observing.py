"""What is done after each call of the compiled program: records are logged, callbacks asked."""

from __future__ import annotations

import json
import resource
import time

from descent import display
from descent.folder import Log
from descent.logger import Loggers
from descent.session.building import Run
from descent.trainer import Segment
from descent.types import Record, Verdict


class Observer:
    """Logs what is due, evaluates, and carries out what the callbacks say; use it as a context."""

    def __init__(self, run: Run, start: int) -> None:
        self.run = run
        self.log = Log(run.folder.metrics)
        self.loggers = Loggers(run.experiment.logger, str(run.folder.path), start)
        self.ticker = display.Ticker(run.console, run.experiment.clock.steps, start)

    def __enter__(self) -> Observer:
        self.ticker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.ticker.__exit__()
        self.log.close()
        self.loggers.close()

    def observe(self, segment: Segment, evaluate: bool) -> str:
        """Records the steps of a segment, the last with an evaluation where one is due; returns why to stop, or ""."""
        stop = ""
        for i, step in enumerate(range(segment.first, segment.step + 1)):
            evaluated = evaluate and step == segment.step
            if not evaluated and step % self.run.experiment.trainer.log_every:
                continue
            record = {
                "step": step,
                "epoch": step / self.run.experiment.clock.steps_per_epoch,
                **segment.record(i),
            }
            if evaluated:
                record |= self._evaluate(step)
                self.ticker.evaluated(record, self.run.pace.rate)
            self.log.write(record)
            self.loggers.write(record)
            stop = self._ask(record) or stop
        self.ticker.step(segment.step, self.run.pace.rate)
        return stop

    def _evaluate(self, step: int) -> Record:
        evaluator = self.run.evaluator
        targets, outputs = evaluator.outputs("validation", self.run.state.evaluated())
        row = {
            "step": step,
            "seconds": round(time.monotonic() - self.run.began, 3),
            "samples_per_second": round(self.run.pace.rate, 1),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        with self.run.folder.timing.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return evaluator.metrics("validation", targets, outputs)

    def _ask(self, record: Record) -> str:
        """Gives every callback the record; carries out what they say."""
        state, stop = self.run.state, ""
        memories = state.host.setdefault("callbacks", {})
        for name, callback in self.run.experiment.callback.items():
            verdict: Verdict = callback(memories.get(name, {}), record)
            memories[name] = verdict.memory
            stop = stop or verdict.stop
            if verdict.rate_factor is not None:
                state.rate_factor.assign(verdict.rate_factor)
            if verdict.best:
                state.keep_best()
                state.host["best"] = verdict.memory
        return stop

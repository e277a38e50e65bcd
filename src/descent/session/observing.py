"""What is done after each call of the compiled program: records are logged, callbacks asked."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from descent import display, metric
from descent.callback import Watcher
from descent.folder import Log
from descent.logger import Loggers
from descent.probe import Probe
from descent.rows import Rows, jsonable
from descent.session.run import Run
from descent.trainer import Segment
from descent.types import Record, Verdict
from descent.watching import told

# Between times at which rows are handed to the disk and to the loggers' threads: after each call of some milliseconds
# it would cost a small model a tenth of its speed.
FLUSH_SECONDS = 1.0


class Observer:
    """Logs what is due, evaluates, and carries out what the callbacks say; use it as a context."""

    def __init__(self, run: Run, start: int) -> None:
        self.run, self.unwritten = run, ""
        self.due: list[Rows] = []  # what the loggers have not been given
        self.times: list[str] = []  # rows of timing.jsonl, not written yet
        self.flushed = 0.0
        self.log = Log(run.folder.metrics)
        self.loggers = self._open(start)
        callbacks = run.experiment.callback.items()
        self.watchers = {name: callback for name, callback in callbacks if isinstance(callback, Watcher)}
        self.probes = {name: callback for name, callback in callbacks if isinstance(callback, Probe)}
        self.ticker = display.Ticker(run.console, run.experiment.clock.steps, start)

    def _open(self, step: int) -> Loggers:
        return Loggers(self.run.experiment.logger, str(self.run.folder.path), step)

    def __enter__(self) -> Observer:
        self.ticker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.ticker.__exit__()
        self.flush()
        self.log.close()
        self.loggers.trained()

    def conclude(self, summary: Mapping[str, Any]) -> None:
        """Tells the loggers how the run ended."""
        self.loggers.conclude(summary, self.run.folder.plots)

    def close(self) -> None:
        """Closes the loggers that are still open, and waits for them."""
        self.loggers.close()

    def restart(self, step: int, log_size: int) -> None:
        """Takes back what was logged after a step, as a rollback does."""
        self.log.cut(log_size)
        self.loggers.close()
        self.loggers = self._open(step)

    def observe(self, segment: Segment, evaluate: bool) -> str:
        """Records the steps of a segment, the last with an evaluation where one is due; returns why to stop, or "".

        Raises:
            Stopped: a signal came during the evaluation; `host["pending"]` has the record that waits for it.
        """
        self._count(segment)
        self._watch(segment)
        rows = np.flatnonzero(self.run.step.logged[segment.first - 1 : segment.step])
        logged = segment.logged(rows, self.run.experiment.clock.steps_per_epoch)
        self._record(logged[:-1] if evaluate else logged)
        stop = self._last(logged, evaluate)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()
        self.ticker.step(segment.step, self.run.pace.rate)
        return stop

    def _last(self, logged: Rows, evaluate: bool) -> str:
        """Shows the last row, if there is one, to those who look at it."""
        for record in logged[-1:].records():
            return self.evaluated(record) if evaluate else told(record)
        return ""

    def evaluated(self, record: Record) -> str:
        """Evaluates, and records that with the step's own record; returns why to stop, or "".

        Raises:
            Stopped: see `observe`.
        """
        host = self.run.state.host
        host["pending"] = record
        with self.run.pace.on("evaluation"):
            record = record | self._evaluate(int(record["step"]))
        del host["pending"]
        self.ticker.evaluated(record, self.run.pace.rate)
        self._record(Rows.of(record))
        return self._ask(dict(record))  # callbacks may do with it what they like

    def _record(self, rows: Rows) -> None:
        self.log.write(rows)
        self.due.append(rows)

    def flush(self) -> None:
        """Hands the rows out; where the disk fails they wait, and so does the message that all is well again."""
        self.flushed = time.monotonic()
        self.loggers.write(self.due)
        self.due = []
        self._write_times()
        try:
            self.log.flush()
        except OSError as error:
            if not self.unwritten:
                self.run.say(f"metrics.jsonl cannot be written: {error}; its rows are kept in memory")
            self.unwritten = str(error)
        else:
            if self.unwritten:
                self.run.say("metrics.jsonl is written again")
            self.unwritten = ""

    def _write_times(self) -> None:
        """For people; the log is what counts, and its failure is told."""
        if self.times:
            with contextlib.suppress(OSError), self.run.folder.timing.open("a", encoding="utf-8") as file:
                file.write("".join(self.times))
            self.times = []

    def _evaluate(self, step: int) -> Record:
        evaluator = self.run.evaluator
        outcome, spec = evaluator.outcome("validation", averaged=True), evaluator.pipeline.spec
        row = {
            "step": step,
            "seconds": round(time.monotonic() - self.run.began, 3),
            "samples_per_second": round(self.run.pace.rate, 1),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        self.times.append(json.dumps(row) + "\n")
        # The chief's, so that all decide alike.
        return self.run.peers.shared(lambda: metric.evaluate(spec, "validation", outcome) | self._probe())

    def _probe(self) -> Record:
        """What the probes among the callbacks find."""
        found: Record = {}
        memories = self.run.state.host.setdefault("callbacks", {})
        for name, probe in self.probes.items():
            memories[name], more = probe.look(memories.get(name, {}), self.run.inspector)
            found |= more
        return found

    def _ask(self, record: Record) -> str:
        """Gives the watcher and every callback the record of an evaluation; carries out what they say."""
        state, stop = self.run.state, told(record)
        memories = state.host.setdefault("callbacks", {})
        for name, callback in self.run.experiment.callback.items():
            verdict: Verdict = callback(memories.get(name, {}), record)
            memories[name] = verdict.memory
            stop = stop or verdict.stop
            if verdict.rate_factor is not None:
                state.rate_factor.assign(verdict.rate_factor * self._lowered())
            if verdict.best:
                state.keep_best()
                state.host["best"] = {key: verdict.memory[key] for key in ("monitor", "value", "step")}
        return stop

    def _lowered(self) -> float:
        """What rollbacks left of the rate."""
        return self.run.experiment.trainer.rollback_factor ** self.run.state.host.get("rollbacks", 0)

    def _count(self, segment: Segment) -> None:
        """Counts the steps that were skipped, and notes them."""
        skipped = np.flatnonzero(segment.column("finite") == 0).tolist()
        if not skipped:
            return
        for row in skipped:
            self.run.folder.events.add("skipped", segment.first + row, **self.suspect(segment, row))
        self.run.state.host["skipped"] = self.run.state.host.get("skipped", 0) + len(skipped)

    def _watch(self, segment: Segment) -> None:
        """Shows every loss to the callbacks that look at each, and notes what they suspect."""
        memories = self.run.state.host.setdefault("callbacks", {})
        for name, watcher in self.watchers.items():
            memories[name], found = watcher.watch(memories.get(name, {}), segment.column("loss"))
            for i, why in found.items():
                step = segment.first + i
                self.run.say(f"step {step}: {why}; its samples are in events.jsonl")
                about = self.suspect(segment, i, ("loss", "grad_norm"))
                self.run.folder.events.add("spike", step, why=why, **about)

    def suspect(
        self, segment: Segment, row: int, names: Sequence[str] = ("loss", "grad_norm", "param_norm")
    ) -> dict[str, Any]:
        """What to look at in a step: values of its record, and the samples of its batch."""
        shown = {name: float(segment.column(name)[row]) for name in names}
        return {**jsonable(shown), "samples": self.run.pipeline.indices(segment.first + row)}

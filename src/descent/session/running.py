"""The story of a run. The order at a boundary is step, evaluation, callbacks, checkpoint, acknowledgement."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from etils import epy

from descent import checkpoint, wording
from descent.folder import RunFolder
from descent.session.finishing import finish
from descent.session.observing import Observer
from descent.session.run import Run
from descent.session.saving import Saver, Silent
from descent.session.starting import Mismatch, check, start
from descent.signals import Interruption
from descent.trainer import CallFailed, Segment, Stopped, train
from descent.types import UserError

with epy.lazy_imports():
    import tensorflow as tf


SELDOM = 10  # times as seldom as usual are old objects looked through while a run goes on


class Session(Run):
    """A run under way.

    Args:
        experiment: what is run.
        folder: where it writes; it is continued where it was begun.
        overrides: words of the command line, for the record.
        mismatch: what to do where a checkpoint was made under conditions that change bits.
        interruption: what listens to signals already, if anything does.
    """

    def __init__(
        self,
        experiment: Any,
        folder: RunFolder,
        overrides: list[str],
        *,
        mismatch: Mismatch = "refuse",
        interruption: Interruption | None = None,
    ) -> None:
        super().__init__(experiment, folder, overrides)
        self.mismatch, self.interruption = mismatch, interruption or Interruption()

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns the summary, and leaves the best weights in the model."""
        with self.peers.watched(), self.interruption, self.folder.held(), seldom_collecting():
            first, checked = start(self, self.mismatch), check(self)
            with closing(Observer(self, first)) as self.observer:
                saver = Saver if self.peers.chief else Silent
                with self.observer, saver(self, self.observer.log) as self.saver:
                    status, reason = self._guarded(first)
                self.interruption.ask = None  # from here on everything is on disk
                if status != "failed" and self._asked() and status == "completed":
                    status = "interrupted"
                summary = finish(self, status, checked, reason, awaited=self.observer.loggers.concluding)
                self.observer.conclude(summary)
                if summary["status"] != "failed":
                    self._asked()  # the others wait here for the chief, which has more to do
            return summary

    def _guarded(self, first: int) -> tuple[str, str]:
        """Trains, and saves where the state is whole; returns the status and what went wrong, if anything did."""
        try:
            with self.peers.watched(self.saver.wait):
                status, whole, reason = self._train(first), True, ""
        except CallFailed as error:
            status, whole, reason = "failed", False, self._failure(error.__cause__ or error)
        except (tf.errors.OpError, OSError, MemoryError) as error:  # of the data: the state is that of a boundary
            status, whole, reason = "failed", True, self._failure(error)
        finally:
            self.saver.wait()
        if whole:
            self.saver.save()
            if not self.saver.wait():
                status, reason = "failed", f"the last checkpoint could not be written: {self.saver.failed}"
        return status, reason

    def _failure(self, error: BaseException) -> str:
        trainer = self.experiment.trainer
        if not isinstance(error, (tf.errors.ResourceExhaustedError, MemoryError)):
            return wording.fault(error)
        where = f"after step {self.now}" if self.now else "at the first step"
        return (
            f"out of memory {where}, with trainer.batch_size={trainer.batch_size} in {trainer.accumulate} part(s); "
            f"a smaller batch, or trainer.accumulate={2 * trainer.accumulate}, needs less"
        )

    # --- training ---

    def _train(self, start: int) -> str:
        """Runs until the end, a callback's stop, a signal or a fault; returns the status."""
        if self.state.host.get("stopped"):
            return "completed"
        if not start and self._needs_first():
            self.saver.save(periodic=True)
        try:
            while (status := self._stretch(start)) == "rolled back":
                start = self.now
        except Stopped:
            return "interrupted"
        if self.now < self.experiment.clock.steps and status == "completed" and self._asked():
            return status if self.state.host.get("stopped") else "interrupted"
        return status

    def _needs_first(self) -> bool:
        """Whether step 0 needs a checkpoint: a rollback may lead there, and given weights may be gone later."""
        return self.experiment.trainer.nonfinite == "rollback" or self.experiment.init_from is not None

    def _stretch(self, start: int) -> str:
        """As `_train`, or up to a rollback."""
        clock, trainer = self.experiment.clock, self.experiment.trainer
        evaluations = set(trainer.evaluations(clock))
        pending = self.state.host.get("pending")
        if pending and (status := self._boundary(start, self.observer.evaluated(pending))):
            return status
        stops = sorted(evaluations | self.saver.due)
        # Kept: to let go of the pipeline waits for the chunks it is making, and a checkpoint should not wait for that.
        self.segments = train(self.step, self.pipeline, start, stops, trainer.call_seconds(self.step.jit))
        for segment in self.segments:
            self._compiled()
            self.pace.count(segment)
            if not segment.sound:
                return self._fault(segment)
            if status := self._boundary(segment.step, self.observer.observe(segment, segment.step in evaluations)):
                return status
        return "completed"

    def _compiled(self) -> None:
        """The first call, which compiles, is over."""
        if not self.interruption.ask:
            self.interruption.ask = self._stop

    def _stop(self) -> None:
        if self.peers.alone:
            self.step.stop()

    def _asked(self) -> bool:
        """Whether a signal asked this process, or another of the run, to stop."""
        return self.peers.agreed(bool(self.interruption.received))

    def _boundary(self, step: int, stop: str) -> str:
        """What follows the observation of a segment; returns the status where the run is to end."""
        total = self.experiment.clock.steps
        self.state.host["stopped"] = stop if step < total else ""
        self.saver.at(step)
        if self.state.host["stopped"]:
            self.say(f"stopped at step {step}: {self.state.host['stopped']}")
            return "completed"
        return "interrupted" if step < total and self._asked() else ""

    # --- steps that are not finite ---

    def _fault(self, segment: Segment) -> str:
        """Takes the step back, which has changed nothing but its count; then rolls back, or halts."""
        step = segment.step
        self.state.step.assign(step - 1)
        self.state.skipped.assign_sub(1)
        before = segment._replace(step=step - 1, rows=segment.rows[:-1])
        if len(before.rows):
            self.observer.observe(before, evaluate=False)
        trainer, host = self.experiment.trainer, self.state.host
        about = self.observer.suspect(segment, len(segment.rows) - 1)
        said = ", ".join(f"{name} {about[name]}" for name in ("loss", "grad_norm", "param_norm"))
        text = f"step {step} is not finite ({said}; samples {shortened(about['samples'])})"
        if trainer.nonfinite == "rollback" and host.get("rollbacks", 0) < trainer.nonfinite_limit:
            return self._roll_back(text, step, about)
        self.folder.events.add("fault", step, **about)
        self.say(f"halted: {text}. {self._advice()}")
        return "halted"

    def _advice(self) -> str:
        trainer = self.experiment.trainer
        if trainer.nonfinite != "halt":
            used = f"trainer.nonfinite_limit={trainer.nonfinite_limit} is used up"
            return f"{used}; a lower optimizer.learning_rate may help."
        return (
            "A lower optimizer.learning_rate, a longer schedule.warmup or clipping=global_norm may help; "
            "trainer.nonfinite=skip leaves such batches out, rollback goes back with a lower rate."
        )

    def _before(self, fault: int) -> checkpoint.Saved | None:
        """Where to go back to: before the last step, if it can be, whose weights lead to the fault at any rate."""
        ways: tuple[dict[str, float], ...] = ({"below": fault - 1}, {})
        found = (checkpoint.newest(self.folder.checkpoints, periodic=True, **way)[0] for way in ways)
        return next((saved for saved in found if saved), None)

    def _roll_back(self, text: str, step: int, about: dict[str, Any]) -> str:
        """Goes back to the last checkpoint that was due, whatever else was saved since, with a lower rate."""
        self.saver.wait()
        saved = self.peers.shared(lambda: self._before(step))
        if saved is None:
            raise UserError("trainer.nonfinite=rollback: no valid checkpoint to go back to")
        for later in self.folder.checkpoints.glob("step-*"):
            if int(later.name[5:]) > saved.step:
                checkpoint.remove(later)
        count = self.state.host.get("rollbacks", 0) + 1
        since = count - saved.host.get("rollbacks", 0)
        self.state.restore(saved.arrays, saved.host)
        self.state.host["rollbacks"] = count
        factor = math.prod([self.experiment.trainer.rollback_factor] * since)
        self.state.rate_factor.assign(self.state.rate_factor * factor)
        self.observer.flush()  # before it is taken back
        self.folder.cut_log(saved.host["log_size"], saved.step)
        self.observer.restart(saved.step, saved.host["log_size"])
        self.saver.forget()
        self.folder.events.add("rollback", saved.step, fault=step, **about)
        self.say(f"{text}: back to step {saved.step}, with {self.state.rate_factor.numpy():.3g} of the rate")
        return "rolled back"


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """To look through the graphs as often as usual takes a tenth of a run's time."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, SELDOM * old)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def shortened(samples: list[int], most: int = 8) -> str:
    """The first few of a batch's samples; all are in events.jsonl."""
    return ", ".join(map(str, samples[:most])) + (", ..." if len(samples) > most else "")

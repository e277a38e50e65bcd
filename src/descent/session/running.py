"""The story of a run. The order at a boundary is step, evaluation, callbacks, checkpoint."""

from __future__ import annotations

from typing import Any

from descent import checkpoint
from descent.session.building import Run
from descent.session.finishing import finish
from descent.session.observing import Observer
from descent.session.starting import check, start
from descent.signals import Interruption
from descent.trainer import Segment, boundaries, train


class Session(Run):
    """A run under way."""

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns the summary, and leaves the best weights in the model."""
        first, checked = start(self), check(self)
        with Observer(self, first) as self.observer, Interruption() as interruption:
            status = self._train(first, interruption)
            self.save()
        return finish(self, status, checked)

    def _train(self, start: int, interruption: Interruption) -> str:
        """Runs until the end, a callback's stop, a signal or a non-finite step; returns the status."""
        clock = self.experiment.clock
        if self.state.host.get("stopped"):
            return "completed"
        evaluations = set(boundaries(clock.in_steps(self.experiment.trainer.eval_every), clock.steps))
        saves = set(boundaries(clock.in_steps(self.keeper.every), clock.steps)) if self.keeper else set()
        for segment in train(self.step, self.pipeline, start, sorted(evaluations | saves)):
            self.pace.count(segment)
            if not self._sound(segment):
                return "halted"
            stop = self.observer.observe(segment, segment.step in evaluations)
            self.state.host["stopped"] = stop if segment.step < clock.steps else ""
            if segment.step in saves:
                self.save()
            if self.state.host["stopped"]:
                self.say(f"stopped at step {segment.step}: {self.state.host['stopped']}")
                return "completed"
            if interruption.received and segment.step < clock.steps:
                return "interrupted"
        return "completed"

    def _sound(self, segment: Segment) -> bool:
        """Whether training may go on. A step that was not finite has changed nothing."""
        if segment.sound:
            return True
        where = len(segment.rows) - 1
        record = segment.record(where)
        self.say(
            f"halted: step {segment.first + where} has a loss of {record['train/loss']} and a gradient norm of "
            f"{record['train/grad_norm']}. A lower optimizer.learning_rate, a longer schedule.warmup or "
            "clipping=global_norm may help; trainer.nonfinite=skip leaves such batches out."
        )
        return False

    def save(self) -> None:
        """A checkpoint of this moment, with the length of the log that goes with it, and the best weights."""
        self.state.host["log_size"] = self.observer.log.size()
        checkpoint.save(
            self.folder.checkpoints,
            self.now,
            self.state.snapshot(),
            self.state.host,
            self.state.paths(),
            keep=self.keeper.keep if self.keeper else 1,
        )

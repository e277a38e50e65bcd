"""Checkpoints of a run: when they are due, and the thread that writes them from a snapshot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from descent import checkpoint, environment
from descent.folder import Log
from descent.session.run import Run
from descent.trainer import boundaries


class Saver:
    """Writes checkpoints off the training thread, one at a time and in order; use it as a context.

    A save is acknowledged, as an event, once it is durable. One that fails (a full disk) is named, leaves the ones
    before it, and training goes on.

    Attributes:
        due: the steps at which a checkpoint is due.
        failed: why the last save was not written, or "".
    """

    def __init__(self, run: Run, log: Log) -> None:
        self.run, self.log, self.failed, self.last = run, log, "", time.monotonic()
        self.step = -1  # of the last save
        clock, keeper = run.experiment.clock, run.keeper
        self.due = set(boundaries(clock.in_steps(keeper.every), clock.steps)) if keeper else set()
        self.every_seconds = 60 * keeper.every_minutes if keeper and keeper.every_minutes else float("inf")
        self.keep = keeper.keep if keeper else 1
        self.anchors = 2 if run.experiment.trainer.nonfinite == "rollback" else 1  # the newest may hold ruined weights
        self.provenance = environment.provenance(run.given, run.step.jit, run.replicas)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self.writing: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown()

    def at(self, step: int) -> None:
        """Saves what is due: weights that are among the best, and a checkpoint by steps or by minutes."""
        with self.run.pace.on("saving"):
            if step in self._top(self.run.state.host):
                self._keep(step)
            if step in self.due or time.monotonic() - self.last > self.every_seconds:
                self.save(periodic=step in self.due)

    def save(self, *, periodic: bool = False) -> None:
        """Hands a snapshot of this moment to the writer; waits for the one before, should it not be done yet."""
        self.wait()
        run, self.last = self.run, time.monotonic()
        periodic = periodic or run.now in self.due or not run.now  # also where it is written anew
        if self.step == run.now and not self.failed:
            return  # the same moment
        try:
            run.state.host["log_size"] = self.log.flush()
        except OSError as error:
            self._fail(run.now, error)
            return
        arrays, paths, step = run.state.snapshot(), run.state.paths(), run.now
        host, self.step = json.loads(json.dumps(run.state.host)), step

        def write() -> None:
            self.log.sync()
            about = {"periodic": periodic, "provenance": self.provenance}
            checkpoint.save(run.folder.checkpoints, step, arrays, host, paths, self.keep, self.anchors, **about)
            for path in run.folder.checkpoints.glob("top-*"):
                if int(path.name[4:]) not in self._top(host):
                    checkpoint.remove(path)

        self._submit(step, write)

    def forget(self) -> None:
        """After a rollback: the step of the last save may come again, and is another one then."""
        self.step = -1

    def _top(self, host: dict[str, Any]) -> list[int]:
        """The steps whose weights are kept beside the best."""
        memories = host.get("callbacks", {}).values()
        return [step for memory in memories for _, step in memory.get("top", ())]

    def _keep(self, step: int) -> None:
        """Writes the weights as evaluated; they are pruned once a checkpoint no longer counts them."""
        folder, weights = self.run.folder.checkpoints, self.run.state.copies()
        paths = self.run.state.paths()["model"]
        self.wait()
        self._submit(0, lambda: checkpoint.save_weights(folder, f"top-{step:06d}", weights, paths, step=step))

    def _submit(self, step: int, write: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                write()
            except OSError as error:
                self._fail(step, error)
            else:
                self.failed = ""
                if step:
                    self.run.folder.events.add("saved", step)

        self.writing = self.thread.submit(guarded)

    def _fail(self, step: int, error: OSError) -> None:
        self.failed = str(error)
        self.run.folder.events.add("save_failed", step, error=str(error))
        self.run.say(f"the checkpoint of step {step} could not be written: {error}; earlier ones are kept")

    def wait(self) -> bool:
        """Waits for the save under way; returns whether the last one is durable."""
        if self.writing:
            self.writing.result()
        return not self.failed


class Silent(Saver):
    """Saves nothing: another process of the run does."""

    def at(self, step: int) -> None:
        """Nothing to do."""

    def save(self, *, periodic: bool = False) -> None:
        """Nothing to do."""

"""Loggers: where records go beside `metrics.jsonl`. They may fail; the run may not."""

from __future__ import annotations

import functools
import itertools
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from descent.rows import Rows
from descent.types import Count, Logger, Record, Sink, part


@runtime_checkable
class Concluding(Sink, Protocol):
    """A sink that stays open to the end of the run, and is told its summary and where its figures are."""

    def conclude(self, summary: Mapping[str, Any], plots: Path) -> None: ...


@runtime_checkable
class Columnar(Sink, Protocol):
    """A sink that takes rows as they are, and many at once, which is faster."""

    def write_rows(self, blocks: Sequence[Rows]) -> None: ...


@part
class TensorBoard:
    """Event files in the run folder's `tensorboard/`, under the names of the log.

    Attributes:
        flush_seconds: how often they are written out.
    """

    flush_seconds: Count = 30

    def open(self, folder: str, *, step: int) -> Sink:
        from descent.event_file import EventFile

        return EventFile(f"{folder}/tensorboard", self.flush_seconds, step)


@part
class Profile:
    """A trace of some steps for TensorBoard's profiler, in `tensorboard/plugins/profile/`, and a page of times.

    The trace costs speed while it is taken. It begins and ends when rows are handed out, about once a second.

    Attributes:
        start: the step after which it begins; the first ones compile.
        steps: how many are traced at least.
    """

    start: Count = 20
    steps: Count = 100

    def open(self, folder: str, *, step: int) -> Sink:
        return _Trace(f"{folder}/tensorboard", step + self.start, self.steps)


class _Trace:
    def __init__(self, path: str, first: int, steps: int) -> None:
        self.path, self.first, self.steps, self.last, self.state = path, first, steps, first, "due"

    def write(self, record: Record) -> None:
        self.write_rows([Rows.of(record)])

    def write_rows(self, blocks: Sequence[Rows]) -> None:
        """The newest row is of about now; those before it are of steps that are over, and cannot be traced."""
        import tensorflow as tf

        now = max((rows.values[-1, 0] for rows in blocks if len(rows)), default=0)
        if self.state == "due" and now >= self.first:
            tf.profiler.experimental.start(self.path)
            self.state, self.last = "running", now + self.steps
        elif self.state == "running" and now >= self.last:
            self.close()

    def close(self) -> None:
        import tensorflow as tf

        if self.state == "running":
            tf.profiler.experimental.stop()
        self.state = "done"


@part
class WandB:
    """Weights & Biases: online when logged in and the server answers, else offline files to sync later.

    Attributes:
        project: where the run is filed.
        entity: user or team; None: the account's own.
        mode: online, offline, or auto: online where there is a key and a network.
    """

    project: str = "descent"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"

    def open(self, folder: str, *, step: int) -> Sink:
        return _WandBRun(self, Path(folder), step)


class _WandBRun:
    """The run's id is that of its folder's first start, so a continued run goes on with the same curve."""

    def __init__(self, options: WandB, folder: Path, step: int) -> None:
        import wandb
        import yaml

        wandb.setup(wandb.Settings(silent=True))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        kept = folder / "wandb_id"
        if not kept.exists():
            kept.write_text(secrets.token_hex(4))
        self.run = wandb.init(
            project=options.project,
            entity=options.entity,
            mode="offline" if options.mode == "offline" else self._mode(options.mode),
            dir=str(folder),
            id=kept.read_text(),
            resume="allow",
            name=config["name"],
            tags=config["tags"],
            config=config,
            settings=wandb.Settings(silent=True, init_timeout=20, console="off"),
        )

    def _mode(self, wanted: str) -> Literal["online", "offline"]:
        if wanted == "online" or _reachable():
            return "online"
        _tell_offline()
        return "offline"

    def write(self, record: Record) -> None:
        self.run.log({name: v for name, v in record.items() if "/" in name}, step=int(record["step"]))

    def conclude(self, summary: Mapping[str, Any], plots: Path) -> None:
        """Figures go into the row of the last step, under plots/."""
        import wandb

        figures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in sorted(plots.glob("*.png"))}
        if figures:
            self.run.log(figures)
        self.run.summary.update(dict(summary))

    def close(self) -> None:
        self.run.finish()


@functools.cache  # once, however often a process opens the logger
def _tell_offline() -> None:
    print("wandb: no key or no network, so the run is kept offline; `wandb sync` sends it later", file=sys.stderr)


def _reachable() -> bool:
    """Whether there is a key, and the server takes a connection within a second."""
    from urllib.parse import urlparse

    import wandb

    host = urlparse(str(wandb.setup().settings.base_url)).hostname or ""
    try:
        if not wandb.login(prompt=False):
            return False
        socket.create_connection((host, 443), timeout=1).close()
    except (OSError, wandb.Error):
        return False
    return True


class Loggers:
    """All loggers of a run, each served by a thread of its own, so that none slows the run.

    One that raises is named once and left out from then on.
    """

    def __init__(self, loggers: Mapping[str, Logger], folder: str, step: int) -> None:
        self.served = [_Served(name, logger, folder, step) for name, logger in loggers.items()]

    def write(self, blocks: Sequence[Rows]) -> None:
        """Hands out rows."""
        for served in self.served:
            served.write(blocks)

    def trained(self) -> None:
        """Closes those that are not told how the run ended."""
        for served in self.served:
            served.trained()

    @property
    def concluding(self) -> bool:
        """Whether one is told how the run ended, and shown its figures."""
        return any(isinstance(served.sink, Concluding) for served in self.served)

    def conclude(self, summary: Mapping[str, Any], plots: Path) -> None:
        """Gives the others the summary, and the figures in a folder."""
        for served in self.served:
            served.conclude(summary, plots)

    def close(self) -> None:
        for served in self.served:
            served.close()


class _Served:
    """One logger and its thread."""

    def __init__(self, name: str, logger: Logger, folder: str, step: int) -> None:
        self.name, self.failed = name, False
        self.sink: Sink | None = None
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"logger-{name}")
        self._do(lambda: setattr(self, "sink", logger.open(folder, step=step)))

    def write(self, blocks: Sequence[Rows]) -> None:
        def action() -> None:
            if isinstance(self.sink, Columnar):
                self.sink.write_rows(blocks)
            elif self.sink:
                for record in itertools.chain.from_iterable(rows.records() for rows in blocks):
                    self.sink.write(record)

        self._do(action)

    def trained(self) -> None:
        def action() -> None:
            if not isinstance(self.sink, Concluding):
                self._shut()

        self._do(action).result()

    def conclude(self, summary: Mapping[str, Any], plots: Path) -> None:
        def action() -> None:
            if isinstance(self.sink, Concluding):
                self.sink.conclude(summary, plots)

        self._do(action)

    def close(self) -> None:
        self._do(self._shut)
        self.thread.shutdown()

    def _shut(self) -> None:
        sink, self.sink = self.sink, None
        if sink:
            sink.close()

    def _do(self, action: Callable[[], object]) -> Future[None]:
        return self.thread.submit(self._guarded, action)

    def _guarded(self, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # whatever a logger raises, training goes on
            self.failed = True
            print(f"logger {self.name} failed and is off: {type(error).__name__}: {error}", file=sys.stderr)

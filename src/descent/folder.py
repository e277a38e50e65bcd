"""The files of a run, each written so that a reader never sees half of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from descent.rows import Rows, lines
from descent.types import UserError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, durably: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes a folder, and keeps other processes out of it; a process that is killed lets go of it.

    Raises:
        UserError: another process is running in it.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        lock(handle, path)
        yield
    finally:
        os.close(handle)


def lock(handle: int, path: Path, wait: float = 0.0) -> None:
    """Locks an open file in (or of) a folder until it is closed, waiting so many seconds for whoever has it.

    Raises:
        UserError: another process still has it.
    """
    until = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise UserError(f"{path}: another process is running in it") from error
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return None


UNDRAWN = "undrawn.npz"  # what a completed run has left to another process to draw, until that has done so


class RunFolder:
    """One run's folder: where everything of it is written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.events = Events(self.path / "events.jsonl")
        self.checkpoints = self.path / "checkpoints"
        self.plots = self.path / "plots"
        self.config = self.path / "config.yaml"
        self.undrawn = self.path / UNDRAWN

    @property
    def near(self) -> str:
        """The path as one would type it here."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @property
    def used(self) -> bool:
        return self.config.exists()

    @property
    def complete(self) -> bool:
        return (self.path / "done.json").exists()

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Makes the folder, and keeps other processes out of it; see `locked`."""
        return locked(self.path)

    def clean(self) -> None:
        """Removes what a killed write left behind."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def write_json(self, name: str, content: Any) -> None:
        write_atomic(self.path / name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def cut_log(self, size: int, step: int) -> None:
        """Takes back what was logged after the checkpoint at `step`, when the log had `size` bytes."""
        if self.metrics.exists():
            os.truncate(self.metrics, min(size, self.metrics.stat().st_size))
        self.events.cut(step)
        if self.timing.exists():
            rows = [row for row in read_rows(self.timing) if row.get("step", 0) <= step]
            kept = [json.dumps(row) + "\n" for row in rows]
            write_atomic(self.timing, "".join(kept))


class Log:
    """The log of a run, `metrics.jsonl`: one row a record; nothing in it depends on the clock.

    A row that cannot be written (a full disk) is kept, and written with the next that can.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.length, self.kept = path.stat().st_size, bytearray()
        self.rows: list[Rows] = []

    def write(self, rows: Rows) -> None:
        """Takes rows; they are encoded when they are handed on, all together."""
        self.rows.append(rows)

    def flush(self) -> int:
        """Hands all rows to the system; returns the length in bytes.

        Raises:
            OSError: they could not be written; they are kept.
        """
        if not os.path.exists(self.file.name):  # the open file would take rows that nobody finds
            raise FileNotFoundError(f"{self.file.name} has vanished")
        self.kept += lines(self.rows)
        self.rows.clear()
        try:
            written = 0
            while written < len(self.kept):
                written += self.file.write(memoryview(self.kept)[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file.fileno(), self.length)
            raise
        self.length, self.kept = self.length + written, bytearray()
        return self.length

    def sync(self) -> None:
        """Makes durable what was flushed."""
        os.fsync(self.file.fileno())

    def cut(self, size: int) -> None:
        """Takes back what was written after the first `size` bytes."""
        os.ftruncate(self.file.fileno(), size)
        self.length, self.kept = size, bytearray()
        self.rows.clear()

    def close(self) -> None:
        self.file.close()


class Events:
    """What happened beside training, `events.jsonl`: starts, saves, faults. For people; a row that fails is left out.

    Attributes:
        OF_STEPS: kinds that are found again where their steps are done again.
    """

    OF_STEPS = ("skipped", "spike")

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()

    def add(self, event: str, step: int, **more: Any) -> None:
        row = json.dumps({"event": event, "step": step, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}", **more})
        with contextlib.suppress(OSError), self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(row + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All that can be read."""
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("step"), int)]

    def cut(self, step: int) -> None:
        """Takes back what steps after `step` gave rise to: they will again."""
        rows = [row for row in self.rows() if row.get("event") not in self.OF_STEPS or row["step"] <= step]
        if self.path.exists():
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def acknowledged(self) -> int:
        """The step of the last checkpoint that was reported durable; 0 for none."""
        steps = [row["step"] for row in self.rows() if row.get("event") in ("saved", "rollback")]
        return steps[-1] if steps else 0


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a JSON-lines log as records; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        rows.append({name: float(value) for name, value in row.items()})
    return rows

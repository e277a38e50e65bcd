"""The files of a run, each written so that a reader never sees half of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from descent.types import Record


def write_atomic(path: Path, text: str) -> None:
    """Writes a file whole or not at all, durably: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
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


class RunFolder:
    """One run's folder: where everything of it is written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.plots = self.path / "plots"
        self.config = self.path / "config.yaml"

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

    def write_json(self, name: str, content: Any) -> None:
        write_atomic(self.path / name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def cut_log(self, size: int, step: int) -> None:
        """Takes back what was logged after the checkpoint at `step`, when the log had `size` bytes."""
        if self.metrics.exists():
            os.truncate(self.metrics, min(size, self.metrics.stat().st_size))
        if self.timing.exists():
            rows = [json.loads(line) for line in self.timing.read_text().splitlines() if line.endswith("}")]
            kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
            write_atomic(self.timing, "".join(kept))


class Log:
    """The log of a run, `metrics.jsonl`: one row a record; nothing in it depends on the clock."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        self.file.write(json.dumps(jsonable(record)) + "\n")

    def size(self) -> int:
        """Bytes so far, all of them on disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def jsonable(record: Record) -> dict[str, float | int | str]:
    """Values as JSON knows them: it has no infinity and no NaN, so these are written as their names."""
    return {name: value if np.isfinite(value) else str(value) for name, value in record.items()}


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

"""Loggers receive what the log holds, and may fail without harm."""

from __future__ import annotations

import json
import math
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event

from descent import compose, logger
from descent.folder import read_rows
from descent.logger import Loggers, TensorBoard, WandB
from descent.rows import Rows


def test_tensorboard_reads_every_scalar_under_the_names_of_the_log(quick, folder):
    compose("debug=fast", "trainer.threads=2", "trainer.jit=false").run(folder)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    rows = read_rows(folder / "metrics.jsonl")
    names = {name for row in rows for name in row if "/" in name}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        read = {event.step: event.value for event in events.Scalars(name)}
        assert read == pytest.approx({row["step"]: row[name] for row in rows if name in row}, rel=1e-6)


class Broken:
    def open(self, folder: str, *, step: int) -> Broken:
        return self

    def write(self, record: dict[str, float]) -> None:
        raise OSError("disk full")

    def close(self) -> None:
        raise AssertionError("closed though it had failed")


def test_a_logger_that_fails_is_named_once_and_left_out(capsys, tmp_path):
    loggers = Loggers({"broken": Broken()}, str(tmp_path), 0)
    for step in range(3):
        loggers.write([Rows.of({"step": step})])
    loggers.trained()
    loggers.conclude({"test/loss": 1.0}, tmp_path)
    loggers.close()
    assert capsys.readouterr().err == "logger broken failed and is off: OSError: disk full\n"


class Inconclusive:
    def write(self, record: dict[str, float]) -> None: ...

    def conclude(self, summary: dict[str, float], plots: Path) -> None:
        raise OSError("disk full")

    def close(self) -> None: ...


def test_a_logger_that_fails_at_the_end_leaves_the_run_completed(quick, folder, monkeypatch, capsys):
    monkeypatch.setattr(WandB, "open", lambda *_, **__: Inconclusive())
    result = compose("debug=fast", "logger=[wandb]", "trainer.threads=2", "trainer.jit=false").run(folder)
    assert result.summary["status"] == "completed"
    assert capsys.readouterr().err.count("logger wandb failed and is off: OSError: disk full\n") == 1


def test_without_network_or_key_wandb_says_so_once_and_nothing_else(monkeypatch, tmp_path, capfd):
    """No key, a server nobody listens at, and W&B's own switch set to offline."""
    logger._tell_offline.cache_clear()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("{name: a, tags: []}")
    for step in (0, 5):  # a rollback opens it again
        WandB().open(str(tmp_path), step=step).close()
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("wandb: no key or no network, so the run is kept offline;")


BLOCK = 32768


def records(content: bytes) -> Iterator[bytes]:
    """All records of a W&B file, sums verified: LevelDB's log format after a header of seven bytes, CRC-32."""
    place, parts = 7, []
    while place < len(content):
        if BLOCK - place % BLOCK < 7:  # the rest of a block too short for a header is padding
            place += BLOCK - place % BLOCK
            continue
        total, length, kind = struct.unpack_from("<IHB", content, place)
        assert zlib.crc32(content[place + 6 : place + 7 + length]) == total
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield b"".join(parts)
            parts = []
    assert (place, parts) == (len(content), [])


def read_back(folder: Path) -> tuple[list[Any], dict[int, dict[str, Any]], dict[str, Any]]:
    """What an offline run of W&B's holds: its run records, rows by step, and its last summary."""
    from wandb.proto.wandb_internal_pb2 import Record

    def values(items: Any) -> dict[str, Any]:
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    runs, rows, summary = [], {}, {}
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("run"):
            runs.append(record.run)
        if items := values(record.history.item):
            rows[int(items["_step"])] = items
        summary |= values(record.summary.update)
    return runs, rows, summary


@pytest.mark.figures
def test_wandb_without_network_keeps_everything_offline(folder):
    """The offline file, read back whole, has each scalar of the log, the config, the id, the summary, the figures."""
    options = (
        "trainer.threads=2",
        "trainer.jit=false",
        "trainer.log_every=1",
        "tags=[a,b]",
        "logger.wandb.mode=offline",
    )
    result = compose("debug=fast", "logger=[wandb]", *options).run(folder)
    (run, *_), read, summary = read_back(folder)
    assert (run.run_id, run.display_name) == ((folder / "wandb_id").read_text(), result.summary["name"])
    assert list(run.tags) == ["a", "b"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config.items() >= yaml.safe_load((folder / "config.yaml").read_text()).items()
    rows = {row["step"]: row for row in read_rows(folder / "metrics.jsonl")}
    assert read.keys() == rows.keys()
    for step, values in read.items():
        scalars = {k: v for k, v in values.items() if k.startswith(("train/", "val/"))}
        assert scalars == pytest.approx({k: v for k, v in rows[step].items() if "/" in k})
    written = json.loads((folder / "summary.json").read_text())
    assert {name: summary[name] for name in written} == written
    figures = {f"plots/{path.stem}": path.read_bytes() for path in (folder / "plots").glob("*.png")}
    last = read[max(read)]
    (files,) = (folder / "wandb").glob("offline-run-*/files")
    assert figures
    assert figures == {name: (files / last[f"{name}/path"]).read_bytes() for name in figures}


def test_a_profile_has_a_trace_and_a_page_whose_seconds_are_those_of_the_run(folder):
    """The trace begins after one call and ends with the run."""
    words = ("debug=fast", "logger=profile", "logger.profile.start=5", "trainer.steps_per_call=5")
    result = compose(*words, "trainer.threads=2", "trainer.jit=false").run(folder)
    assert list(folder.glob("tensorboard/plugins/profile/*/*.xplane.pb"))
    time = result.summary["time"]
    assert {"start", "first_call", "input", "steps", "evaluation", "python"} <= time.keys()
    assert sum(time.values()) == pytest.approx(result.summary["seconds"], abs=0.1)
    page = (folder / "profile.txt").read_text()
    assert all(kind in page for kind in time)


def test_a_trace_is_of_steps_to_come_however_many_rows_arrive_at_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda path: calls.append("start"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append("stop"))
    trace = logger.Profile(start=20, steps=100).open(str(tmp_path), step=0)
    told = []
    for first in (1, 500, 550, 640):
        trace.write_rows([Rows.of({"step": step}) for step in range(first, first + 10)])
        told.append(list(calls))
    assert told == [[], ["start"], ["start"], ["start", "stop"]]


@pytest.mark.parametrize(
    "record",
    [
        {"train/loss": 0.5},
        {"a/b": 1.5, "a/b/c": -2.0, "val/simple_value": math.inf, "c/d": math.nan},
        {"too/large": 1e60, "and/zero": 0.0},
    ],
    ids=str,
)
def test_events_are_those_that_tensorboards_own_messages_are(tmp_path, record: dict[str, float]):
    sink = TensorBoard().open(str(tmp_path), step=0)
    sink.write({"step": 70000, "epoch": 0.5, **record})
    sink.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    _, event = (Event.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(str(path)))
    assert event.step == 70000
    assert abs(event.wall_time - time.time()) < 60
    found = {value.tag: value.simple_value for value in event.summary.value}
    assert found == pytest.approx({tag: math.inf if v > 3.5e38 else v for tag, v in record.items()}, nan_ok=True)


def test_records_written_at_once_are_those_written_one_by_one(tmp_path):
    """Steps of one to nine bytes, and names that change in between."""
    steps = [0, 1, 127, 128, 300, 2**31, 2**55]
    rows = [{"step": float(s), "a/x": s / 7, **({"b/y": -1.0} if i % 3 == 2 else {})} for i, s in enumerate(steps)]
    loggers = Loggers({"tensorboard": TensorBoard()}, str(tmp_path), 0)
    loggers.write([Rows.of(row) for row in rows])
    loggers.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    _, *events = (Event.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(str(path)))
    found = [{"step": e.step, **{value.tag: value.simple_value for value in e.summary.value}} for e in events]
    assert found == [pytest.approx(row, rel=1e-6) for row in rows]

"""Loggers receive what the log holds, and may fail without harm."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from descent import compose
from descent.folder import read_rows
from descent.logger import Loggers


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
        loggers.write({"step": step})
    loggers.close()
    assert capsys.readouterr().err == "logger broken failed and is off: OSError: disk full\n"


BLOCK = 32768


def records(content: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format after a header of seven bytes."""
    place, parts = 7, []
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # the rest of a block too short for a header is padding
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield b"".join(parts)
            parts = []


def test_wandb_without_network_keeps_every_row_offline(folder):
    """The offline file is read back completely."""
    from wandb.proto.wandb_internal_pb2 import Record

    options = ("trainer.threads=2", "trainer.jit=false", "trainer.log_every=1", "logger.wandb.mode=offline")
    compose("debug=fast", "logger=[wandb]", *options).run(folder)
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    read = {}
    for content in records(path.read_bytes()):
        record = Record.FromString(content)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if items:
            read[int(items["_step"])] = {k: float(v) for k, v in items.items() if k.startswith(("train/", "val/"))}
    rows = {row["step"]: row for row in read_rows(folder / "metrics.jsonl")}
    assert read.keys() == rows.keys()
    for step, values in read.items():
        assert values == pytest.approx({k: v for k, v in rows[step].items() if "/" in k})


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

"""Checkpoints under damage and kills: a thousand damaged ones, two hundred kills while saving, a campaign of kills."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from descent import checkpoint

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("model", "optimizer", "averaging", "scaling", "step", "best")
FILES = (*(f"{kind}.npz" for kind in KINDS), "host.json", "manifest.json")


def save(folder: Path, step: int) -> Path:
    draw = np.random.default_rng(step)
    arrays = {kind: [draw.normal(size=(7, 5)).astype(np.float32), np.zeros(99)] for kind in KINDS}
    paths = {kind: ["kernel", "bias"] for kind in KINDS}
    host = {"best": {"value": 0.25, "step": step}, "log_size": 100 * step, "stopped": ""}
    return checkpoint.save(folder, step, arrays, host, paths, keep=2, periodic=True, provenance={"threads": "2"})


def damaged(content: bytes, draw: random.Random):
    """A few of every kind of damage."""
    size = len(content)
    for _ in range(60):
        flipped = bytearray(content)
        flipped[draw.randrange(size)] ^= 1 << draw.randrange(8)
        yield "flip", bytes(flipped)
    for _ in range(30):
        yield "truncate", content[: draw.randrange(size)]
    for _ in range(30):
        at, length = draw.randrange(size), draw.choice((1, 16, 512))
        yield "zero", content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
    for _ in range(6):
        yield "garbage", draw.randbytes(draw.choice((1, size, 3 * size)))
    yield "empty", b""
    yield "delete", None


def content(saved: checkpoint.Saved) -> object:
    arrays = {kind: [(a.tobytes(), a.shape, str(a.dtype)) for a in group] for kind, group in saved.arrays.items()}
    return saved.step, saved.host, saved.about, arrays


def test_a_thousand_damaged_checkpoints_are_noticed_or_harmless(tmp_path):
    save(tmp_path, 1)
    whole, draw, cases, harmless = content(checkpoint.read(save(tmp_path, 2))), random.Random(4), 0, 0
    for name in FILES:
        path = tmp_path / "step-000002" / name
        original = path.read_bytes()
        for kind, bad in damaged(original, draw):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            saved, passed = checkpoint.newest(tmp_path)
            assert saved is not None
            if saved.step == 1:
                assert passed[0].startswith("step-000002: ")
            else:
                assert content(saved) == whole, (name, kind)
                harmless += 1
            cases += 1
            path.write_bytes(original)
    assert cases >= 1000
    assert harmless < 0.1 * cases  # zeros over zeros, and spaces of the manifest


# A process without TensorFlow that forks savers and kills them; prints what it found.
SAVERS = """
import os, random, signal, sys, time
from pathlib import Path
from test_durability import save
from descent import checkpoint
folder, kills, draw, last = Path(sys.argv[1]), int(sys.argv[2]), random.Random(5), 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        step = last
        while True:
            step += 1
            save(folder, step)
            os.write(writing, step.to_bytes(4, "big"))
    os.close(writing)
    began = time.monotonic()
    told = os.read(reading, 4)
    time.sleep(draw.uniform(0, 2 * (time.monotonic() - began)))  # into one of the next two saves
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told += os.read(reading, 1 << 20)
    os.close(reading)
    acknowledged = int.from_bytes(told[-4:], "big")
    saved, passed = checkpoint.newest(folder)
    found = saved.step if saved else 0
    assert not passed, passed
    assert found in (acknowledged, acknowledged + 1), (found, acknowledged)
    checkpoint.clean(folder)
    assert not list(folder.glob(".*")), list(folder.iterdir())
    last = found
print(f"{kills} kills, {last} saves")
"""


def test_two_hundred_kills_while_saving_lose_no_acknowledged_save(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    kills = os.environ.get("DESCENT_SAVE_KILLS", "200")
    command = [sys.executable, "-W", "ignore", "-c", SAVERS, str(tmp_path / "checkpoints"), kills]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{kills} kills, ")
    assert int(done.stdout.split()[2]) >= int(kills)


@pytest.mark.slow
def test_a_campaign_of_kills_changes_no_bit(tmp_path):
    """As many kills as DESCENT_KILLS says; `python scripts/campaign.py kills=200` is a longer one."""
    kills = os.environ.get("DESCENT_KILLS", "6")
    words = [str(ROOT / "scripts/campaign.py"), f"kills={kills}", f"out={tmp_path / 'runs'}"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all equal" in done.stdout
    shutil.rmtree(tmp_path)

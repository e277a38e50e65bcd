"""A run that was killed and continued is the run that was not, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from descent import checkpoint
from descent.session import running

ROOT = Path(__file__).resolve().parents[1]
RICH = (
    "augmentation=mixup_cutmix", "regularization=dropout", "averaging=ema", "trainer.eval_every=3st",
    "trainer.steps_per_call=4", "callback.checkpoint.every=4st",
)  # fmt: skip


class Killed(Exception):
    """Stands for a kill: raised in the middle of training, after which nothing is saved."""


def killing(train, at: int):
    def inner(*args):
        for segment in train(*args):
            if segment.step > at:
                raise Killed
            yield segment

    return inner


def final(folder: Path) -> checkpoint.Saved:
    saved, passed = checkpoint.newest(folder / "checkpoints")
    assert saved is not None
    assert not passed
    return saved


def same(a: Path, b: Path) -> None:
    one, two = final(a), final(b)
    assert one.step == two.step == 20
    assert one.host == two.host
    for kind, arrays in one.arrays.items():
        for x, y in zip(arrays, two.arrays[kind], strict=True):
            np.testing.assert_array_equal(x, y, strict=True)
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("model", [[], ["model=cnn", "model.widths=[4,8]", "model.dense=8"]])
def test_a_killed_run_continues_bit_for_bit(quick, tmp_path, monkeypatch, model):
    quick(*RICH, *model).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train, at=13))
        with pytest.raises(Killed):
            quick(*RICH, *model).run(tmp_path / "cut")
    assert final(tmp_path / "cut").step == 12
    quick(*RICH, *model).run(tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut")


def test_a_damaged_checkpoint_is_passed_over(quick, tmp_path, monkeypatch, capsys):
    quick(*RICH).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train, at=13))
        with pytest.raises(Killed):
            quick(*RICH).run(tmp_path / "cut")
    path = tmp_path / "cut/checkpoints/step-000012/model.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    quick(*RICH).run(tmp_path / "cut")
    assert "step-000012: model.npz is not what was written" in capsys.readouterr().out
    same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_sigkill_and_the_command_line(tmp_path):
    """The whole process is killed with SIGKILL in mid-training and continued by `resume=`."""
    words = ["data=synthetic", "trainer.steps=3000", "trainer.threads=1", "callback.checkpoint.every=200st", *RICH[:3]]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, str(ROOT / "train.py")]
    subprocess.run([*command, *words, f"hydra.run.dir={whole}"], check=True, cwd=tmp_path, capture_output=True)
    victim = subprocess.Popen([*command, *words, f"hydra.run.dir={cut}"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(cut.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (cut / "done.json").exists()
    done = subprocess.run([*command, f"resume={cut}"], cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout
    one, two = final(whole), final(cut)
    for kind, arrays in one.arrays.items():
        for x, y in zip(arrays, two.arrays[kind], strict=True):
            np.testing.assert_array_equal(x, y, strict=True)
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()


def test_a_run_killed_after_its_last_step_is_finished(quick, tmp_path):
    whole = quick(*RICH).run(tmp_path / "whole")
    (tmp_path / "whole/done.json").unlink()
    (tmp_path / "whole/summary.json").unlink()
    assert quick(*RICH).run(tmp_path / "whole").record == whole.record

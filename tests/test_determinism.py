"""The same seed gives the same bytes, whatever the number of steps in a call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from descent import UserError
from descent.folder import read_rows
from descent.session import build

ROOT = Path(__file__).resolve().parents[1]
MIXED = ("augmentation=mixup_cutmix", "regularization=dropout", "averaging=ema", "trainer.log_every=1")


def log(run, folder, *overrides: str) -> bytes:
    run(*MIXED, *overrides).run(folder)
    return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("model", [[], ["model=cnn", "model.widths=[4,8]", "model.dense=8"]])
def test_equal_seeds_equal_bytes(quick, tmp_path, model):
    assert log(quick, tmp_path / "a", *model) == log(quick, tmp_path / "b", *model)


def test_other_seeds_other_bytes(quick, tmp_path):
    assert log(quick, tmp_path / "a", "seed=1") != log(quick, tmp_path / "b", "seed=257")


@pytest.mark.parametrize("jit", ["false", "true"])
def test_steps_a_call_change_no_byte(quick, tmp_path, jit):
    logs = [log(quick, tmp_path / k, f"trainer.steps_per_call={k}", f"trainer.jit={jit}") for k in ("1", "7", "32")]
    assert logs[0] == logs[1] == logs[2]


def test_the_number_of_steps_in_a_call_is_a_runtime_value(quick):
    built = build(quick("trainer.steps=64", "trainer.jit=true", "trainer.steps_per_call=8").resolved())
    chunks = iter(built.pipeline.training(0))
    for begin, end in ((0, 8), (0, 3), (3, 4), (4, 8)):
        if begin == 0:
            chunk = next(chunks)
        built.step.run(chunk, tf.constant(begin), tf.constant(end))
    assert built.step.run.experimental_get_tracing_count() == 1
    assert int(built.state.step.numpy()) == 16


def test_dropout_masks_are_not_frozen_at_trace_time(quick, folder):
    """At a rate of zero nothing is learned, so equal batches differ in loss by their masks alone."""
    run = quick(
        "data.samples=8", "trainer.batch_size=8", "regularization.dropout=0.5", "regularization.label_smoothing=0",
        "optimizer=sgd", "optimizer.learning_rate=1e-12", "trainer.log_every=1",
    )  # fmt: skip
    losses = [row["train/loss"] for row in read_rows(run.run(folder).folder / "metrics.jsonl")]
    assert len(set(losses)) == len(losses) == 20


def test_logging_more_changes_no_number(quick, tmp_path):
    quick("trainer.log_every=1").run(tmp_path / "often")
    quick("trainer.log_every=10").run(tmp_path / "seldom")
    often, seldom = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("often", "seldom"))
    assert [row for row in often if row["step"] % 10 == 0] == seldom


def test_a_process_that_computes_deterministically_stays_so(quick, folder):
    with pytest.raises(UserError, match=r"trainer\.deterministic=false: this process already computes determ"):
        quick("trainer.deterministic=false").run(folder)


@pytest.mark.slow
def test_kernels_may_depend_on_thread_timing_where_asked(tmp_path):
    words = ["debug=fast", "trainer.deterministic=false", f"hydra.run.dir={tmp_path / 'run'}"]
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], check=True, cwd=tmp_path, capture_output=True)
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_strided_shortcuts_of_few_channels_train(tmp_path):
    """In a process of their own: what went wrong here ended it (oneDNN, strided convolutions of 1x1)."""
    words = ["debug=fast", "data.shape=[64,64,3]", "data.samples=64", "model=resnet20", "model.width=4,8"]
    more = ["model.blocks=1", "trainer.steps=2", "trainer.jit=false", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=basic", *words, *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("sweep/*/done.json"))) == 2

"""What a run does at steps that are not finite, and where disk, memory or files fail."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from descent import UserError, checkpoint, part
from descent.callback import Spike
from descent.folder import Log, read_rows
from descent.rows import Rows
from descent.session import build, finishing, observing, running

ROOT = Path(__file__).resolve().parents[1]

POISON = ("augmentation.batch._target_=test_faults.Poison", "trainer.log_every=1", "callback.checkpoint.every=4st")


@part
class Poison:
    """Mixing that turns the inputs of steps from `first` to `last` (counted from 1) of 20 into NaN."""

    first: int = 14
    last: int = 14

    def draw(self, seed, shape, progress):
        import tensorflow as tf

        step = tf.round(progress * 20) + 1
        return {"factor": tf.where((step >= self.first) & (step <= self.last), math.nan, 1.0)}

    def apply(self, plan, batch):
        return batch._replace(inputs=batch.inputs * plan["factor"])


def events(folder: Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


def test_halt_saves_the_state_before_the_step_and_names_it(quick, folder, capsys):
    run = quick(*POISON)
    result = run.run(folder)
    assert (result.summary["status"], result.exit_code) == ("halted", 3)
    saved, _ = checkpoint.newest(folder / "checkpoints")
    assert saved is not None
    assert saved.step == result.summary["steps"] == 13
    (event,) = events(folder, "fault")
    samples = build(run.resolved()).pipeline.indices(14)
    assert (event["step"], event["grad_norm"], event["samples"]) == (14, "nan", samples)
    assert f"halted: step 14 is not finite (loss {event['loss']}, grad_norm nan, param_norm {event['param_norm']}" in (
        capsys.readouterr().out
    )
    assert [row["step"] for row in read_rows(folder / "metrics.jsonl")] == list(range(1, 14))
    assert "halted after 13 steps" in (folder / "report.html").read_text()
    assert all(np.isfinite(a).all() for arrays in saved.arrays.values() for a in arrays)


CNN = ("model=cnn", "model.widths=[4,8]", "model.dense=8", "averaging=ema", "regularization=dropout")


def test_skip_equals_a_run_without_the_update(quick):
    """The truth: the same compiled step over all other batches, the count alone moved past the poisoned one."""
    import tensorflow as tf

    run = quick(*POISON, *CNN, "trainer.nonfinite=skip", "trainer.steps_per_call=20").resolved()
    skipping, without = build(run), build(run)
    chunk = next(iter(skipping.pipeline.training(0)))

    def walk(built, *ranges):
        for begin, end in ranges:
            built.state.step.assign(begin)
            built.step.run(chunk, tf.constant(begin), tf.constant(end))
        return built.state.snapshot()

    one, two = walk(skipping, (0, 20)), walk(without, (0, 13), (14, 20))
    for kind, arrays in one.items():
        for a, b in zip(arrays, two[kind], strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_array_equal(a, b, strict=True)


def test_skip_halts_after_its_limit_and_counts(quick, folder):
    words = (*POISON, "+augmentation.batch.first=9", "+augmentation.batch.last=99", "trainer.steps_per_call=7")
    result = quick(*words, "trainer.nonfinite=skip", "trainer.nonfinite_limit=3").run(folder)
    assert (result.summary["status"], result.summary["steps"], result.summary["skipped"]) == ("halted", 11, 3)
    assert [event["step"] for event in events(folder, "skipped")] == [9, 10, 11]


def test_rollback_goes_back_with_a_lower_rate_a_bounded_number_of_times(quick, folder):
    run = quick(*POISON, "trainer.nonfinite=rollback", "trainer.nonfinite_limit=2", "trainer.rollback_factor=0.25")
    result = run.run(folder)
    assert (result.summary["status"], result.summary["steps"], result.summary["rollbacks"]) == ("halted", 13, 2)
    assert [(event["step"], event["fault"]) for event in events(folder, "rollback")] == [(12, 14)] * 2
    rates = {row["step"]: row["train/learning_rate"] for row in read_rows(folder / "metrics.jsonl")}
    assert list(rates) == list(range(1, 14))
    assert rates[13] == pytest.approx(run.rates()[12] / 16, rel=1e-6)
    assert rates[12] == pytest.approx(run.rates()[11], rel=1e-6)


class Killed(Exception):
    """Stands for a kill."""


def test_rollback_cures_a_rate_that_ruins_and_survives_a_kill(quick, tmp_path, monkeypatch):
    words = (
        "optimizer=sgd", "optimizer.learning_rate=1e30", "schedule=constant", "trainer.nonfinite=rollback",
        "trainer.rollback_factor=1e-32", "trainer.steps_per_call=3", "callback.checkpoint.every=6st",
        "trainer.log_every=1", "regularization=none",
    )  # fmt: skip
    whole = quick(*words).run(tmp_path / "whole")
    assert (whole.summary["status"], whole.summary["rollbacks"]) == ("completed", 1)

    def killing(train):
        def inner(*args):
            for segment in train(*args):
                if segment.step > 8:
                    raise Killed
                yield segment

        return inner

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train))
        with pytest.raises(Killed):
            quick(*words).run(tmp_path / "cut")
    assert quick(*words).run(tmp_path / "cut").summary["rollbacks"] == 1
    one, two = (checkpoint.newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "cut"))
    assert one.host == two.host
    for kind, arrays in one.arrays.items():
        for a, b in zip(arrays, two.arrays[kind], strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_a_spike_is_found_wherever_calls_end(pieces):
    """Noise of one standard deviation, and one loss 30 of them higher."""
    losses = np.random.default_rng(3).normal(5, 0.1, 400)
    losses[300] += 3
    memory, found, spike = {}, [], Spike(window=64, factor=10)
    for start in range(0, 400, 400 // pieces):
        memory, here = spike.watch(memory, losses[start : start + 400 // pieces])
        found += [start + i for i in here]
    assert found == [300]


# --- the disk ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes all that is free."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 512):
            pass
    return filler


def at_step(step: int, action):
    """`running.train`, with something done once a step is reached."""
    plain = running.train

    def inner(*args):
        done = False
        for segment in plain(*args):
            yield segment
            if segment.step >= step and not done:
                done = True
                action()

    return inner


DISK = ("trainer.steps_per_call=2", "callback.checkpoint.every=4st", "trainer.log_every=1", "model.widths=[8]")


def test_a_disk_that_is_full_for_a_while_costs_nothing(quick, tmp_path, small_disk, monkeypatch, capsys):
    """TensorBoard is on, too: it may fail, the run may not."""
    words = (*DISK, "trainer.steps=40")  # more rows than the log's last page has room for
    run = quick(*words, "+logger.tensorboard._target_=descent.logger.TensorBoard")
    filler = []

    def change():
        filler.append(fill(small_disk))

    filling = at_step(6, change)

    def train(*args):
        for segment in filling(*args):
            if segment.step >= 36 and filler:
                filler.pop().unlink()
            yield segment

    quick(*words).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", train)
        patch.setattr(observing, "FLUSH_SECONDS", 0.0)  # the whole run is shorter
        result = run.run(small_disk / "run")
    said = capsys.readouterr()
    assert "metrics.jsonl cannot be written" in said.out
    assert "the checkpoint of step 8 could not be written" in said.out
    assert "Traceback" not in said.err + said.out
    assert result.summary["status"] == "completed"
    assert (small_disk / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_disk_that_stays_full_ends_with_a_valid_checkpoint(quick, tmp_path, small_disk, monkeypatch, capsys):
    quick(*DISK).run(tmp_path / "whole")
    filler = []

    def change():  # once step 4 is durable: it is written beside the training
        while not any(event["step"] == 4 for event in events(small_disk / "run", "saved")):
            time.sleep(0.05)
        filler.append(fill(small_disk))

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", at_step(6, change))
        result = quick(*DISK).run(small_disk / "run")
    assert (result.summary["status"], result.exit_code) == ("failed", 4)
    assert "go on from step 4 with: python train.py resume=" in capsys.readouterr().out
    saved, passed = checkpoint.newest(small_disk / "run/checkpoints")
    assert saved is not None
    assert (saved.step, passed) == (4, [])
    filler[0].unlink()
    assert quick(*DISK).run(small_disk / "run").summary["status"] == "completed"
    assert (small_disk / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_disk_that_is_full_when_the_report_is_due_leaves_a_run_to_be_finished(
    quick, tmp_path, small_disk, monkeypatch
):
    """The training is over and saved; figures and page wait for room."""
    plain, filler = finishing.report.write, []

    def write(*args):
        filler.append(fill(small_disk))
        plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(finishing.report, "write", write)
        result = quick(*DISK).run(small_disk / "run")
    assert (result.summary["status"], result.exit_code) == ("failed", 4)
    assert not (small_disk / "run/done.json").exists()
    filler[0].unlink()
    again = quick(*DISK).run(small_disk / "run")
    assert again.summary["status"] == "completed"
    assert (small_disk / "run/report.html").read_text().endswith("</html>")
    assert again.record == result.record


def test_a_read_only_disk_is_one_line(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = ["debug=fast", f"hydra.run.dir={small_disk / 'run'}"]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: [Errno 30] Read-only file system: '{small_disk / 'run'}'\n"


def test_a_run_folder_that_vanishes_is_not_made_anew(quick, folder, monkeypatch, capsys):
    monkeypatch.setattr(running, "train", at_step(6, lambda: folder.rename(folder.with_name("elsewhere"))))
    result = quick(*DISK).run(folder)
    assert (result.summary["status"], result.exit_code) == ("failed", 4)
    assert "has vanished" in capsys.readouterr().out
    assert not folder.exists()


def test_rows_that_cannot_be_written_wait(tmp_path, monkeypatch):
    log = Log(tmp_path / "metrics.jsonl")
    log.write(Rows.of({"step": 1}))
    log.flush()
    log.write(Rows.of({"step": 2}))
    plain = log.file

    class Full:
        def __getattr__(self, name):
            return getattr(plain, name)

        def write(self, content):
            plain.write(content[:3])  # half a row, as a full disk leaves it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log.file = Full()
    with pytest.raises(OSError, match="No space left"):
        log.flush()
    log.file = plain
    log.write(Rows.of({"step": 3}))
    log.flush()
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1}\n{"step":2}\n{"step":3}\n'


# --- files and memory ---


def test_a_file_of_the_data_that_vanishes_ends_the_run_resumably(quick, tmp_path, monkeypatch):
    from PIL import Image

    photos = tmp_path / "photos"
    for k, name in enumerate(("cat", "dog")):
        (photos / name).mkdir(parents=True)
        for i in range(60):
            Image.new("RGB", (4, 4), (2 * i, 100 * k, 0)).save(photos / name / f"{i}.png")
    words = (
        "data=image_folder", f"data.path={photos}", "data.size=[4,4]", "trainer.batch_size=4",
        "trainer.steps_per_call=2", "trainer.steps=40", "model.widths=[8]",
    )  # fmt: skip

    def lose():
        for path in photos.glob("*/*.png"):
            path.rename(path.with_suffix(".gone"))

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", at_step(4, lose))
        result = quick(*words).run(tmp_path / "run")
    assert (result.summary["status"], result.exit_code) == ("failed", 4)
    assert ".png" in result.summary["reason"]
    assert "No such file" in result.summary["reason"]
    saved, _ = checkpoint.newest(tmp_path / "run/checkpoints")
    assert saved is not None
    assert saved.step == result.summary["steps"] >= 4
    for path in photos.glob("*/*.gone"):
        path.rename(path.with_suffix(".png"))
    assert quick(*words).run(tmp_path / "run").summary["status"] == "completed"


def test_no_memory_at_the_first_step_names_the_batch_size(quick, folder, monkeypatch):
    import tensorflow as tf

    from descent.step import Step

    def update(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(Step, "update", update)
    result = quick("trainer.accumulate=2").run(folder)
    assert (result.summary["status"], result.exit_code) == ("failed", 4)
    assert result.summary["reason"] == (
        "out of memory at the first step, with trainer.batch_size=32 in 2 part(s); "
        "a smaller batch, or trainer.accumulate=4, needs less"
    )


# --- what is refused ---


def test_bits_that_would_change_are_refused_with_the_difference(quick, folder, monkeypatch, capsys):
    run = quick("trainer.steps_per_call=5")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", at_step(10, lambda: (_ for _ in ()).throw(Killed)))
        with pytest.raises(Killed):
            run.run(folder)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    with pytest.raises(UserError, match="TF_ENABLE_ONEDNN_OPTS was 1, is 0; resume_mismatch=warn"):
        run.run(folder)
    assert run.run(folder, mismatch="warn").summary["status"] == "completed"
    assert "the bits are not those of an unbroken run" in capsys.readouterr().out


def test_no_valid_checkpoint_is_never_a_silent_start_from_scratch(quick, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", at_step(10, lambda: (_ for _ in ()).throw(Killed)))
        with pytest.raises(Killed):
            quick(*DISK).run(folder)
    for path in (folder / "checkpoints").glob("step-*"):
        checkpoint.remove(path)
    with pytest.raises(UserError, match=r"no valid checkpoint is left .*it was written, and is gone"):
        quick(*DISK).run(folder)


def test_another_process_keeps_out(quick, folder):
    from descent.folder import RunFolder

    with RunFolder(folder).held(), pytest.raises(UserError, match="another process is running in it"):
        quick().run(folder)

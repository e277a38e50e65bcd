"""A run in its folder, end to end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from typing import ClassVar

import numpy as np
import pytest
import yaml

from descent import UserError, part, session
from descent.folder import read_rows
from descent.types import Verdict
from descent.watching import watching


@pytest.mark.figures
def test_a_run_leaves_a_complete_folder(quick, folder):
    result = quick("augmentation=mixup_cutmix").run(folder)
    assert result.summary["status"] == "completed"
    present = {p.name for p in folder.iterdir()}
    assert present == {
        "config.yaml", "environment.json", "metrics.jsonl", "timing.jsonl", "events.jsonl", "spec.json", "summary.json",
        "checkpoints", "plots", "report.html", "class_report.csv", "done.json",
    }  # fmt: skip
    assert {p.name for p in (folder / "checkpoints").iterdir()} >= {"best", "step-000020"}
    figures = {"learning_curves", "learning_rate", "preview", "confusion_matrix", "calibration"}
    assert {p.stem for p in (folder / "plots").iterdir()} == figures
    assert (folder / "report.html").read_text().count("data:image/png;base64,") == len(figures)


def test_the_summary_holds_what_the_design_promises(quick, folder):
    result = quick().run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert {"status", "best", "steps", "epochs", "parameters", "seconds", "samples_per_second"} <= set(summary)
    assert summary["best"].keys() == {"monitor", "value", "step"}
    for name in ("test/loss", "test/accuracy", "val/loss", "val/accuracy", "train/loss", "train/grad_norm"):
        assert summary[name] == result.record[name]
    assert summary["epochs"] == 20 * 32 / 1024


def test_rows_of_the_log_have_the_documented_names(quick, folder):
    quick().run(folder)
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20]
    names = {"loss", "accuracy", "grad_norm", "learning_rate", "param_norm", "update_norm", "penalty", "finite"}
    train = {f"train/{name}" for name in names}
    assert all(set(row) == {"step", "epoch", "val/loss", "val/accuracy"} | train for row in rows)


def test_what_a_row_holds_does_not_depend_on_which_steps_are_logged(quick, tmp_path):
    """Norms are computed where they are logged alone: every seventh step, and where there is an evaluation."""
    words = ("trainer.eval_every=10st", "clipping=global_norm", "trainer.steps_per_call=8")
    for n in (1, 7):
        quick(*words, f"trainer.log_every={n}").run(tmp_path / str(n))
    full, few = (read_rows(tmp_path / name / "metrics.jsonl") for name in "17")
    assert [row["step"] for row in few] == [7, 10, 14, 20]
    assert few == [row for row in full if row["step"] in (7, 10, 14, 20)]
    assert all(np.isfinite(list(row.values())).all() for row in full)


def test_the_saved_config_makes_the_same_run(quick, tmp_path):
    from descent.config import load_experiment

    quick("optimizer=sgd", "schedule.warmup=5st").run(tmp_path / "a")
    again = load_experiment(tmp_path / "a")
    again.run(tmp_path / "b")
    first, second = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab")
    assert first == second
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["optimizer"]["_target_"].endswith("SGD")


def test_the_test_split_is_evaluated_on_the_best_weights(quick, folder):
    """With a rate that ruins the model after its best point, last and best weights differ."""
    run = quick("trainer.eval_every=2st", "optimizer=sgd", "optimizer.learning_rate=3", "trainer.steps=10")
    result = run.run(folder)
    best = min(read_rows(folder / "metrics.jsonl"), key=lambda row: row["val/loss"])
    assert result.summary["best"] == {"monitor": "val/loss", "value": best["val/loss"], "step": best["step"]}
    spec, built = run.data.spec, session.build(run.resolved())
    outputs = result.model.predict(np.array(built.pipeline.source.splits["validation"][0]) * spec.scale, verbose=0)
    accuracy = np.mean(outputs.argmax(-1) == np.array(built.pipeline.source.splits["validation"][1]))
    assert accuracy == pytest.approx(best["val/accuracy"], abs=1e-9)


def test_early_stopping_ends_the_run(quick, folder):
    run = quick(
        "trainer.eval_every=1st", "callback.early_stopping.patience=3", "optimizer=sgd", "optimizer.learning_rate=1e-9"
    )
    result = run.run(folder)
    assert result.summary["status"] == "completed"
    assert result.summary["steps"] < 20
    assert "not improved for 3 evaluations" in result.summary["stopped"]


@pytest.mark.parametrize("policy", ["halt", "skip"])
def test_a_step_that_is_not_finite_changes_nothing(quick, folder, policy):
    """In the second half of the run every input is not a number; the CNN's batch statistics see it too."""
    run = quick(
        f"trainer.nonfinite={policy}", "augmentation.batch._target_=test_session.Poison", "trainer.log_every=1",
        "model=cnn", "model.widths=[4,8]", "model.dense=8", "callback=[]",
    )  # fmt: skip
    result = run.run(folder)
    rows = read_rows(folder / "metrics.jsonl")
    assert result.summary["status"] == ("halted" if policy == "halt" else "completed")
    if policy == "skip":
        assert [row["train/finite"] for row in rows] == [1] * 10 + [0] * 10
        assert {row["train/update_norm"] for row in rows[10:]} == {0}
        assert rows[9]["val/loss"] == rows[-1]["val/loss"]
    assert all(np.isfinite(weight).all() for weight in result.model.get_weights())


@part
class Poison:
    """Mixing that turns inputs into NaN in the second half of the run."""

    def draw(self, seed, shape, progress):
        import tensorflow as tf

        return {"factor": tf.where(progress < 0.5, 1.0, math.nan)}

    def apply(self, plan, batch):
        return batch._replace(inputs=batch.inputs * plan["factor"])


def test_what_a_callback_does_with_a_record_changes_no_log(quick, folder, tmp_path):
    run = quick("callback.early_stopping=null")
    run.run(folder)
    dataclasses.replace(run, callback={**run.callback, "clears": Clears()}).run(tmp_path / "other")
    assert (tmp_path / "other/metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


@part
class Clears:
    """A callback that keeps nothing of a record."""

    def __call__(self, memory, record):
        record.clear()
        return Verdict(memory)


def test_callbacks_are_asked_at_evaluations_and_the_watcher_in_between(quick, folder):
    told: list[float] = []
    run = quick("trainer.steps=20", "trainer.eval_every=10st", "trainer.log_every=2", "trainer.steps_per_call=5")
    with watching(lambda record: told.append(record["step"]) or ""):
        dataclasses.replace(run, callback={"notes": Notes()}).run(folder)
    assert [record["step"] for record in Notes.asked] == [10, 20]
    assert all("val/loss" in record and "train/loss" in record for record in Notes.asked)
    assert told == [4, 10, 14, 20]


@part
class Notes:
    """A callback that notes what it is asked about."""

    asked: ClassVar[list[dict[str, float]]] = []

    def __call__(self, memory, record):
        self.asked.append(record)
        return Verdict(memory)


def test_an_interrupted_run_says_how_to_go_on(quick, folder, monkeypatch, capsys):
    monkeypatch.setattr(session.running, "train", interrupting(session.running.train))
    result = quick("trainer.steps_per_call=5").run(folder)
    assert result.summary["status"] == "interrupted"
    assert result.exit_code == 130
    assert [p.name for p in (folder / "checkpoints").iterdir()] == [f"step-{result.summary['steps']:06d}"]
    assert result.summary["steps"] < 20
    assert f"resume={folder}" in capsys.readouterr().out
    assert not (folder / "done.json").exists()


def interrupting(train):
    def inner(*args):
        for i, segment in enumerate(train(*args)):
            yield segment
            if not i:
                os.kill(os.getpid(), signal.SIGTERM)  # not SIGINT: a background job ignores that
                time.sleep(0.1)

    return inner


def test_a_folder_of_another_run_is_refused(quick, folder):
    quick().run(folder)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds another run"):
        quick("seed=3").run(folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_complete_run_is_not_run_again(quick, folder, capsys):
    first = quick().run(folder)
    again = quick().run(folder)
    assert "complete already" in capsys.readouterr().out
    assert again.record == first.record
    for a, b in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_data_leaves_no_folder(folder, tmp_path):
    from descent import compose

    with pytest.raises(UserError, match="no folder with the four"):
        compose("data=fashion_mnist", f"data.path={tmp_path}").run(folder)
    assert not folder.exists()

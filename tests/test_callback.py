"""Callbacks as pure functions."""

from __future__ import annotations

import math

import pytest

from descent import checkpoint
from descent.callback import Checkpoint, EarlyStopping, higher_is_better
from descent.folder import read_rows


def run(callback, values, monitor="val/loss"):
    memory, verdicts = {}, []
    for step, value in enumerate(values, 1):
        verdict = callback(memory, {"step": step, monitor: value})
        memory = verdict.memory
        verdicts.append(verdict)
    return verdicts


def test_stops_after_patience_evaluations_without_improvement():
    verdicts = run(EarlyStopping(patience=3), [5, 4, 4, 4.5, 3, 3, 3, 3])
    assert [bool(v.stop) for v in verdicts] == [False] * 7 + [True]


def test_a_change_smaller_than_min_delta_is_none():
    verdicts = run(EarlyStopping(patience=2, min_delta=0.1), [5, 4.95, 4.92])
    assert [bool(v.stop) for v in verdicts] == [False, False, True]


def test_not_a_number_never_improves():
    verdicts = run(EarlyStopping(patience=2), [math.nan, math.nan])
    assert verdicts[-1].stop


def test_keeps_the_best_and_remembers_where():
    verdicts = run(Checkpoint(monitor="val/accuracy"), [0.5, 0.7, 0.6, 0.8], "val/accuracy")
    assert [v.best for v in verdicts] == [True, True, False, True]
    assert verdicts[-1].memory == {"monitor": "val/accuracy", "value": 0.8, "step": 4}


def test_a_record_without_the_metric_changes_nothing():
    memory = {"best": 1.0, "waited": 2}
    assert EarlyStopping()(memory, {"step": 3, "train/loss": 0.1}).memory == memory


@pytest.mark.parametrize(
    ("monitor", "higher"),
    [
        ("val/loss", False),
        ("val/accuracy", True),
        ("val/mae", False),
        ("val/mse", False),
        ("val/top5", True),
        ("test/log_loss", False),
        ("test/ece", False),
    ],
)
def test_the_direction_follows_from_the_name(monitor, higher):
    assert higher_is_better(monitor, "auto") is higher
    assert higher_is_better(monitor, "max")


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", [4, 2, 7]), ("val/accuracy", [6, 1, 3])])
def test_the_top_are_the_first_of_all_that_were_sorted(monitor, best):
    values = [0.8, 0.2, 0.8, 0.1, math.nan, 0.9, 0.3]
    memory = run(Checkpoint(monitor=monitor, top_k=3), values, monitor)[-1].memory
    assert memory["top"] == [[values[step - 1], step] for step in best]


def test_top_k_of_a_run_keeps_the_weights_of_its_best_evaluations(quick, folder):
    words = ("trainer.eval_every=2st", "trainer.log_every=2", "callback=[checkpoint]", "callback.checkpoint.top_k=3")
    # A rate that rises until the loss does.
    quick(*words, "optimizer=sgd", "optimizer.learning_rate=5", "schedule.warmup=0.95").run(folder)
    rows = [row for row in read_rows(folder / "metrics.jsonl") if "val/loss" in row]
    best = sorted(rows, key=lambda row: row["val/loss"])[:3]
    assert {row["step"] for row in best} != {16, 18, 20}
    folders = {f"top-{int(row['step']):06d}" for row in best}
    assert {path.name for path in (folder / "checkpoints").glob("top-*")} == folders
    first, tested = (folder / "checkpoints" / name for name in (f"top-{int(best[0]['step']):06d}", "best"))
    for a, b in zip(checkpoint.load_weights(first), checkpoint.load_weights(tested), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, [5, 10, 15, 20]), (60, [20]), ("null", [20])])
def test_a_checkpoint_is_due_by_the_clock_as_well(quick, folder, minutes, expected):
    words = ("trainer.eval_every=5st", "callback=[checkpoint]", "callback.checkpoint.keep=9")
    quick(*words, "callback.checkpoint.every=1.0", f"callback.checkpoint.every_minutes={minutes}").run(folder)
    assert sorted(checkpoint.steps(folder / "checkpoints")) == expected

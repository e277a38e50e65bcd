"""Callbacks as pure functions."""

from __future__ import annotations

import math

import pytest

from descent.callback import Checkpoint, EarlyStopping, higher_is_better


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
    [("val/loss", False), ("val/accuracy", True), ("val/mae", False), ("val/mse", False), ("val/top5", True)],
)
def test_the_direction_follows_from_the_name(monitor, higher):
    assert higher_is_better(monitor, "auto") is higher
    assert higher_is_better(monitor, "max")

"""The bar of a run on a terminal, and the lines of one without."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from descent import display
from descent.display import Ticker

EVALUATED = {"step": 10.0, "epoch": 2.0, "val/loss": 0.5, "val/accuracy": 0.875}


def ticker(*, terminal: bool) -> tuple[Ticker, io.StringIO]:
    file = io.StringIO()
    return Ticker(Console(file=file, force_terminal=terminal, width=120), 20, 3), file


def test_the_bar_shows_the_step_the_rate_and_the_last_evaluation(monkeypatch):
    monkeypatch.setattr(display, "BAR_SECONDS", 0.0)
    shown, _ = ticker(terminal=True)
    shown.evaluated(EVALUATED, 100.0)
    shown.step(12, 1234.5)
    (task,) = shown.bar.tasks
    assert (task.completed, task.total) == (12, 20)
    assert task.fields == {"rate": "1,234 samples/s", "metrics": "val/loss 0.5  val/accuracy 87.50%"}


def test_the_bar_does_not_move_more_often_than_one_sees(monkeypatch):
    monkeypatch.setattr(display, "BAR_SECONDS", 1e9)
    shown, _ = ticker(terminal=True)
    shown.step(12, 1234.5)
    assert shown.bar.tasks[0].completed == 3


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 2), (1e9, 0)])
def test_without_a_terminal_lines_are_written_now_and_then(monkeypatch, seconds, lines):
    monkeypatch.setattr(display, "QUIET_SECONDS", seconds)
    monkeypatch.setattr(display, "SILENT_SECONDS", seconds)
    shown, file = ticker(terminal=False)
    with shown:
        shown.evaluated(EVALUATED, 100.0)
        shown.step(12, 0.0)
    expected = ["step 10/20  epoch 2.0  val/loss 0.5  val/accuracy 87.50%  100 samples/s", "step 12/20"]
    assert [line.strip() for line in file.getvalue().splitlines()] == expected[:lines]


def test_the_last_evaluation_always_has_a_line():
    shown, file = ticker(terminal=False)
    shown.evaluated({**EVALUATED, "step": 20.0}, 100.0)
    assert file.getvalue().startswith("step 20/20  epoch 2.0  val/loss 0.5")

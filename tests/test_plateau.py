"""The plateau: a factor on top of any schedule, part of the state."""

from __future__ import annotations

import pytest

from descent.callback import Plateau
from descent.folder import read_rows


def factors(part: Plateau, values: list[float]) -> list[float]:
    memory, seen = {}, []
    for step, value in enumerate(values, 1):
        verdict = part(memory, {"step": step, "val/loss": value})
        memory = verdict.memory
        seen.append(verdict.rate_factor)
    return seen


def test_the_rate_falls_after_patience_and_again():
    part = Plateau(patience=2, factor=0.5, min_delta=0)
    assert factors(part, [3, 2, 2, 2, 2, 2, 1]) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_evaluations_of_the_cool_down_do_not_count():
    part = Plateau(patience=1, factor=0.5, cooldown=2, min_delta=0)
    assert factors(part, [1, 1, 1, 1, 1, 1]) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_the_floor_holds():
    part = Plateau(patience=1, factor=0.1, floor=0.05, min_delta=0)
    assert factors(part, [1, 1, 1, 1])[-1] == 0.05


def test_an_improvement_smaller_than_min_delta_is_none():
    assert factors(Plateau(patience=1, min_delta=0.1), [1.0, 0.95]) == [1, 0.5]


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_the_factor_multiplies_the_schedule(quick, folder, schedule):
    """Nothing is learned at such a rate, so each evaluation after the first is a plateau of patience one."""
    run = quick(
        f"schedule={schedule}", "callback=[checkpoint,plateau]", "callback.plateau.patience=1", "trainer.log_every=1",
        "trainer.eval_every=5st", "optimizer=sgd", "optimizer.learning_rate=1e-9",
    )  # fmt: skip
    rows = read_rows(run.run(folder).folder / "metrics.jsonl")
    expected = [rate * 0.5 ** max(0, i // 5 - 1) for i, rate in enumerate(run.rates())]
    assert [row["train/learning_rate"] for row in rows] == pytest.approx(expected, rel=1e-6)

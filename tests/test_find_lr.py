"""The range test: what its curve says, and one on a real pipeline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from descent import UserError
from descent.command import parted
from descent.entry import run_main

ROOT = Path(__file__).resolve().parents[1]
RAMP = np.geomspace(1e-6, 10, 200)


@pytest.fixture
def find_lr(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import find_lr

    return find_lr


def curve(rates: np.ndarray, fall: float = 0.01, rise: float = 1.0) -> np.ndarray:
    """A loss that falls from 2.3 around one rate, by a logistic in the log of the rate, and explodes at another."""
    return 2.3 - 1.6 / (1 + (fall / rates) ** 1.5) + (rates / rise) ** 4


def descent(rates: np.ndarray, curvatures: np.ndarray) -> np.ndarray:
    """Gradient descent on `sum h w^2 / 2` from w = 1, with noise of the size of the gradients at w = 0.1."""
    rng, w, losses = np.random.default_rng(0), np.ones(len(curvatures)), []
    for rate in rates:
        losses.append(0.5 * np.sum(curvatures * w**2))
        w = w - rate * curvatures * (w + 0.1 * rng.standard_normal(len(w)))
    return np.array(losses)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_known_curve_is_read(find_lr, noise: float):
    losses = curve(RAMP) + np.random.default_rng(0).normal(0, noise, 200)
    reading = find_lr.read(RAMP, losses)
    assert reading.steepest == pytest.approx(0.01, rel=0.1 if not noise else 1.0)
    lowest = RAMP[np.argmin(curve(RAMP))]
    assert 1 / 1.6 < reading.lowest / lowest < 1.6
    assert lowest < reading.edge < 3 * lowest
    assert reading.suggestion == reading.edge / 2


def test_the_suggestion_scales_with_the_rates_and_not_with_the_loss(find_lr):
    once = find_lr.read(RAMP, curve(RAMP))
    assert find_lr.read(8 * RAMP, curve(RAMP)).suggestion == pytest.approx(8 * once.suggestion)
    assert find_lr.read(RAMP, 5 * curve(RAMP)).suggestion == pytest.approx(once.suggestion)


@pytest.mark.parametrize("largest", [5.0, 20.0, 100.0])
def test_gradient_descent_on_a_quadratic(find_lr, largest: float):
    """It diverges above 2 / largest curvature, and 1 / largest is the best rate (LeCun et al. 1998, section 4.5)."""
    losses = descent(RAMP, np.geomspace(largest / 100, largest, 20))
    reading = find_lr.read(RAMP, losses)
    assert 1 / 1.6 < reading.edge * largest / 2 < 2.5  # it takes some steps to blow up
    assert 1 / 1.6 < reading.suggestion * largest < 2.5


def test_a_constant_under_the_loss_changes_nothing_while_its_gain_is_large(find_lr):
    assert find_lr.read(RAMP, curve(RAMP) + 3).edge == find_lr.read(RAMP, curve(RAMP)).edge


def test_reading_stops_where_the_loss_blows_up_or_is_no_number(find_lr):
    losses = curve(RAMP)
    losses[190:] = 0.0  # after the explosion nothing counts, however low
    assert len(find_lr.before_edge(losses)) < 190
    whole = np.minimum(curve(RAMP), 2.3)
    assert len(find_lr.before_edge(whole[:150])) == 150
    whole[120:] = np.nan
    assert len(find_lr.before_edge(whole)) == 120


@pytest.mark.parametrize("losses", [np.full(200, 2.3), np.linspace(2.3, 4, 200), np.full(200, np.nan)])
def test_a_loss_that_never_falls_is_said_to_be_so(find_lr, losses: np.ndarray):
    with pytest.raises(UserError, match="the loss falls at no rate"):
        find_lr.read(RAMP, losses)


def test_the_ramp_grows_by_the_same_factor_and_keeps_inside(find_lr):
    ramp = find_lr.FindLr(low=1e-3, high=1.0, steps=30).ramp()
    np.testing.assert_allclose(ramp[1:] / ramp[:-1], 10 ** (3 / 30))
    assert ramp[0] * 1.0 == pytest.approx(1e-3 * 1.0 / ramp[-1])


def test_its_own_words_are_told_from_overrides(find_lr):
    test, rest = parted(find_lr.FindLr, ["optimizer=sgd", "low=1e-5", "steps=50", "out=1e5", "trainer.steps=9"])
    assert (test.low, test.high, test.steps, test.out) == (1e-5, 10.0, 50, "1e5")
    assert rest == ["optimizer=sgd", "trainer.steps=9"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["low=3", "high=1"], "low=3 should be below high=1"),
        (["low=-1"], "low=-1"),
        (["steps=3"], "steps=3"),
        (["high=fast"], "high=fast"),
        (["steps=2.5"], "steps=2.5"),
        (["optimizer=sdg", "low=1e-4"], "did you mean sgd?"),
        (["fast"], "fast: not an override"),
    ],
)
def test_a_mistake_is_one_line(find_lr, monkeypatch, capsys, tmp_path, words: list[str], message: str):
    monkeypatch.setattr(sys, "argv", ["find_lr.py", *words, f"out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        run_main(find_lr.main)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_real_run_is_measured_read_and_drawn(find_lr, monkeypatch, capsys, tmp_path):
    words = ["debug=fast", "trainer.threads=2", "trainer.jit=false", "optimizer=sgd", "steps=80", "low=1e-4"]
    monkeypatch.setattr(sys, "argv", ["find_lr.py", *words, "high=100", f"out={tmp_path}"])
    find_lr.main()
    path, _, last = capsys.readouterr().out.splitlines()
    assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert Path(path).with_suffix(".svg").exists()
    assert 3e-3 < float(last.removeprefix("optimizer.learning_rate=")) < 3
    rows = [json.loads(line) for line in Path(path).with_suffix(".jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["train/learning_rate"] == pytest.approx(1e-4 * 10 ** (6 * 0.5 / 80))
    assert not float(rows[-1]["train/loss"]) <= rows[0]["train/loss"]  # higher, or no number


def test_the_rates_are_those_of_the_steps(find_lr, quick):
    """At a rate of nearly nothing the loss is that of the untrained model; so it is at the first step of any ramp."""
    run = quick("optimizer=sgd")
    still = find_lr.measure(run, np.full(40, 1e-30))
    moving = find_lr.measure(run, np.r_[np.full(20, 1e-30), np.full(20, 0.1)])
    np.testing.assert_array_equal(still[:21], moving[:21])
    assert np.mean(moving[30:]) < 0.9 * np.mean(still[30:])

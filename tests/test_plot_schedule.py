"""Learning rates drawn without training, and without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from descent import plot

ROOT = Path(__file__).resolve().parents[1]


def script(*words: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/plot_schedule.py"), *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_several_schedules_are_one_figure(poisoned, tmp_path: Path):
    words = ["schedule=cosine,one_cycle,wsd", "trainer.epochs=3", "out=pictures"]
    done = script(*words, env=poisoned, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pictures/cosine-one_cycle-wsd.png\n"
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {
        "cosine-one_cycle-wsd.png", "cosine-one_cycle-wsd.svg",
    }  # fmt: skip
    assert (tmp_path / done.stdout.strip()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["schedule=cosine,cosin"], "error: schedule=cosin: there is no such option; did you mean cosine?"),
        (
            ["schedule=wsd", "schedule.form=round"],
            "error: schedule.form=round: should be 'linear', 'cosine' or '1-sqrt'",
        ),
        (["schedule=custom", "schedule.function=math.sinh"], "error: schedule.function: math.sinh(0."),
        (["cosine"], "error: cosine: not an override"),
        (["seed=" + ",".join(map(str, range(40)))], "error: 40 curves are too many for one figure; at most 32"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, poisoned, tmp_path: Path):
    done = script(*words, "out=pictures", env=poisoned, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "pictures").exists()


def test_help_is_the_docstring(poisoned, tmp_path: Path):
    assert "schedule=cosine,one_cycle,wsd" in script("--help", env=poisoned, cwd=tmp_path).stdout
    assert script(env=poisoned, cwd=tmp_path).returncode == 2


@pytest.fixture
def plot_schedule(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import plot_schedule

    return plot_schedule


def test_curves_are_the_rates_of_the_run_named_by_what_differs(plot_schedule):
    curves = plot_schedule.rates(["schedule=step,wsd", "schedule.warmup=0.0,5ep", "optimizer.learning_rate=0.5"])
    assert list(curves) == ["step warmup=0.0", "step warmup=5ep", "wsd warmup=0.0", "wsd warmup=5ep"]
    assert {len(rates) for rates in curves.values()} == {1460}
    assert curves["wsd warmup=0.0"][:1000].tolist() == [0.5] * 1000
    assert curves["step warmup=5ep"][0] == pytest.approx(0.5 * 0.5 / 182.5)


def test_commas_inside_brackets_are_part_of_one_value(plot_schedule):
    assert plot_schedule.choices("schedule.milestones=[1ep,2ep]") == ["schedule.milestones=[1ep,2ep]"]
    assert plot_schedule.choices("schedule=cosine") == ["schedule=cosine"]
    assert plot_schedule.choices("seed=0,1") == ["seed=0", "seed=1"]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 13])
def test_every_curve_is_drawn_whole_at_the_middle_of_its_steps(count: int):
    curves = {f"curve {i}": np.linspace(1, 0.1 * i, 10 + i) for i in range(count)}
    made = plot.schedules(curves)
    lines = [line for axis in made.axes for line in axis.lines]
    assert len(lines) == count
    for line, rates in zip(lines, curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(len(rates)) + 0.5)
        np.testing.assert_array_equal(line.get_ydata(), rates)
    limits = {(axis.get_xlim(), axis.get_ylim()) for axis in made.axes}
    assert len(limits) == 1
    assert next(iter(limits))[0] == (0, 9 + count)


def test_the_same_curves_give_the_same_bytes(tmp_path: Path):
    curves = {"a": np.linspace(1, 0, 20), "b": np.ones(20)}
    for name in ("one", "two"):
        plot.save(plot.schedules(curves), tmp_path / name, "rates")
    for kind in ("png", "svg"):
        assert (tmp_path / f"one/rates.{kind}").read_bytes() == (tmp_path / f"two/rates.{kind}").read_bytes()

"""Runs whose losses or monitors differ: what ranks, draws and compares them is a metric of one meaning."""

from __future__ import annotations

import html
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from descent import compare
from descent.runs import find
from descent.sweep import figures, ranking, report
from descent.sweep.board import Board
from descent.sweep.collected import collect
from descent.sweep.job import Outcome
from test_sweep_jobs import job

CROSS, FOCAL = {"_target_": "descent.loss.CrossEntropy"}, {"_target_": "descent.loss.Focal", "gamma": 2.0}


def run(folder: Path, words: str, config: dict[str, Any], metrics: dict[str, float], monitor: str, order: int) -> None:
    """A run that was best at its first evaluation, and whose accuracy is lower at the second."""
    folder.mkdir(parents=True)
    best = {"monitor": monitor, "value": metrics[monitor], "step": 10}
    last = {name: 0.9 * value for name, value in metrics.items()}
    summary = {
        "status": "completed", "name": "known", "best": best, "steps": 20, "parameters": 1, "seconds": 1.0, **last,
        **{name.replace("val/", "test/"): value for name, value in metrics.items()},
    }  # fmt: skip
    rows = [{"step": 10, "epoch": 1.0, **metrics}, {"step": 20, "epoch": 2.0, **last}]
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, **config}))
    (folder / "environment.json").write_text(json.dumps({"overrides": words.split(), "command": ["train.py", "-m"]}))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "environment.json", (order, order))


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    """The focal loss is the lower number, of the worse run."""
    run(tmp_path / "c", "loss=cross_entropy", {"loss": CROSS}, {"val/loss": 0.5, "val/accuracy": 0.9}, "val/loss", 1)
    run(tmp_path / "f", "loss=focal", {"loss": FOCAL}, {"val/loss": 0.1, "val/accuracy": 0.8}, "val/loss", 2)
    return tmp_path


@pytest.fixture
def monitors(tmp_path: Path) -> Path:
    """One is watched by its loss, one by its accuracy; the second is better in both."""
    for order, (monitor, loss) in enumerate((("val/loss", 0.5), ("val/accuracy", 0.4))):
        config = {"loss": CROSS, "callback": {"checkpoint": {"monitor": monitor}}}
        metrics = {"val/loss": loss, "val/accuracy": 1 - loss}
        run(tmp_path / str(order), f"callback.checkpoint.monitor={monitor}", config, metrics, monitor, order)
    return tmp_path


def test_runs_of_different_losses_are_ranked_by_accuracy_and_terminal_and_page_say_so(losses: Path):
    ranks = collect(losses).ranks
    assert [one.variant.label for one in ranks] == ["loss=cross_entropy", "loss=focal"]
    assert [one.value.mean for one in ranks] == [0.9, 0.8]  # at the kept weights, not the last
    terminal = io.StringIO()
    board = Board((), Console(width=140, file=terminal, soft_wrap=True))
    for number, name in enumerate(("c", "f")):
        board.add(job(losses / name, number, label=f"loss={name}"), Outcome("done"))
    board.close()
    for told in (terminal.getvalue(), html.unescape(report.write(losses).read_text())):
        assert "val/loss is of each run's own loss, which does not compare: ranked by val/accuracy" in told
        assert "best val/loss" not in told


def test_curves_of_different_losses_share_no_figure(losses: Path):
    assert [axis.get_ylabel() for axis in figures.curves(collect(losses)).axes] == ["val/accuracy"]


def test_a_key_of_the_loss_makes_another_loss(tmp_path: Path):
    for order, (gamma, mse) in enumerate(((0.5, 2.0), (5.0, 1.0))):
        metrics = {"val/loss": mse / gamma, "val/mse": mse, "val/mae": 3.0 - mse}
        config = {"loss": {**FOCAL, "gamma": gamma}}
        run(tmp_path / str(order), f"loss.gamma={gamma}", config, metrics, "val/loss", order)
    ranks = collect(tmp_path).ranks
    assert [(one.variant.label, one.basis.name) for one in ranks] == [
        ("loss.gamma=5.0", "val/mse"),
        ("loss.gamma=0.5", "val/mse"),
    ]


def test_a_penalty_is_no_part_of_the_loss_that_is_evaluated(tmp_path: Path):
    for order, rate in enumerate((0.1, 0.2)):
        config = {"loss": CROSS, "regularization": {"label_smoothing": rate}}
        metrics = {"val/loss": rate, "val/accuracy": 0.5 + rate}
        run(tmp_path / str(order), f"regularization.label_smoothing={rate}", config, metrics, "val/loss", order)
    ranks = collect(tmp_path).ranks
    assert [(one.value.mean, one.basis.title, one.basis.why) for one in ranks] == [
        (0.1, "best val/loss", ""),
        (0.2, "best val/loss", ""),
    ]


def test_runs_of_different_losses_that_are_all_monitored_by_accuracy_keep_it(losses: Path):
    for folder, best in (("c", 0.9), ("f", 0.95)):
        path = losses / folder / "summary.json"
        content = json.loads(path.read_text())
        content["best"] = {"monitor": "val/accuracy", "value": best, "step": 10}
        path.write_text(json.dumps(content))
    assert ranking.basis(find([losses])) == ranking.Basis("val/accuracy")
    assert [one.variant.label for one in collect(losses).ranks] == ["loss=focal", "loss=cross_entropy"]


def test_runs_of_different_monitors_are_ranked_by_a_metric_that_all_have(monitors: Path):
    ranks = collect(monitors).ranks
    assert [one.variant.runs[0].path.name for one in ranks] == ["1", "0"]
    assert [one.value.mean for one in ranks] == [0.6, 0.5]
    assert ranks[0].basis.why.startswith("the runs are monitored by val/loss and val/accuracy, which does not compare")


def test_a_comparison_of_losses_is_by_what_compares(losses: Path, tmp_path: Path):
    found = compare.compare(find([losses]))
    assert (found.curve, found.metric) == ("val/accuracy", "test/accuracy")
    assert found.target == 0.8  # what the worse one reaches, upwards
    assert "each one's own and do not compare" in compare.text(found).splitlines()[-1]
    assert "do not compare" in compare.write(found, tmp_path / "out").read_text()
    assert compare.compare(find([losses]), curve="val/loss").curve == "val/loss"


def test_a_comparison_of_losses_of_real_targets_is_by_their_error(tmp_path: Path):
    for order, (name, mse) in enumerate((("mse", 2.0), ("mae", 1.0))):
        metrics = {"val/loss": mse, "val/mse": mse, "val/mae": 1.0}
        run(tmp_path / name, f"loss={name}", {"loss": {"_target_": name}}, metrics, "val/loss", order)
    found = compare.compare(find([tmp_path]))
    assert (found.curve, found.metric) == ("val/mse", "test/mse")


def test_a_comparison_of_one_loss_is_by_it(monitors: Path):
    found = compare.compare(find([monitors]))
    assert (found.curve, found.note) == ("val/loss", "")

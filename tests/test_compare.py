"""Comparisons of runs whose numbers are known: the table, the pairs and the costs are those of SciPy and of hand."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from descent import UserError, compose
from descent.compare import compare, text, write
from descent.runs import find

ROOT = Path(__file__).resolve().parents[1]
RATES = {"sgd": 0.5, "adam": 0.8, "momentum": 0.6}  # of the decay of the loss in an epoch
FINALS = {name: np.random.default_rng(i).normal(i, 1, 5) for i, name in enumerate(RATES)}


def run(folder: Path, optimizer: str, seed: int, *, epochs: int = 6, order: int = 0, final: object = None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "optimizer": {"_target_": optimizer}}))
    (folder / "environment.json").write_text(json.dumps({"overrides": [f"optimizer={optimizer}", f"seed={seed}"]}))
    summary = {"seconds": 2.0 + seed, "samples_per_second": 100.0}
    summary["test/loss"] = float(FINALS[optimizer][seed]) if final is None else final
    (folder / "summary.json").write_text(json.dumps(summary))
    losses = [(1 + seed / 10) * RATES[optimizer] ** epoch for epoch in range(1, epochs + 1)]
    rows = [{"step": 10 * e, "epoch": float(e), "val/loss": loss} for e, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "environment.json", (order, order))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for order, name in enumerate(RATES):
        for seed in range(5):
            run(tmp_path / "sweep" / f"{name}-{seed}", name, seed, order=5 * order + seed)
    return tmp_path / "sweep"


def test_the_pairs_are_scipys_paired_tests_corrected(sweep):
    found = compare(find([sweep]))
    assert [standing.label for standing in found.standings] == [f"optimizer={name}" for name in RATES]
    names = [(p.left.split("=")[1], p.right.split("=")[1]) for p in found.pairs]
    assert names == [("sgd", "adam"), ("sgd", "momentum"), ("adam", "momentum")]
    chances = [stats.ttest_rel(FINALS[a], FINALS[b]).pvalue for a, b in names]
    np.testing.assert_allclose([pair.p for pair in found.pairs], chances, rtol=1e-9)
    assert min(pair.adjusted for pair in found.pairs) == pytest.approx(min(1, 3 * min(chances)))
    for (a, b), pair in zip(names, found.pairs, strict=True):
        assert pair.difference.mean == pytest.approx((FINALS[a] - FINALS[b]).mean())


def test_with_a_baseline_each_is_compared_with_it(sweep):
    found = compare(find([sweep]), baseline="optimizer=adam")
    assert [(p.left, p.right) for p in found.pairs] == [
        ("optimizer=sgd", "optimizer=adam"),
        ("optimizer=momentum", "optimizer=adam"),
    ]


def test_the_cost_is_the_first_step_that_is_as_good_as_the_target(sweep):
    """`(1 + s / 10) r^e <= 0.3` first at `e = ceil(log(0.3 / (1 + s / 10)) / log r)`."""
    found = compare(find([sweep]), target=0.3)
    for name, standing in zip(RATES, found.standings, strict=True):
        first = [np.ceil(np.log(0.3 / (1 + s / 10)) / np.log(RATES[name])) for s in range(5)]
        reached = [10 * e for e in first if e <= 6]
        assert standing.reached == len(reached)
        assert standing.steps.mean == pytest.approx(np.mean(reached))
        assert standing.seconds.mean == 4


def test_the_target_is_what_the_worst_variant_reaches_on_average(sweep):
    assert compare(find([sweep])).target == pytest.approx(np.mean([(1 + s / 10) * 0.8**6 for s in range(5)]))


def test_a_run_that_ended_early_or_without_a_number_leaves_the_rest_alone(sweep):
    run(sweep / "early", "adam", 5, epochs=2, order=99, final="nan")
    found = compare(find([sweep]))
    adam = found.standings[1]
    assert (adam.runs, adam.lost, adam.metric.n) == (6, 1, 5)
    _, values = found.curves["optimizer=adam"]
    assert values.shape == (6, 6)
    assert np.isnan(values[5]).tolist() == [False, False, True, True, True, True]
    assert found.pairs[0].difference.n == 5


def test_a_halted_run_which_has_no_test_leaves_the_comparison_on_the_test_split(sweep):
    for summary in sweep.glob("*/summary.json"):
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "completed"}))
    assert compare(find([sweep])).metric == "test/loss"
    run(sweep / "halted", "adam", 4, epochs=2, order=99)
    (sweep / "halted/summary.json").write_text(json.dumps({"status": "halted", "seconds": 1.0}))
    found = compare(find([sweep]))
    assert (found.metric, found.standings[1].lost) == ("test/loss", 1)


def test_the_files_hold_the_same_numbers_and_the_page_needs_no_other(sweep, tmp_path):
    found = compare(find([sweep]))
    page = write(found, tmp_path / "out")
    assert {p.name for p in page.parent.iterdir()} == {
        "comparison.html",
        "curves.png",
        "curves.svg",
        "pairs.csv",
        "variants.csv",
    }
    rows = list(csv.DictReader((page.parent / "variants.csv").read_text().splitlines()))
    assert [float(row["metric"]) for row in rows] == [standing.metric.mean for standing in found.standings]
    content = page.read_text()
    assert "optimizer=momentum" in content
    assert 'src="data:image/png;base64,' in content
    assert "http" not in content
    assert text(found).splitlines()[1].startswith("optimizer=sgd")


def test_what_is_not_there_is_named(sweep):
    runs = find([sweep])
    with pytest.raises(UserError, match="curve=val/f1: no run has it"):
        compare(runs, curve="val/f1")
    with pytest.raises(UserError, match="metric=test/f1: no run has it"):
        compare(runs, metric="test/f1")
    with pytest.raises(UserError, match="baseline=x: there is no such variant; choose one of optimizer=sgd, "):
        compare(runs, baseline="x")


def test_the_comparison_of_optimizers_is_of_five_for_fifty_epochs():
    for name in ("sgd", "momentum", "adam", "adamw", "rmsprop"):
        run = compose("experiment=optimizer_comparison", f"optimizer={name}")
        assert run.trainer.epochs == 50
        assert run.data.spec.features == tuple(f"x{i}" for i in range(1, 11))


@pytest.mark.slow
def test_one_command_makes_the_runs_and_their_figure(tmp_path):
    words = ["experiment=optimizer_comparison", "optimizer=sgd,adam", "trainer.epochs=2", "trainer.jit=false"]
    place = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    subprocess.run([sys.executable, ROOT / "train.py", *words, place, "logger.tensorboard=null"], check=True)
    rows = list(csv.DictReader((tmp_path / "sweep/comparison/variants.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["optimizer=sgd", "optimizer=adam"]

"""What measures the cost of the log: blocks that are logged beside blocks that are not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def logging_cost(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import logging_cost

    return logging_cost


def test_those_blocks_are_logged_that_are_said_and_no_others(quick, logging_cost, monkeypatch):
    """Four blocks of two evaluations, each after five steps."""
    written = []
    monkeypatch.setattr("descent.folder.Log.write", lambda _, rows: written.extend(rows.values[:, 0].tolist()))
    run = quick("callback=[checkpoint]", "trainer.steps=40", "trainer.eval_every=5st", "trainer.log_every=2")
    blocks = logging_cost.Blocks(run, 2, [False, True, True, False])
    assert len(blocks.times()) == 4
    assert written == [12, 14, 15, 16, 18, 20, 22, 24, 25, 26, 28, 30]


def test_it_says_what_logging_takes(logging_cost, capsys):
    words = ("debug=fast", "trainer.threads=2", "trainer.jit=false", "trainer.eval_every=5st")
    logging_cost.LoggingCost(pairs=3, evaluations=1)(words)
    assert re.search(r"logging takes -?[\d.]+ % \(.* to .*\) of [\d.]+ us a step, 3 pairs\n$", capsys.readouterr().out)


def test_the_interval_holds_the_geometric_mean_as_often_as_it_says(logging_cost):
    rng = np.random.default_rng(0)
    intervals = [logging_cost.mean(np.exp(rng.exponential(size=100) - 1)) for _ in range(2000)]
    held = [low <= 1 <= high for low, _, high in intervals]
    assert 0.92 < np.mean(held) < 0.97


def test_the_middle_is_the_geometric_mean(logging_cost):
    low, middle, high = logging_cost.mean(np.array([0.5, 1.0, 2.0, 4.0]))
    assert middle == pytest.approx(2**0.5)
    assert low * high == pytest.approx(middle**2)

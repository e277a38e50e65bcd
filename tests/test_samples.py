"""Fewer training samples: a fixed choice, and a run that sees no others."""

from __future__ import annotations

import numpy as np
import pytest

from descent import UserError, compose
from descent.data.pipeline import chosen
from descent.folder import read_rows
from descent.session import build

RUN = ("model=mlp", "model.widths=[4]", "augmentation=none", "regularization=none", "trainer.threads=2")
RUN = (*RUN, "trainer.jit=false", "trainer.batch_size=8")


def test_fewer_samples_are_among_more_and_all_are_those_there_are():
    few, more, all_of_them = (chosen(50, count) for count in (10, 30, 50))
    assert set(few) < set(more) < set(all_of_them) == set(range(50))
    assert len(few) == 10
    assert chosen(50, None) is None


@pytest.mark.parametrize("seed", [0, 7])
def test_a_run_sees_each_of_its_samples_once_an_epoch_and_no_others(seed):
    run = compose(*RUN, "trainer.samples=20", "trainer.epochs=2", f"seed={seed}").resolved()
    built = build(run)
    assert (run.clock.steps, built.pipeline.samples) == (5, 40)
    seen = [i for step in range(1, 6) for i in built.pipeline.indices(step)]
    assert sorted(seen[:20]) == sorted(seen[20:]) == sorted(chosen(run.data.spec.sizes["train"], 20))
    chunk = next(iter(built.pipeline.training(0)))
    inputs, targets = built.pipeline.source.gather("train", np.array(seen[:8]))
    np.testing.assert_array_equal(chunk.inputs[0], inputs)
    np.testing.assert_array_equal(chunk.targets[0], targets)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.samples=5000"], "trainer.samples=5000 is more than the 1168 training samples there are"),
        (["trainer.samples=5"], "trainer.batch_size=8 is more than the 5 training samples; at most 5"),
        (["trainer.samples=0"], r"trainer\.samples=0: should be"),
    ],
)
def test_samples_that_are_not_there(words, message):
    with pytest.raises(UserError, match=message):
        compose(*RUN, *words)


@pytest.mark.parametrize("words", [["model=mlp"], ["data=diabetes", "model=mlp", "loss=mse"]], ids=str)
def test_a_model_learns_some_samples_of_the_data_by_heart(words, folder):
    result = compose(*words, "debug=overfit", "trainer.threads=2", "trainer.jit=false", "logger={}").run(folder)
    loss = [row["train/loss"] for row in read_rows(folder / "metrics.jsonl")]
    assert result.summary["status"] == "completed"
    assert loss[-1] < 1e-3 < 0.1 < loss[0]
